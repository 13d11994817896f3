//! Goal: headers of images are judged before anything is opened, whatever stands in them; progress and holes are found.

use std::path::Path;

use seam::testing::replay;
use serde_json::json;

use super::image::{Verdict, judge, recognise, references};
use super::program::{latest, option};
use super::stream::data_runs;
use crate::arguments::ImageFormat::{self, Qcow2, Raw, Vmdk};

const MUTATIONS: u64 = 20_000;

fn head(parts: &[(usize, &[u8])]) -> [u8; 512] {
    let mut head = [0; 512];
    for (at, bytes) in parts {
        head[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    head
}

#[test]
fn headers_are_judged() {
    let qcow2: (usize, &[u8]) = (0, b"QFI\xfb\0\0\0\x03");
    let vmdk: (usize, &[u8]) = (0, b"KDMV\x01\0\0\0\0\0\0\0\x01");
    type Marks<'a> = Vec<(usize, &'a [u8])>;
    let cases: [(Marks<'_>, ImageFormat, Verdict); 10] = [
        (vec![qcow2], Qcow2, Verdict::Sound),
        (vec![qcow2, (15, &[1])], Qcow2, Verdict::NotWhole("a backing file")),
        (vec![qcow2, (35, &[2])], Qcow2, Verdict::Encrypted),
        (vec![qcow2, (79, &[4])], Qcow2, Verdict::NotWhole("a data file")),
        (vec![(0, b"QFI\xfb\0\0\0\x02"), (79, &[4])], Qcow2, Verdict::Sound),
        (vec![vmdk], Qcow2, Verdict::Other),
        (vec![vmdk], Vmdk, Verdict::Sound),
        (vec![(0, b"KDMV")], Vmdk, Verdict::NotWhole("extents in other files")),
        (vec![(0, b"# Disk DescriptorFile")], Vmdk, Verdict::NotWhole("extents in other files")),
        (vec![qcow2, (15, &[1])], Raw, Verdict::Sound),
    ];
    for (parts, format, verdict) in cases {
        assert_eq!(judge(&head(&parts), format), verdict, "{parts:?} {format:?}");
    }
    assert_eq!(recognise(b"QFI\xfb"), Qcow2);
    assert_eq!(recognise(b"KDMV"), Vmdk);
    for raw in [&b""[..], b"QFI", b"VHDX", b"conectix", b"\x7fELF"] {
        assert_eq!(recognise(raw), Raw, "{raw:?}");
    }
}

#[test]
fn references_are_found() {
    let own = Path::new("/i/a.vmdk");
    let extents = |name: &str| json!({"format-specific": {"data": {"extents": [{"filename": name}]}}});
    assert_eq!(references(&json!({"virtual-size": 5}), own), None);
    assert_eq!(references(&extents("/i/a.vmdk"), own), None);
    assert_eq!(references(&extents("/etc/shadow"), own), Some("extents in other files"));
    assert_eq!(references(&json!({"backing-filename": "x"}), own), Some("a backing file"));
    assert_eq!(references(&json!({"full-backing-filename": "x"}), own), Some("a backing file"));
    assert_eq!(
        references(&json!({"format-specific": {"data": {"data-file": "x"}}}), own),
        Some("a data file")
    );
}

#[test]
fn progress_is_read() {
    assert_eq!(latest(b"    (0.00/100%)\r    (12.34/100%)\r"), Some(1234));
    assert_eq!(latest(b"    (100.00/100%)\n"), Some(10_000));
    for nothing in [
        &b""[..],
        b"(12.3",
        b"/100%)",
        b"(x/100%)",
        b"(-1/100%)",
        b"(900/100%)",
        b"(NaN/100%)",
        b"\xff(1/100%)",
    ] {
        assert_eq!(latest(nothing), None, "{}", nothing.escape_ascii());
    }
    assert_eq!(option("/a,b/c"), "/a,,b/c");
}

#[test]
fn zeros_are_left_out() {
    let mut chunk = vec![0; 5 << 20];
    assert!(data_runs(&chunk).is_empty() && data_runs(&[]).is_empty());
    chunk[5000] = 1;
    chunk[9000] = 1;
    assert_eq!(data_runs(&chunk), [(4096, 12_288)]);
    chunk.fill(1);
    chunk.truncate((2 << 20) + 100);
    assert_eq!(data_runs(&chunk), [(0, 1 << 20), (1 << 20, 2 << 20), (2 << 20, (2 << 20) + 100)]);
}

mod fuzz {
    use super::{MUTATIONS, Qcow2, Vmdk, head, judge, latest, recognise, references, replay};

    #[test]
    fn damaged_headers_and_words() {
        let corpus = [
            head(&[(0, b"QFI\xfb\0\0\0\x03"), (15, &[1])]).to_vec(),
            head(&[(0, b"KDMV\x01")]).to_vec(),
            b"    (12.34/100%)\r".to_vec(),
            br#"{"format-specific":{"data":{"extents":[{"filename":"x"}],"data-file":"y"}}}"#.to_vec(),
        ];
        replay(&corpus, MUTATIONS, |input| {
            let mut head = [0; 512];
            let length = input.len().min(512);
            head[..length].copy_from_slice(&input[..length]);
            let _ = (recognise(input), judge(&head, Qcow2), judge(&head, Vmdk));
            assert!(latest(input).is_none_or(|share| share <= 10_000));
            if let Ok(info) = serde_json::from_slice(input) {
                let _ = references(&info, std::path::Path::new("/x"));
            }
        });
    }
}
