//! Every command, flag and error.

use std::sync::atomic::Ordering::SeqCst;

use nbd::{DeviceErrorKind, Limits};

use super::client::{
    BLOCK_STATUS, CACHE, Client, DF, DISC, EINVAL, EIO, ENOMEM, ENOSPC, EPERM, ESHUTDOWN, FAST_ZERO, FLUSH,
    FUA, NO_HOLE, READ, REQ_ONE, TRIM, WRITE, WRITE_ZEROES, request,
};
use super::device::{GATED, TestDevice};
use super::{DISK, Fixture, pattern, patterned};

fn each_kind(fixture: &Fixture) -> [Client; 2] {
    [fixture.simple(), fixture.structured()]
}

#[test]
fn any_offset_and_length_is_served() {
    for lazy in [false, true] {
        let fixture = Fixture::with(TestDevice { lazy, ..TestDevice::new(DISK) }, Limits::default());
        let mut model = vec![0; DISK as usize];
        for mut client in each_kind(&fixture) {
            for (offset, length) in
                [(0, 1), (4095, 2), (4096, 4096), (1, 300_000), (100_000, 1 << 20), (DISK as usize - 5, 5)]
            {
                let data = patterned(offset * 3 + length, length);
                assert_eq!(client.write(0, offset as u64, &data), 0);
                model[offset..offset + length].copy_from_slice(&data);
                for (from, to) in
                    [(offset, offset + length), (offset.saturating_sub(9), offset + length.div_ceil(2))]
                {
                    let found = client.read(from as u64, (to - from) as u32);
                    assert!(found == model[from..to], "{offset}, {length}");
                }
            }
            assert!(client.read(0, DISK as u32) == model);
        }
    }
}

#[test]
fn largest_request() {
    let fixture = Fixture::with(TestDevice::new(40 << 20), Limits::default());
    for mut client in each_kind(&fixture) {
        let data = patterned(5, 32 << 20);
        assert_eq!(client.write(0, 3, &data), 0);
        assert!(client.read(3, 32 << 20) == data);
        assert_eq!(client.call(READ, 0, 0, (32 << 20) + 1).error, EINVAL);
        // One byte too long: read, thrown away and refused.
        assert_eq!(client.write(0, 0, &vec![9; (32 << 20) + 1]), EINVAL);
        assert!(client.read(3, 1000) == data[..1000]);
        client.request(WRITE, 0, 0, (64 << 20) + 1);
        client.assert_closed();
    }
}

#[test]
fn refused_requests_leave_the_connection_usable() {
    let fixture = Fixture::new();
    for mut client in each_kind(&fixture) {
        for command in [READ, TRIM, CACHE, BLOCK_STATUS, WRITE_ZEROES] {
            let past = if command == WRITE_ZEROES { ENOSPC } else { EINVAL };
            for (offset, length, error) in [
                (DISK, 1, past),
                (DISK - 1, 2, past),
                (u64::MAX, 1, past),
                (u64::MAX - 1, 4096, past),
                (0, u32::MAX, if command == READ { EINVAL } else { past }),
                (0, 0, EINVAL),
            ] {
                assert_eq!(
                    client.call(command, 0, offset, length).error,
                    error,
                    "{command} {offset} {length}"
                );
            }
        }
        assert_eq!(client.write(0, DISK - 1, b"xy"), ENOSPC);
        assert_eq!(client.write(0, u64::MAX, b"xy"), ENOSPC);
        assert_eq!(client.write(0, 0, b""), EINVAL);
        assert_eq!(client.write(DF, 0, b"xyz"), EINVAL);
        assert_eq!(client.call(FLUSH, 0, 0, 1).error, EINVAL);
        assert_eq!(client.call(8, 0, 0, 1).error, EINVAL);
        assert_eq!(client.call(0xffff, 0, 0, 1).error, EINVAL);
        assert_eq!(client.call(READ, 1 << 15, 0, 1).error, EINVAL);
        client.assert_alive();
    }
    assert_eq!(fixture.device.called(), ["flush", "flush"], "nothing else reached the device");
    assert_eq!(fixture.simple().call(READ, DF, 0, 1).error, EINVAL, "DF needs structured replies");
    assert_eq!(fixture.simple().call(BLOCK_STATUS, 0, 0, 1).error, EINVAL);
    assert_eq!(fixture.structured().call(READ, 0, DISK, 1).text, "past the end of the export");
}

#[test]
fn commands_reach_the_device_and_fua_flushes() {
    let fixture = Fixture::new();
    for mut client in each_kind(&fixture) {
        fixture.device.called();
        assert_eq!(client.write(0, 7, b"abc"), 0);
        assert_eq!(client.write(FUA, 7, b"abc"), 0);
        assert_eq!(client.call(FLUSH, FUA, 0, 0).error, 0);
        assert_eq!(client.call(TRIM, 0, 4096, 8192).error, 0);
        assert_eq!(client.call(TRIM, FUA, 4096, 8192).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, 0, 5, 6).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, NO_HOLE | FAST_ZERO, 5, 6).error, 0);
        assert_eq!(client.call(WRITE_ZEROES, FUA, 5, 6).error, 0);
        assert_eq!(client.call(CACHE, FUA, 0, DISK as u32).error, 0);
        assert_eq!(client.call(READ, FUA, 0, 1).error, 0);
        let expected = "write 7 3; write 7 3; flush; flush; trim 4096 8192; trim 4096 8192; flush; \
                        zero 5 6 true; zero 5 6 false; zero 5 6 true; flush";
        assert_eq!(fixture.device.called().join("; "), expected);
    }
    let device = TestDevice { slow_zeroes: true, ..TestDevice::new(DISK) };
    let fixture = Fixture::with(device, Limits::default());
    assert_eq!(fixture.simple().call(WRITE_ZEROES, FAST_ZERO, 0, 1).error, EINVAL);
}

#[test]
fn structured_reads_tell_holes() {
    let fixture = Fixture::new();
    let mut client = fixture.structured();
    assert_eq!(client.write(0, 200_000, &[7; 10]), 0);
    let reply = client.call(READ, 0, 100, 1 << 20);
    assert_eq!(reply.data.len(), 1 << 20);
    assert_eq!(reply.data.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 70);
    assert_eq!(reply.data[199_900..199_910], [7; 10]);
    let holes = reply.chunks.iter().filter(|(.., hole)| *hole).map(|(_, length, _)| length).sum::<usize>();
    assert!(holes > (1 << 20) - 12_000, "{:?}", reply.chunks);
    let mut at = 100;
    for (offset, length, _) in reply.chunks {
        assert_eq!(offset, at);
        at += length as u64;
    }
    let whole = client.call(READ, DF, 100, 1 << 20);
    assert_eq!(whole.chunks, [(100, 1 << 20, false)]);
    assert!(whole.data == reply.data);
    assert_eq!(client.call(READ, DF, 300_000, 5).chunks, [(300_000, 5, true)]);
    assert_eq!(client.call(READ, 0, 200_001, 5).chunks, [(200_001, 5, false)]);
}

#[test]
fn block_status() {
    let fixture = Fixture::new();
    let mut client = fixture.structured();
    assert_eq!(client.write(0, 8192, &[1; 4096]), 0);
    assert_eq!(client.call(BLOCK_STATUS, 0, 0, 16_384).extents, [(8192, 3), (4096, 0), (4096, 3)]);
    assert_eq!(client.call(BLOCK_STATUS, REQ_ONE, 0, 16_384).extents, [(8192, 3)]);
    assert_eq!(client.call(BLOCK_STATUS, REQ_ONE, 9000, 10).extents, [(10, 0)]);
    assert_eq!(client.call(BLOCK_STATUS, 0, 8191, 2).extents, [(1, 3), (1, 0)]);
    assert_eq!(client.call(BLOCK_STATUS, 0, 0, DISK as u32).extents.len(), 3);
    fixture.device.lie.store(true, SeqCst);
    assert_eq!(client.call(BLOCK_STATUS, 0, 0, 1).error, EIO);
}

#[test]
fn errors_of_the_device_are_told() {
    let fixture = Fixture::new();
    for mut client in each_kind(&fixture) {
        for (kind, number) in [
            (DeviceErrorKind::Io, EIO),
            (DeviceErrorKind::NoSpace, ENOSPC),
            (DeviceErrorKind::Invalid, EINVAL),
            (DeviceErrorKind::NotPermitted, EPERM),
            (DeviceErrorKind::ShuttingDown, ESHUTDOWN),
            (DeviceErrorKind::NoMemory, ENOMEM),
        ] {
            *fixture.device.fail.lock().unwrap() = Some(kind);
            for command in [READ, FLUSH, TRIM, WRITE_ZEROES] {
                let length = if command == FLUSH { 0 } else { 1 };
                assert_eq!(client.call(command, 0, 0, length).error, number);
            }
            assert_eq!(client.write(0, 0, b"x"), number);
        }
        *fixture.device.fail.lock().unwrap() = None;
        client.assert_alive();
    }
    fixture.device.lie.store(true, SeqCst);
    assert_eq!(fixture.simple().call(READ, 0, 0, 10).error, EIO, "a short read must not break the framing");
    *fixture.device.fail.lock().unwrap() = Some(DeviceErrorKind::Io);
    assert_eq!(fixture.structured().call(READ, 0, 0, 10).text, "told to fail");
}

#[test]
fn read_only_exports_refuse_writes() {
    let device = TestDevice { read_only: true, ..TestDevice::new(DISK) };
    let fixture = Fixture::with(device, Limits::default());
    for mut client in each_kind(&fixture) {
        assert_eq!(client.write(0, 0, b"x"), EPERM);
        assert_eq!(client.call(TRIM, 0, 0, 1).error, EPERM);
        assert_eq!(client.call(WRITE_ZEROES, 0, 0, 1).error, EPERM);
        assert_eq!(client.read(0, 4), [0; 4]);
        client.assert_alive();
    }
}

#[test]
fn a_slow_request_holds_up_no_other() {
    let fixture = Fixture::new();
    fixture.device.gate.send_replace(false);
    for mut client in each_kind(&fixture) {
        let slow = client.request(READ, 0, GATED, 4096);
        let quick = client.request(READ, 0, 0, 4096);
        assert_eq!(client.reply(4096).cookie, quick);
        fixture.device.gate.send_replace(true);
        assert_eq!(client.reply(4096).cookie, slow);
        fixture.device.gate.send_replace(false);
    }
}

#[test]
fn requests_and_bytes_in_flight_are_bounded() {
    let limits = Limits { requests: 20, bytes: 1 << 20, ..Limits::default() };
    let fixture = Fixture::with(TestDevice::new(DISK), limits);
    fixture.device.gate.send_replace(false);
    for (length, expected) in [(1, 20), (100 << 10, 10), (600 << 10, 1), (2 << 20, 1)] {
        let mut client = fixture.simple();
        for _ in 0..50 {
            client.request(READ, 0, GATED, length);
        }
        let waiting = &fixture.device.waiting;
        fixture.until("requests reach the device", || waiting.load(SeqCst) == expected);
        fixture.pause(std::time::Duration::from_millis(50));
        assert_eq!(waiting.load(SeqCst), expected, "length {length}");
        fixture.device.gate.send_replace(true);
        for _ in 0..50 {
            assert_eq!(client.reply(length as usize).error, 0);
        }
        fixture.device.gate.send_replace(false);
    }
}

#[test]
fn many_requests_in_one_message_are_all_answered() {
    for lazy in [false, true] {
        let fixture = Fixture::with(TestDevice { lazy, ..TestDevice::new(DISK) }, Limits::default());
        let mut client = fixture.structured();
        let data = patterned(0, 1 << 20);
        assert_eq!(client.write(0, 0, &data), 0);
        let mut message = Vec::new();
        for number in 0..3000_u64 {
            message.extend(request(READ, 0, number + 1, number * 300, 10));
            message.extend(request(WRITE, 0, number + 10_001, (2 << 20) + number * 3, 3));
            message.extend([pattern(number as usize); 3]);
        }
        let mut sender = client.stream.try_clone().unwrap();
        fixture.rt.spawn_blocking(
            "sender",
            Box::new(move || std::io::Write::write_all(&mut sender, &message).unwrap()),
        );
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..6000 {
            let reply = client.reply(0);
            assert_eq!(reply.error, 0);
            assert!(seen.insert(reply.cookie), "answered twice");
            if reply.cookie <= 3000 {
                let at = (reply.cookie as usize - 1) * 300;
                assert_eq!(reply.data, data[at..at + 10]);
            }
        }
        let written = client.read(2 << 20, 9000);
        assert!((0..9000).all(|at| written[at] == pattern(at / 3)));
    }
}

#[test]
fn disconnect_answers_what_was_asked() {
    let fixture = Fixture::new();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    let slow = client.request(READ, 0, GATED, 10);
    client.request(DISC, 0, 0, 0);
    fixture.until("the read waits", || fixture.device.waiting.load(SeqCst) == 1);
    fixture.device.gate.send_replace(true);
    assert_eq!(client.reply(10).cookie, slow);
    client.assert_closed();
    fixture.until("the connection is let go", || fixture.connections() == 0);
}

#[test]
fn a_request_that_dies_closes_its_connection() {
    let fixture = Fixture::new();
    let mut neighbour = fixture.simple();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    client.request(READ, 0, GATED, 10);
    fixture.until("the read waits", || fixture.device.waiting.load(SeqCst) == 1);
    fixture.device.panic.store(true, SeqCst);
    fixture.device.gate.send_replace(true);
    client.assert_closed();
    neighbour.assert_alive();
    // The same when it dies at once.
    let mut client = fixture.simple();
    client.request(READ, 0, GATED, 10);
    client.assert_closed();
    neighbour.assert_alive();
    drop(neighbour);
    fixture.until("all are let go", || fixture.connections() == 0);
}
