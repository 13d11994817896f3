//! What all clients together may take: memory and seats. Whoever gets none is told so, and all of it comes back.

use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use nbd::{Limits, Refusal, SHARE};

use super::client::{Client, ERR, READ, WRITE, info, meta, request};
use super::device::{GATED, TestDevice};
use super::{DISK, Fixture};

const SHORT: Duration = Duration::from_millis(300);
const LARGE: u32 = 8 << 20;
const POLICY: u32 = ERR + 2;

fn used(fixture: &Fixture) -> usize {
    fixture.budget.used()
}

/// 64 clients that ask for 64 MiB each, and read nothing of it.
fn stuck(fixture: &Fixture) -> Vec<Client> {
    let mut clients: Vec<_> = (0..64).map(|_| fixture.simple()).collect();
    for client in &mut clients {
        for _ in 0..8 {
            client.request(READ, 0, 0, LARGE);
        }
    }
    clients
}

#[test]
fn clients_that_read_nothing_hold_no_more_than_the_budget_and_starve_nobody() {
    let fixture = Fixture::with(TestDevice::new(16 << 20), Limits::default());
    let mut neighbour = fixture.simple();
    let clients = stuck(&fixture);
    let total = fixture.budget.total();
    fixture.until("they hold most of it", || used(&fixture) > total / 2);
    // Others are served all the while, newcomers too, and with requests that do not fit in what is set aside for them.
    for round in 0..20 {
        assert_eq!(neighbour.write(0, 1 << 20, &[round; 100_000]), 0);
        assert_eq!(neighbour.read(1 << 20, 100_000), [round; 100_000]);
        assert_eq!(fixture.simple().read(0, 4096).len(), 4096);
    }
    assert!(used(&fixture) <= total);
    let read = fixture.device.read_bytes.load(SeqCst);
    assert!(read <= total, "{read} bytes of replies that nobody takes are in memory");
    drop((clients, neighbour));
    fixture.until("all is given back", || used(&fixture) == 0);
}

#[test]
fn clients_that_read_nothing_are_cut_off_when_others_wait() {
    let limits = Limits { pressed: SHORT, ..Limits::default() };
    let fixture = Fixture::with(TestDevice::new(40 << 20), limits);
    let clients = stuck(&fixture);
    // More than is free: it is served when others are gone.
    assert_eq!(fixture.simple().read(0, 32 << 20).len(), 32 << 20);
    let cut_off = || fixture.server.as_ref().unwrap().clients().cut_off;
    fixture.until("those are cut off that hold up others", || cut_off() > 0);
    drop(clients);
    fixture.until("all have left", || fixture.connections() == 0);
    assert_eq!(used(&fixture), 0);
}

#[test]
fn a_write_holds_its_payload_and_gives_it_back() {
    let fixture = Fixture::with(TestDevice::new(40 << 20), Limits::default());
    let mut client = fixture.simple();
    let length = 32 << 20;
    client.send(&request(WRITE, 0, 1, 0, length));
    client.send(&[1; 1 << 20]);
    fixture.until("the payload is counted", || used(&fixture) >= length as usize);
    client.send(&vec![1; (length - (1 << 20)) as usize]);
    assert_eq!(client.reply(0).error, 0);
    fixture.until("it is given back", || used(&fixture) < 1 << 20);
    drop(client);
    fixture.until("all is given back", || used(&fixture) == 0);
}

#[test]
fn a_connection_that_is_quiet_holds_its_share_alone() {
    let fixture = Fixture::new();
    let mut client = fixture.simple();
    let message = [&request(WRITE, 0, 1, 0, 4096)[..], &[7; 4096]].concat().repeat(64);
    client.send(&message);
    (0..64).for_each(|_| assert_eq!(client.reply(0).error, 0));
    assert!(used(&fixture) > SHARE, "a busy one has a large buffer");
    fixture.until("it is given back", || used(&fixture) == SHARE);
    client.assert_alive();
}

/// Whatever clients do, and however they end, nothing stays counted.
#[test]
fn all_memory_comes_back_from_clients_that_do_anything() {
    let limits = Limits { stall: SHORT, handshake: SHORT, connections: 40, ..Limits::default() };
    let fixture = Fixture::with(TestDevice { lazy: true, ..TestDevice::new(DISK) }, limits);
    let mut random = 7_u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut clients: Vec<Client> = Vec::new();
    for step in 0..600 {
        fixture.device.gate.send_replace(step % 7 != 0);
        // Whoever was cut off or refused is not missed.
        let send = |client: &mut Client, bytes: &[u8]| drop(std::io::Write::write(&mut client.stream, bytes));
        match (below(10), clients.is_empty()) {
            (0..2, _) | (_, true) => {
                let mut client = Client::connect(&fixture.path());
                client.stream.set_nonblocking(true).unwrap();
                send(&mut client, &[0, 0, 0, 3]);
                let mut go = b"IHAVEOPT\0\0\0\x07".to_vec();
                let payload = info("disk", &[]);
                go.extend((payload.len() as u32).to_be_bytes());
                go.extend(payload);
                send(&mut client, &go[..if below(4) == 0 { 9 } else { go.len() }]);
                clients.push(client);
            }
            (2..4, _) => drop(clients.swap_remove(below(clients.len() as u64) as usize)),
            (kind, _) => {
                let at = below(clients.len() as u64) as usize;
                let offset = [0, GATED][below(2) as usize];
                let length = [1, 4096, 100_000, 2 << 20][below(4) as usize];
                let command = if kind < 7 { READ } else { WRITE };
                let mut message = request(command, 0, step, offset, length);
                if command == WRITE {
                    message.resize(message.len() + below(u64::from(length) + 1) as usize, 1);
                }
                send(&mut clients[at], &message);
            }
        }
    }
    fixture.device.gate.send_replace(true);
    drop(clients);
    fixture.until("all have left", || fixture.connections() == 0);
    assert_eq!(used(&fixture), 0);
}

/// The text of a reply to an option that is refused, after which the connection ends.
fn refused(client: &mut Client, option: u32, payload: &[u8]) -> String {
    let (kind, text) = client.haggle(option, payload).pop().unwrap();
    assert_eq!(kind, POLICY);
    client.assert_closed();
    String::from_utf8(text).unwrap()
}

#[test]
fn whoever_gets_no_seat_is_told() {
    let limits = Limits { connections: 4, answers: 2, answer: SHORT, ..Limits::default() };
    let fixture = Fixture::with(TestDevice::new(DISK), limits);
    let mut four: Vec<_> = (0..4).map(|_| fixture.simple()).collect();
    let asks = [
        (7, info("disk", &[])),
        (6, info("disk", &[])),
        (3, Vec::new()),
        (10, meta("disk", &["base:allocation"])),
    ];
    for round in 0..8 {
        let mut client = fixture.connect();
        client.structured();
        let (option, payload) = &asks[round % asks.len()];
        let text = refused(&mut client, *option, payload);
        assert!(text.contains("as many connections as it may"), "{text}");
    }
    let mut old = fixture.connect();
    old.option(1, b"disk");
    old.assert_closed();
    four.iter_mut().for_each(Client::assert_alive);
    let clients = fixture.server.as_ref().unwrap().clients();
    assert_eq!((clients.connections, clients.connections_max, clients.refused), (4, 4, 9));
    assert_eq!(clients.refused_last.unwrap().0, Refusal::Full);
    // Those who say nothing hold up the others for a while, not for ever.
    let silent: Vec<_> = (0..6).map(|_| Client::connect(&fixture.path())).collect();
    refused(&mut fixture.connect(), 7, &info("disk", &[]));
    drop(silent);
    four.pop();
    fixture.until("a place is free", || fixture.server.as_ref().unwrap().clients().connections == 3);
    four.push(fixture.simple());
    four.iter_mut().for_each(Client::assert_alive);
}

#[test]
fn seats_for_tasks_are_kept() {
    let limits = Limits { connections: 1, tasks: 2, answers: 1, ..Limits::default() };
    let fixture = Fixture::with(TestDevice::new(DISK), limits);
    let mut client = fixture.simple();
    let mut tasks: Vec<_> = (0..2)
        .map(|_| {
            let mut task = fixture.connect();
            task.go("task");
            task
        })
        .collect();
    refused(&mut fixture.connect(), 7, &info("task", &[]));
    refused(&mut fixture.connect(), 7, &info("disk", &[]));
    tasks.iter_mut().for_each(Client::assert_alive);
    client.assert_alive();
    tasks.pop();
    fixture.until("a place is free", || fixture.server.as_ref().unwrap().clients().connections == 2);
    fixture.connect().go("task");
}

#[test]
fn memory_that_cannot_be_set_aside_is_told_too() {
    let fixture = Fixture::new();
    let mut first = fixture.simple();
    let rest = fixture.budget.open(fixture.budget.total() / 2 - SHARE).unwrap();
    let text = refused(&mut fixture.connect(), 7, &info("disk", &[]));
    assert!(text.contains("memory"), "{text}");
    assert_eq!(fixture.server.as_ref().unwrap().clients().refused_last.unwrap().0, Refusal::Memory);
    first.assert_alive();
    drop(rest);
    fixture.simple().assert_alive();
}

#[test]
fn hundreds_of_connections_are_served() {
    let fixture = Fixture::new();
    let mut clients: Vec<_> = (0..400).map(|_| fixture.simple()).collect();
    clients.iter_mut().for_each(Client::assert_alive);
    assert_eq!(used(&fixture), 400 * SHARE);
}

#[test]
fn a_server_without_seats_tells_every_client() {
    let fixture = Fixture::new();
    let server = nbd::Server::refusing(fixture.rt.clone(), fixture.budget.clone());
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let _guard = fixture.runtime.enter();
    fixture.runtime.spawn(server.serve(tokio::net::UnixStream::from_std(theirs).unwrap()));
    let mut client = Client::of(ours);
    client.greet(3);
    refused(&mut client, 7, &info("disk", &[]));
}
