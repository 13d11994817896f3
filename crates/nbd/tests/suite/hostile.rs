//! Clients that break, stop, flood or never read. Their neighbours must not notice.

use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use nbd::Limits;

use super::client::{Client, READ, WRITE, request};
use super::device::{GATED, TestDevice};
use super::{DISK, Fixture, SOON};

const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> Fixture {
    Fixture::with(TestDevice::new(DISK), Limits { stall: SHORT, handshake: SHORT, ..Limits::default() })
}

#[test]
fn a_wrong_magic_closes_only_its_own_connection() {
    let fixture = Fixture::new();
    let mut neighbour = fixture.simple();
    let mut client = fixture.simple();
    client.send(&[0; 28]);
    client.assert_closed();
    let mut message = request(READ, 0, 1, 0, 1);
    message[3] ^= 1;
    let mut client = fixture.structured();
    client.send(&message);
    client.assert_closed();
    neighbour.assert_alive();
    drop((neighbour, client));
    fixture.until("all are let go", || fixture.connections() == 0);
}

#[test]
fn silence_inside_a_message_is_cut_off_and_between_messages_is_not() {
    let fixture = impatient();
    let mut idle = fixture.simple();
    let begin = fixture.rt.now();
    let head = request(READ, 0, 1, 0, 1);
    let mut half_head = fixture.simple();
    half_head.send(&head[..13]);
    let mut half_payload = fixture.simple();
    half_payload.send(&request(WRITE, 0, 1, 0, 1000));
    half_payload.send(&[1; 999]);
    let mut half_large = fixture.simple();
    half_large.send(&request(WRITE, 0, 1, 0, 4 << 20));
    half_large.send(&[1; 1 << 20]);
    let mut half_refused = fixture.simple();
    half_refused.send(&request(WRITE, 0, 1, u64::MAX, 1000));
    half_refused.send(&[1; 999]);
    for client in [&mut half_head, &mut half_payload, &mut half_large, &mut half_refused] {
        client.assert_closed();
    }
    assert!(fixture.rt.now() - begin >= SHORT, "cut off too soon");
    assert!(fixture.rt.now() - begin < SOON / 2, "cut off too late");
    fixture.pause(SHORT * 2);
    idle.assert_alive();
    assert_eq!(fixture.device.called(), ["flush"], "half a write is no write");
}

#[test]
fn each_message_and_each_reply_has_a_deadline_of_its_own() {
    let fixture = impatient();
    let mut client = fixture.simple();
    let head = request(READ, 0, 1, 0, DISK as u32);
    let begin = fixture.rt.now();
    while fixture.rt.now() - begin < SHORT * 3 {
        client.send(&head[..20]);
        fixture.pause(SHORT / 4);
        client.send(&head[20..]);
        // The replies fill the socket before they are taken.
        fixture.pause(SHORT / 4);
        assert_eq!(client.reply(DISK as usize).error, 0);
    }
    client.assert_alive();
}

#[test]
fn a_message_may_not_trickle_for_ever() {
    let fixture = impatient();
    let mut client = fixture.simple();
    let head = request(READ, 0, 1, 0, 1);
    let begin = fixture.rt.now();
    for byte in &head[..27] {
        if client.stream.write_all(&[*byte]).is_err() {
            break;
        }
        fixture.pause(SHORT / 6);
    }
    client.assert_closed();
    assert!(fixture.rt.now() - begin < SHORT * 6);
}

#[test]
fn the_handshake_has_a_deadline() {
    let fixture = impatient();
    let mut silent = Client::connect(&fixture.path());
    let mut half = fixture.connect();
    half.send(b"IHAVE");
    let mut chatty = fixture.connect();
    let begin = fixture.rt.now();
    // Correct options, for ever: the deadline is for the whole.
    while fixture.rt.now() - begin < SOON / 2 {
        if chatty.stream.write_all(b"IHAVEOPT\0\0\0\x63\0\0\0\0").is_err() {
            break;
        }
        let _ = chatty.stream.read(&mut [0; 4096]);
        fixture.pause(Duration::from_millis(20));
    }
    assert!(fixture.rt.now() - begin < SOON / 2, "options were taken for ever");
    silent.receive(18);
    silent.assert_closed();
    half.assert_closed();
    fixture.until("all are let go", || fixture.connections() == 0);
    fixture.simple().assert_alive();
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let fixture = impatient();
    let mut neighbour = fixture.simple();
    let client = fixture.simple();
    let mut sender = client.stream.try_clone().unwrap();
    sender.set_write_timeout(Some(SHORT / 3)).unwrap();
    let mut sent = 0_u64;
    // Goes on until back-pressure stops it: the replies cannot leave, so the requests are not read.
    while sent < 1_000_000 && sender.write_all(&request(READ, 0, sent, 0, 100_000)).is_ok() {
        sent += 1;
    }
    assert!(sent < 1_000_000, "no back-pressure");
    neighbour.assert_alive();
    drop(sender);
    fixture.until("the connection is cut off", || fixture.connections() == 1);
    neighbour.assert_alive();
}

#[test]
fn a_client_that_leaves_takes_its_requests_along_and_no_others() {
    let fixture = Fixture::new();
    let mut neighbour = fixture.simple();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    for _ in 0..10 {
        client.request(READ, 0, GATED, 4096);
    }
    fixture.until("the reads wait", || fixture.device.waiting.load(SeqCst) == 10);
    drop(client);
    neighbour.assert_alive();
    fixture.device.gate.send_replace(true);
    fixture.until("the connection is let go", || fixture.connections() == 1);
    neighbour.assert_alive();
}
