//! Goal: headers of images are judged before anything is opened, whatever stands in them; progress and holes are found.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use api::code;
use seam::testing::replay;
use serde_json::json;

use super::format::{Known, Verdict, format_of, judge, promised, recognise};
use super::image::references;
use super::program::{latest, option};
use super::stream::data_runs;
use crate::arguments::ExportFormat;
use crate::arguments::ImageFormat::{self, Parallels, Qcow2, Qed, Raw, Vdi, Vhd, Vhdx, Vmdk};

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
    let vhd = |kind: &'static [u8]| vec![(0, &b"conectix"[..]), (63, kind)];
    let cases: [(Marks<'_>, ImageFormat, Verdict); 20] = [
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
        (vec![(0, b"#!\n# x\n\nversion=1\n")], Vmdk, Verdict::NotWhole("extents in other files")),
        (vec![(0, b"#!\nversion 1\n")], Vmdk, Verdict::Other),
        (vhd(&[3]), Vhd, Verdict::Sound),
        (vhd(&[4]), Vhd, Verdict::NotWhole("a parent")),
        (vec![qcow2], Vhd, Verdict::Other),
        (vec![(0, b"QED\0"), (16, &[1])], Qed, Verdict::NotWhole("a backing file")),
        (vec![(0, b"QED\0")], Qed, Verdict::Sound),
        (vec![qcow2], Vdi, Verdict::Other),
        (vec![qcow2], Vhdx, Verdict::Other),
        (vec![qcow2], Parallels, Verdict::Other),
    ];
    for (parts, format, verdict) in cases {
        assert_eq!(judge(&head(&parts), &[0; 512], format), verdict, "{parts:?} {format:?}");
    }
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    assert_eq!(judge(&[0; 512], &footer, Vhd), Verdict::Sound);
    assert_eq!(recognise(&[0; 512], &footer), Known::Image(Vhd));
    let vdi = head(&[(64, b"\x7f\x10\xda\xbe")]);
    for (first, format) in [
        (&b"QFI\xfb"[..], Qcow2),
        (b"KDMV", Vmdk),
        (b"# Disk Descriptor", Vmdk),
        (b"# a comment\n# Disk DescriptorFile\nversion=3\n", Vmdk),
        (b"vhdxfile", Vhdx),
        (b"conectix", Vhd),
        (&vdi, Vdi),
        (b"QED\0", Qed),
        (b"WithoutFreeSpace", Parallels),
        (b"WithouFreSpacExt", Parallels),
    ] {
        assert_eq!(recognise(first, &[]), Known::Image(format), "{format:?}");
    }
    for raw in [&b""[..], b"QFI", b"VHDX", b"\x7fELF", b"BZh91", b"\x1f\x8b"] {
        let known = recognise(raw, &[]);
        assert!(known == Known::Image(Raw), "{raw:?} {known:?}");
    }
    let tar = head(&[(257, b"ustar")]);
    for (first, what) in [
        (&b"\x1f\x8b\x08"[..], "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (&tar, "OVA"),
        (b"COWD", "ESX"),
    ] {
        let Known::Wrapper(found, how) = recognise(first, &[]) else { panic!("{what}") };
        assert!(found.contains(what) && !how.is_empty(), "{found}");
    }
    assert_eq!(promised(Path::new("/a/b.QCOW2")), Some("qcow2"));
    assert_eq!(promised(Path::new("b.raw.zst")), Some("zstd"));
    for raw in ["b.img", "b.raw", "b", "b.iso", "qcow2"] {
        assert_eq!(promised(Path::new(raw)), None, "{raw}");
    }
}

#[test]
fn a_file_is_what_its_name_says() {
    use ExportFormat::{Qcow2, Raw};
    for (file, asked, format) in [
        ("a.qcow2", None, Qcow2),
        ("a.QCOW2", Some(Qcow2), Qcow2),
        ("a.raw", None, Raw),
        ("a", Some(Qcow2), Qcow2),
        ("a.img", Some(Qcow2), Qcow2),
        ("qcow2", None, Raw),
        ("a.img", None, Raw),
        ("-", None, Raw),
        ("-", Some(Raw), Raw),
    ] {
        assert_eq!(format_of(Path::new(file), asked).unwrap(), format, "{file}");
    }
    for (file, asked) in [
        ("a.qcow2", Some(Raw)),
        ("a.raw", Some(Qcow2)),
        ("a.vmdk", None),
        ("a.vmdk", Some(Qcow2)),
        ("a.raw.zst", None),
        ("a.gz", Some(Raw)),
    ] {
        assert!(format_of(Path::new(file), asked).unwrap_err().is(code::USAGE), "{file}");
    }
}

#[test]
fn references_are_found() {
    let own = Path::new("/i/a.vmdk");
    let extents = |name: &str| json!({"format-specific": {"data": {"extents": [{"filename": name}]}}});
    assert_eq!(references(&json!({"virtual-size": 5}), own), None);
    assert_eq!(references(&extents("/i/a.vmdk"), own), None);
    assert_eq!(references(&extents("/etc/shadow"), own), Some("extents in other files"));
    // As qemu-img shows a name that is no text.
    let odd = Path::new(OsStr::from_bytes(b"/i/\xff.vmdk"));
    let mut info = extents("/i/\u{fffd}.vmdk");
    assert_eq!(references(&info, odd), Some("extents in other files"));
    info["filename"] = "/i/\u{fffd}.vmdk".into();
    assert_eq!(references(&info, odd), None);
    info["filename"] = "/etc/shadow".into();
    assert_eq!(references(&info, odd), Some("extents in other files"));
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
    assert_eq!(option(OsStr::new("/a,b/c")), "/a,,b/c");
    let odd = OsStr::from_bytes(b"/\xff,\xe9");
    assert_eq!(option(odd).as_bytes(), b"/\xff,,\xe9");
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
    use super::{
        MUTATIONS, Parallels, Qcow2, Qed, Vdi, Vhd, Vhdx, Vmdk, head, judge, latest, recognise, references,
        replay,
    };

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
            let _ = recognise(input, &head);
            for format in [Qcow2, Vmdk, Vhd, Vhdx, Vdi, Qed, Parallels] {
                let _ = judge(&head, &head, format);
            }
            assert!(latest(input).is_none_or(|share| share <= 10_000));
            if let Ok(info) = serde_json::from_slice(input) {
                let _ = references(&info, std::path::Path::new("/x"));
            }
        });
    }
}
