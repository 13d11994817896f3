//! Goal: however many clients come, and whatever they leave untaken, the server holds what it may and answers all.
//!
//! Model: the real program with few open files, with little memory for clients, or with neither, and clients that come in
//! numbers or read nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Bench, MEDIA, Random, Server, TINY, tool};
use crate::nbd_client::{NbdClient, NbdError};

/// NBD's answer to an option: against the server's rules.
const POLICY: u32 = (1 << 31) + 2;
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

fn open(bench: &Bench) -> Result<NbdClient, NbdError> {
    NbdClient::connect(&bench.dir().join("nbd.sock"), "web01/disk0")
}

/// Whether the client was refused with an answer; another end of the connection is none.
fn is_refused(opened: &Result<NbdClient, NbdError>) -> bool {
    match opened {
        Ok(_) => false,
        Err(NbdError::Refused(POLICY)) => true,
        Err(other) => panic!("not answered: {other:?}"),
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opens until one is refused.
fn fill(bench: &Bench) -> Vec<NbdClient> {
    let mut clients = Vec::new();
    loop {
        let opened = open(bench);
        if is_refused(&opened) {
            return clients;
        }
        clients.extend(opened.ok());
        assert!(clients.len() < 1000, "nobody is refused");
    }
}

fn reasons(bench: &Bench) -> String {
    let status = bench.json(&["status"]).json();
    format!("{} {}", status["reasons"], status["next"])
}

#[test]
fn where_few_files_can_be_open_clients_are_told_and_tasks_go_on() {
    let bench = Bench::new();
    let few = bench.standalone(&["prlimit", "--nofile=64:64"], TINY);
    let server = Server::spawn(&bench, few).serving();
    bench.create("web01", "1M");
    let mut clients = fill(&bench);
    let status = bench.json(&["status"]).json();
    assert_eq!(status["health"], "degraded");
    let told = &status["clients"];
    assert_eq!((&told["connections"], &told["connections_max"]), (&clients.len().into(), &8.into()));
    assert_eq!(told["refused"], 1);
    let said = reasons(&bench);
    assert!(said.contains("NBD clients are refused") && said.contains("LimitNOFILE"), "{said}");
    let few = "the server may have 64 files open, so there can be 8 connections";
    assert!(status["notices"].to_string().contains(few) && server.log().contains(few), "{status}");
    assert!(server.log().contains("NBD clients refused"), "{}", server.log());
    // Many at once are all told, in the log once.
    (0..100).for_each(|_| assert!(is_refused(&open(&bench))));
    assert_eq!(server.log().matches("NBD clients refused").count(), 1, "{}", server.log());
    let info = Command::new("qemu-img").args(["info", &bench.uri("web01/disk0")]).output().unwrap();
    let said = String::from_utf8_lossy(&info.stderr);
    assert!(said.contains("as many connections as it may"), "other people's clients show it: {said}");
    // Seats for imports and exports are kept.
    let image = bench.path("image");
    std::fs::write(&image, Random(5).bytes(MIB as usize)).unwrap();
    bench.json(&["vm", "import", "web02", image.to_str().unwrap()]).json();
    bench.json(&["vm", "export", "web02/disk0", bench.path("copy").to_str().unwrap()]).json();
    assert_eq!(std::fs::read(bench.path("copy")).unwrap(), std::fs::read(&image).unwrap());
    for client in &mut clients {
        client.write(0, &[1; 4096]).unwrap();
    }
    clients.pop();
    until("a place is free", || !is_refused(&open(&bench)));
    drop(clients);
    assert_eq!(server.stop("TERM").code(), Some(0));
}

#[test]
fn clients_are_told_when_no_more_files_can_be_opened_at_all() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    bench.create("web01", "1M");
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let limit = |files: usize| {
        let (process, limit) = (server.id().to_string(), format!("--nofile={files}:"));
        tool("prlimit", ["--pid", &process, &limit]);
    };
    limit(files + 2);
    let mut clients = fill(&bench);
    // A request of the interface may have ended since they were counted.
    assert!((1..8).contains(&clients.len()), "{}", clients.len());
    (0..10).for_each(|_| assert!(is_refused(&open(&bench))));
    clients.iter_mut().for_each(|client| client.flush().unwrap());
    limit(1000);
    let said = reasons(&bench);
    assert!(said.contains("as many files open as it may"), "{said}");
    assert!(!is_refused(&open(&bench)));
}

#[test]
fn the_interface_answers_when_no_more_files_can_be_opened() {
    let bench = Bench::new();
    let server = bench.start(TINY);
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let limit = |files: usize| {
        let (process, limit) = (server.id().to_string(), format!("--nofile={files}:"));
        tool("prlimit", ["--pid", &process, &limit]);
    };
    limit(files + 3);
    // They ask nothing and stay.
    let connect = || std::os::unix::net::UnixStream::connect(bench.dir().join("api.sock")).unwrap();
    let idle: Vec<_> = (0..5).map(|_| connect()).collect();
    for _ in 0..3 {
        let ran = bench.json(&["status"]);
        assert_eq!((ran.code, &ran.error()["code"]), (1, &"out_of_files".into()), "{ran:?}");
        assert!(ran.error()["hint"].as_str().unwrap().contains("LimitNOFILE"), "{ran:?}");
    }
    assert!(server.log().contains("a client of the interface is refused"), "{}", server.log());
    drop(idle);
    until("a place is free", || bench.json(&["status"]).code == 0);
    limit(1000);
    bench.create("web01", "1M");
}

#[test]
fn hundreds_of_clients_are_served() {
    let bench = Bench::new();
    let _server = bench.start(TINY);
    bench.create("web01", "1M");
    let mut clients: Vec<NbdClient> = (0..600).map(|_| open(&bench).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write(number as u64 * 512, &[number as u8; 512]).unwrap();
    }
    assert_eq!(clients[0].read(599 * 512, 512).unwrap(), [(599 % 256) as u8; 512]);
    let status = bench.json(&["status"]).json();
    assert_eq!((&status["health"], &status["clients"]["connections"]), (&"ok".into(), &600.into()));
    let image = bench.path("image");
    std::fs::write(&image, [7; 4096]).unwrap();
    bench.json(&["vm", "import", "web02", image.to_str().unwrap()]).json();
}

/// Resident memory of a process, bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn clients_that_read_nothing_hold_no_more_than_they_may() {
    let bench = Bench::new();
    let server = bench.start(&[MEDIA, &["--client-memory", "256M"]].concat());
    bench.create("web01", "8M");
    let data = Random(3).bytes(8 << 20);
    let mut neighbour = open(&bench).unwrap();
    neighbour.write(0, &data).unwrap();
    assert!(neighbour.read(0, 8 << 20).unwrap() == data);
    let before = resident(server.id());
    let memory = || bench.json(&["status"]).json()["clients"]["memory_used_bytes"].as_u64().unwrap();
    let mut stuck: Vec<NbdClient> = (0..64).map(|_| open(&bench).unwrap()).collect();
    for client in &mut stuck {
        (0..8).for_each(|_| client.ask(0, 8 << 20).unwrap());
    }
    until("most of it is held", || memory() > 128 * MIB);
    for round in 0..20 {
        neighbour.write(4 << 20, &[round; 4096]).unwrap();
        assert!(neighbour.read(4 << 20, 4096).unwrap() == [round; 4096]);
        assert_eq!(open(&bench).unwrap().read(0, 64 << 10).unwrap().len(), 64 << 10);
    }
    let status = bench.json(&["status"]).json();
    assert_eq!((&status["health"], &status["clients"]["memory_bytes"]), (&"ok".into(), &(256 * MIB).into()));
    assert!(memory() <= 256 * MIB);
    let grown = resident(server.id()).saturating_sub(before);
    assert!(grown < 400 * MIB, "{} MiB more than before", grown / MIB);
    drop((stuck, neighbour));
    until("all is given back", || memory() < MIB);
}
