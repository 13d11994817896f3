//! Goal: whatever is typed is taken or refused: sound command lines and values, mutated by seed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use seam::testing::replay;

use super::{Arguments, file_media, seconds, size, wanted};

const MUTATIONS: u64 = 2000;

/// The words of a command line, one a line.
fn words(input: &[u8]) -> Vec<OsString> {
    input.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect()
}

#[test]
fn damaged_command_lines() {
    let corpus = [
        "holdfast\nstandalone\n--dir\nd\n--file-media\n6x64G\n--io\nsync\n--log\nwarn",
        "holdfast\n-o\njson\n--site\ns\n--timeout=5\nvm\ncreate\nweb01\n--disk\n20G\n--disk\n512M",
        "holdfast\n--site\ns\nvm\ndelete\nweb01\n--yes",
        "holdfast\n--output=yaml\ndisk\nresize\nweb01\ndisk0\n10G\n--shrink",
        "holdfast\nvm\nimport\nweb01\n-\n--size\n20G\n-f\nraw",
        "holdfast\nvm\nrevert\nweb01@s1\n--yes",
        "holdfast\nsnapshot\ndiff\nweb01@s1\nweb01\n--disk\ndisk0",
        "holdfast\ntask\ncancel\n18446744073709551615",
    ];
    let corpus = corpus.map(|line| line.as_bytes().to_vec());
    for line in &corpus {
        assert!(Arguments::try_parse_from(words(line)).is_ok(), "{}", line.escape_ascii());
    }
    replay(&corpus, MUTATIONS, |input| {
        let words = words(input);
        let _ = wanted(&words);
        if let Err(error) = Arguments::try_parse_from(words) {
            assert!(!error.render().to_string().is_empty());
        }
    });
}

#[test]
fn damaged_values() {
    let corpus = ["6x64G", "64x16383P", "86400", "20GiB", "1"].map(|text| text.as_bytes().to_vec());
    replay(&corpus, 10 * MUTATIONS, |input| {
        let text = String::from_utf8_lossy(input);
        let (media, bytes, time) = (file_media(&text), size(&text), seconds(&text));
        assert!(media.is_err() || bytes.is_err() && time.is_err(), "{text:?} means two things");
    });
}
