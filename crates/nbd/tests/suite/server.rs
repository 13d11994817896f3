//! Start, stop and the socket file.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use nbd::{Limits, Server, ServerErrorKind};

use super::client::{Client, READ, WRITE, request};
use super::device::GATED;
use super::{Fixture, SOON};

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let mut fixture = Fixture::new();
    let found = std::fs::metadata(fixture.path()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    let mut client = fixture.simple();
    let server = fixture.server.take().unwrap();
    assert_eq!(fixture.block_on(server.stop(SOON)), 0);
    assert!(!fixture.path().exists());
    client.assert_closed();
    // Dropped without stop: the same.
    drop(fixture.start(Limits::default()).unwrap());
    assert!(!fixture.path().exists());
}

#[test]
fn a_live_socket_is_not_stolen_and_a_stale_one_is_replaced() {
    let mut fixture = Fixture::new();
    let mut client = fixture.simple();
    assert_eq!(fixture.start(Limits::default()).unwrap_err().kind, ServerErrorKind::Busy);
    client.assert_alive();
    fixture.simple().assert_alive();
    drop(fixture.server.take());
    drop(UnixListener::bind(fixture.path()).unwrap());
    assert!(fixture.path().exists(), "a stale socket");
    fixture.server = Some(fixture.start(Limits::default()).unwrap());
    fixture.simple().assert_alive();
}

#[test]
fn other_files_are_left_alone() {
    let mut fixture = Fixture::new();
    drop(fixture.server.take());
    std::fs::write(fixture.path(), "precious").unwrap();
    assert_eq!(fixture.start(Limits::default()).unwrap_err().kind, ServerErrorKind::NotASocket);
    assert_eq!(std::fs::read_to_string(fixture.path()).unwrap(), "precious");
    std::fs::remove_file(fixture.path()).unwrap();
    // A server whose file was replaced does not remove the other's.
    let server = fixture.start(Limits::default()).unwrap();
    std::fs::remove_file(fixture.path()).unwrap();
    std::fs::write(fixture.path(), "precious").unwrap();
    fixture.block_on(server.stop(SOON));
    assert_eq!(std::fs::read_to_string(fixture.path()).unwrap(), "precious");
    let missing = fixture.directory.path().join("missing/nbd.sock");
    let (rt, exports, budget) = (fixture.rt.clone(), fixture.exports.clone(), fixture.budget.clone());
    let started = Server::start(rt, exports, &missing, Limits::default(), budget);
    assert_eq!(fixture.block_on(started).unwrap_err().kind, ServerErrorKind::Io);
}

#[test]
fn of_servers_that_start_at_once_one_wins() {
    let mut fixture = Fixture::new();
    drop(fixture.server.take());
    for _ in 0..50 {
        drop(UnixListener::bind(fixture.path()).unwrap());
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let (rt, exports, path) = (fixture.rt.clone(), fixture.exports.clone(), fixture.path());
                let budget = fixture.budget.clone();
                let start = async move { Server::start(rt, exports, &path, Limits::default(), budget).await };
                fixture.runtime.spawn(start)
            })
            .collect();
        let started: Vec<_> = starts.into_iter().map(|start| fixture.block_on(start).unwrap()).collect();
        assert_eq!(started.iter().filter(|one| one.is_ok()).count(), 1);
        assert!(
            started
                .iter()
                .flat_map(|one| one.as_ref().err())
                .all(|error| error.kind == ServerErrorKind::Busy)
        );
        fixture.simple().assert_alive();
        drop(started);
    }
}

#[test]
fn stop_answers_what_was_asked() {
    let mut fixture = Fixture::new();
    let mut idle = fixture.simple();
    let mut haggling = fixture.connect();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    let cookies: Vec<u64> = (0..10).map(|_| client.request(READ, 0, GATED, 100)).collect();
    fixture.until("the reads wait", || fixture.device.waiting.load(SeqCst) == 10);
    let server = fixture.server.take().unwrap();
    let stopped = fixture.runtime.spawn(server.stop(SOON));
    idle.assert_closed();
    haggling.assert_closed();
    assert!(!stopped.is_finished());
    client.request(READ, 0, 0, 100);
    fixture.device.gate.send_replace(true);
    let mut answered: Vec<u64> = (0..10).map(|_| client.reply(100).cookie).collect();
    answered.sort_unstable();
    assert_eq!(answered, cookies);
    client.assert_closed();
    assert_eq!(fixture.block_on(stopped).unwrap(), 0);
}

#[test]
fn stop_does_not_wait_for_half_a_request() {
    let mut fixture = Fixture::new();
    let mut clients: Vec<_> = (0..3).map(|_| fixture.simple()).collect();
    let head = request(WRITE, 0, 1, 0, 100_000);
    clients[0].send(&head[..5]);
    clients[1].send(&head);
    clients[2].send(&head);
    clients[2].send(&[1; 99_999]);
    fixture.pause(Duration::from_millis(50));
    let server = fixture.server.take().unwrap();
    let begin = fixture.rt.now();
    assert_eq!(fixture.block_on(server.stop(SOON)), 0);
    assert!(fixture.rt.now() - begin < SOON / 2);
    clients.iter_mut().for_each(Client::assert_closed);
    assert!(fixture.device.called().is_empty());
}

#[test]
fn the_next_server_may_start_while_this_one_stops() {
    let mut fixture = Fixture::new();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    client.request(READ, 0, GATED, 100);
    fixture.until("the read waits", || fixture.device.waiting.load(SeqCst) == 1);
    let server = fixture.server.take().unwrap();
    let stopped = fixture.runtime.spawn(server.stop(SOON));
    fixture.until("the socket is gone", || !fixture.path().exists());
    fixture.server = Some(fixture.start(Limits::default()).unwrap());
    fixture.device.gate.send_replace(true);
    assert_eq!(client.reply(100).error, 0);
    assert_eq!(fixture.block_on(stopped).unwrap(), 0);
    fixture.simple().assert_alive();
}

#[test]
fn stop_does_not_wait_for_ever() {
    let mut fixture = Fixture::new();
    fixture.device.gate.send_replace(false);
    let mut client = fixture.simple();
    client.request(READ, 0, GATED, 100);
    fixture.until("the read waits", || fixture.device.waiting.load(SeqCst) == 1);
    let server = fixture.server.take().unwrap();
    assert_eq!(fixture.block_on(server.stop(Duration::from_millis(100))), 1);
    client.assert_closed();
}
