//! Every option, in good form and in bad.

use std::sync::Arc;

use super::client::{Client, ERR, READ, export_info, info, meta};
use super::device::{TestDevice, TestExports};
use super::{DISK, Fixture};
use nbd::{ExportInfo, Limits};

const UNSUP: u32 = ERR + 1;
const POLICY: u32 = ERR + 2;
const INVALID: u32 = ERR + 3;
const PLATFORM: u32 = ERR + 4;
const UNKNOWN: u32 = ERR + 6;
const SHUTDOWN: u32 = ERR + 7;
const TOO_BIG: u32 = ERR + 9;

/// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, DF, CAN_MULTI_CONN, CACHE, FAST_ZERO.
const FLAGS: u16 = 0b1101_1110_1101;

#[test]
fn export_name_with_and_without_zeroes() {
    let fixture = Fixture::new();
    for (flags, length) in [(3, 10), (1, 134), (0, 134), (2, 10)] {
        let mut client = Client::connect(&fixture.path());
        client.greet(flags);
        client.option(1, b"disk");
        let reply = client.receive(length);
        assert_eq!(reply[..8], DISK.to_be_bytes());
        assert_eq!(reply[8..10], FLAGS.to_be_bytes());
        assert!(reply[10..].iter().all(|byte| *byte == 0));
        assert_eq!(client.read(0, 3), [0; 3]);
    }
    for name in [&b"nosuch"[..], &[b'a'; 256], b"\xff\xfe"] {
        let mut client = fixture.connect();
        client.option(1, name);
        client.assert_closed();
    }
}

#[test]
fn list_gives_every_export() {
    let mut fixture = Fixture::new();
    let more = (0..5000)
        .map(|number| ExportInfo { name: format!("disk-{number}"), description: "x".repeat(50) })
        .chain([ExportInfo { name: "n".repeat(256), description: String::new() }])
        .collect();
    drop(fixture.server.take());
    fixture.exports = Arc::new(TestExports::new(fixture.device.clone(), more));
    fixture.server = Some(fixture.start(Limits::default()).unwrap());
    let mut client = fixture.connect();
    let replies = client.haggle(3, b"");
    assert_eq!(replies[0], (2, b"\0\0\0\x04diska test disk".to_vec()));
    assert_eq!(replies.len(), 5002, "all but the one whose name is too long, and the ACK");
    assert_eq!(replies[5001], (1, Vec::new()));
    assert_eq!(client.outcome(3, b"x"), INVALID);
    client.go("disk");
    client.assert_alive();
}

#[test]
fn info_and_go() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    let replies = client.haggle(6, &info("disk", &[3, 2, 1, 99]));
    assert_eq!(export_info(&replies[0].1), (DISK, FLAGS));
    assert_eq!(replies[1], (3, b"\0\x01disk".to_vec()));
    assert_eq!(replies[2], (3, b"\0\x02a test disk".to_vec()));
    assert_eq!(replies[3], (3, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0".to_vec()));
    assert_eq!(replies[4], (1, Vec::new()));
    for option in [6, 7] {
        assert_eq!(client.outcome(option, &info("nosuch", &[])), UNKNOWN);
        assert_eq!(client.outcome(option, &info("refused", &[])), POLICY);
        assert_eq!(client.outcome(option, &info("leaving", &[])), SHUTDOWN);
        assert_eq!(client.outcome(option, &info("failed", &[])), PLATFORM);
        assert_eq!(client.outcome(option, &info(&"a".repeat(256), &[])), TOO_BIG);
        assert_eq!(client.outcome(option, &info("disk", &[3])[..9]), INVALID);
        assert_eq!(client.outcome(option, b""), INVALID);
        assert_eq!(client.outcome(option, b"\xff\xff\xff\xffdisk\0\0"), INVALID);
    }
    assert_eq!(client.go(""), (DISK, FLAGS));
    client.assert_alive();
}

#[test]
fn flags_tell_what_the_device_is() {
    let device = TestDevice { read_only: true, slow_zeroes: true, ..TestDevice::new(DISK) };
    let fixture = Fixture::with(device, Limits::default());
    assert_eq!(fixture.connect().go("disk").1, FLAGS & !(1 << 11) | 2);
}

#[test]
fn metadata_contexts() {
    let fixture = Fixture::new();
    let allocation = |id: u8| (4, [&[0, 0, 0, id][..], b"base:allocation"].concat());
    let mut client = fixture.connect();
    for option in [9, 10] {
        assert_eq!(client.outcome(option, &meta("disk", &["base:allocation"])), INVALID, "before structured");
    }
    client.structured();
    for (queries, found) in [
        (&[][..], true),
        (&["base:"], true),
        (&["base:allocation"], true),
        (&["other:", "base:allocation", "base:"], true),
        (&["base:other", "base", "allocation", "", "base:allocation2"], false),
    ] {
        let replies = client.haggle(9, &meta("disk", queries));
        assert_eq!(replies.len() == 2, found, "{queries:?}");
        assert!(!found || replies[0] == allocation(0));
    }
    for (queries, found) in [
        (&[][..], false),
        (&["base:"], false),
        (&["x:y", "base:allocation"], true),
        (&["base:allocationx"], false),
    ] {
        let replies = client.haggle(10, &meta("disk", queries));
        assert_eq!(replies.len() == 2, found, "{queries:?}");
        assert!(!found || replies[0] == allocation(1));
    }
    for option in [9, 10] {
        assert_eq!(client.outcome(option, &meta("nosuch", &[])), UNKNOWN);
        assert_eq!(client.outcome(option, &meta("disk", &["base:"])[..12]), INVALID);
        assert_eq!(client.outcome(option, b"\0\0\0\x04disk\xff\xff\xff\xff"), INVALID);
    }
    client.select_allocation("disk");
    client.go("disk");
    assert_eq!(client.call(7, 0, 0, 4096).extents, [(4096, 3)]);
}

#[test]
fn a_selection_holds_for_its_export_and_until_the_next() {
    let fixture = Fixture::new();
    for undo in [meta("", &["base:allocation"]), meta("disk", &[]), b"bad".to_vec()] {
        let mut client = fixture.connect();
        client.structured();
        client.select_allocation("disk");
        client.haggle(10, &undo);
        client.go("disk");
        assert_eq!(client.call(7, 0, 0, 4096).error, 22);
        client.assert_alive();
    }
}

#[test]
fn options_that_are_not_served() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    assert_eq!(client.outcome(5, b""), UNSUP, "STARTTLS");
    assert_eq!(client.outcome(11, b""), UNSUP, "EXTENDED_HEADERS");
    assert_eq!(client.outcome(4, b""), UNSUP);
    assert_eq!(client.outcome(0xffff_ffff, &[7; 5000]), UNSUP);
    assert_eq!(client.outcome(0, &[7; 64 << 10]), UNSUP);
    assert_eq!(client.outcome(8, b"x"), INVALID);
    for option in [3, 6, 7, 8, 9, 10, 99] {
        assert_eq!(client.outcome(option, &[0; (64 << 10) + 1]), TOO_BIG);
    }
    assert_eq!(client.outcome(99, &[0; 1 << 20]), TOO_BIG);
    client.structured();
    client.structured();
    client.go("disk");
    client.assert_alive();
}

#[test]
fn abort_is_acknowledged() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    assert_eq!(client.outcome(2, b""), 1);
    client.assert_closed();
}

#[test]
fn breaches_close_the_connection() {
    let fixture = Fixture::new();
    let mut neighbour = fixture.simple();
    for flags in [4, 0x8000_0000, 0xffff_ffff] {
        let mut client = Client::connect(&fixture.path());
        client.greet(flags);
        client.assert_closed();
    }
    // Without fixed newstyle only EXPORT_NAME has a meaning.
    let mut client = Client::connect(&fixture.path());
    client.greet(2);
    client.option(3, b"");
    client.assert_closed();
    let mut client = fixture.connect();
    client.send(b"IHAVEOPX\0\0\0\x03\0\0\0\0");
    client.assert_closed();
    for (option, length) in [(1, 65_537), (99, (1 << 20) + 1), (7, u32::MAX), (10, u32::MAX)] {
        let mut client = fixture.connect();
        client.option_of(option, length, b"");
        client.assert_closed();
    }
    assert_eq!(neighbour.call(READ, 0, 0, 1).error, 0);
}
