//! The client against the crate's own server over memory, and against a server that lies.

use std::io::Write;
use std::os::unix::net::UnixListener;

use super::*;
use crate::serve::testing::serve_ram;

const SIZE: u64 = 4 << 20;

fn request(operation: Operation, offset: u64, length: usize) -> Request {
    Request { operation, offset, length, since: Instant::now() }
}

fn drain(client: &mut Client) -> Result<Vec<Done>, Failure> {
    let mut done = Vec::new();
    while client.on_the_way() > 0 {
        client.wait(&mut done)?;
    }
    Ok(done)
}

#[test]
fn many_requests_at_once_each_get_their_own_answer() {
    let server = serve_ram(SIZE);
    let mut client = Client::connect(server.socket(), "disk", true).unwrap();
    assert_eq!(client.size(), SIZE);
    for number in 0..64 {
        client.submit(request(Operation::Write, number * 8192, 8192), |out| {
            assert_eq!(out.len(), 8192);
            out.fill(number as u8 + 1);
        });
    }
    assert_eq!(client.on_the_way(), 64);
    assert_eq!(drain(&mut client).unwrap().len(), 64);
    client.submit(request(Operation::Flush, 0, 0), |_| {});
    assert!(drain(&mut client).unwrap()[0].data.is_empty());
    for number in 0..64 {
        client.submit(request(Operation::Read, number * 8192 + 4096, 4096), |_| {});
    }
    let read = drain(&mut client).unwrap();
    assert_eq!(read.len(), 64);
    for done in read {
        let number = (done.request.offset / 8192) as u8;
        assert_eq!(done.data, [number + 1; 4096], "{number}");
    }
}

#[test]
fn more_than_the_socket_holds_goes_both_ways_at_once() {
    let server = serve_ram(SIZE);
    let mut client = Client::connect(server.socket(), "disk", true).unwrap();
    // 2 MiB each way: neither side can send it all before it takes something.
    for number in 0..64 {
        let half = 1 << 20;
        let offset = number % 32 * (half / 32);
        client.submit(request(Operation::Write, offset, 32 << 10), |out| out.fill(7));
        client.submit(request(Operation::Read, half + offset, 32 << 10), |_| {});
    }
    let done = drain(&mut client).unwrap();
    assert_eq!(done.iter().map(|done| done.data.len()).sum::<usize>(), 2 << 20);
}

#[test]
fn data_is_dropped_when_nobody_wants_it() {
    let server = serve_ram(SIZE);
    let mut client = Client::connect(server.socket(), "disk", false).unwrap();
    for number in 0..4 {
        client.submit(request(Operation::Read, number << 20, 1 << 20), |_| {});
    }
    let done = drain(&mut client).unwrap();
    assert!(done.len() == 4 && done.iter().all(|done| done.data.is_empty()));
}

#[test]
fn a_range_is_quiet_until_a_request_touches_it() {
    let server = serve_ram(SIZE);
    let mut client = Client::connect(server.socket(), "disk", false).unwrap();
    client.submit(request(Operation::Read, 8192, 4096), |_| {});
    assert!(!client.is_quiet(8192, 4096) && !client.is_quiet(0, 8193) && !client.is_quiet(12287, 1));
    assert!(client.is_quiet(0, 8192) && client.is_quiet(12288, 4096));
    drain(&mut client).unwrap();
    assert!(client.is_quiet(8192, 4096));
}

#[test]
fn a_refusal_says_what_was_asked() {
    let server = serve_ram(SIZE);
    let mut client = Client::connect(server.socket(), "disk", false).unwrap();
    client.submit(request(Operation::Read, SIZE, 4096), |_| {});
    let why = drain(&mut client).unwrap_err().to_string();
    assert!(why.contains("Read of 4096 bytes at 4194304 refused"), "{why}");
    let why = Client::connect(server.socket(), "no such", false).unwrap_err().to_string();
    assert!(why.contains("no such"), "{why}");
}

/// Answers the hand-shake, then says `reply` to the first request, whatever it is.
fn liar(reply: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        let mut answer = |kind: u32, payload: &[u8]| {
            hello.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
            hello.extend(7_u32.to_be_bytes());
            hello.extend(kind.to_be_bytes());
            hello.extend((payload.len() as u32).to_be_bytes());
            hello.extend(payload);
        };
        answer(3, &[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 1]);
        answer(1, &[]);
        stream.write_all(&hello).unwrap();
        let mut bytes = [0; 4 + 16 + 10 + 28];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(reply).unwrap();
    });
    (home, socket)
}

#[test]
fn wrong_replies_are_errors() {
    let cases: [(&[u8], &str); 4] = [
        (&[0; 16], "no simple reply"),
        (&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], "not asked"),
        (&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9], "not asked"),
        (&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0], "refused"),
    ];
    for (reply, expected) in cases {
        let (_home, socket) = liar(reply);
        let mut client = Client::connect(&socket, "disk", false).unwrap();
        assert_eq!(client.size(), 1 << 20);
        client.submit(request(Operation::Read, 0, 4096), |_| {});
        let why = drain(&mut client).unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    }
    let (_home, socket) = liar(&[]);
    let mut client = Client::connect(&socket, "disk", false).unwrap();
    client.submit(request(Operation::Read, 0, 4096), |_| {});
    let why = drain(&mut client).unwrap_err().to_string();
    assert!(why.contains("closed") || why.contains("broke"), "{why}");
}
