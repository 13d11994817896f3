//! Goal: a drain and a rebuild that are killed in the middle go on by themselves, and every byte is there in the end.
//! Model: kill -9 of the real program after random times, again and again. Knobs: [`KILLS`].

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, Random, Server, soak};

/// Kills of one drain or rebuild, unless it is through before.
const KILLS: u64 = 4;
const DISK_BYTES: u64 = 3 << 20;
/// An existing site, whatever media it has now.
const LATER: &[&str] = &["--io", "sync"];

fn media(bench: &Bench) -> Vec<Value> {
    bench.json(&["media", "list"]).json()["items"].as_array().unwrap().clone()
}

fn is_moving(bench: &Bench) -> bool {
    media(bench).iter().any(|medium| medium["leaving"] == true || medium["moving"].is_object())
}

/// Kills the server now and then until nothing moves any more.
fn kill_until_moved(bench: &Bench, mut server: Server, random: &mut Random) -> Server {
    let kills = if soak() { 10 * KILLS } else { KILLS };
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(random.below(150)));
        server.kill();
        server = bench.start(LATER);
    }
    let begun = Instant::now();
    while is_moving(bench) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end: {:?}", media(bench));
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

fn check(bench: &Bench, wanted: &[u8]) {
    let mut client = bench.connect("web01/disk0");
    for (at, chunk) in wanted.chunks(1 << 20).enumerate() {
        let found = client.read((at as u64) << 20, chunk.len() as u32).unwrap();
        assert!(found == chunk, "MiB {at} differs");
    }
}

#[test]
fn a_killed_drain_and_a_killed_rebuild_go_on() {
    let bench = Bench::new();
    let mut random = Random(7);
    let new = ["--file-media", "5x16M", "--layout", "tiny", "--io", "sync"];
    let mut server = bench.start(&new);
    bench.create("web01", &DISK_BYTES.to_string());
    let data = random.bytes(DISK_BYTES as usize);
    let mut client = bench.connect("web01/disk0");
    for (at, chunk) in data.chunks(256 << 10).enumerate() {
        client.write((at as u64) * (256 << 10), chunk).unwrap();
    }
    drop(client);
    bench.json(&["media", "add", bench.path("a.img").to_str().unwrap(), "--file", "16M"]).json();
    bench.json(&["media", "drain", "02.img", "--yes", "--no-wait"]).json();
    server = kill_until_moved(&bench, server, &mut random);
    let paths = |bench: &Bench| -> Vec<String> {
        media(bench).iter().map(|medium| medium["path"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!paths(&bench).iter().any(|path| path.ends_with("02.img")) && paths(&bench).len() == 5);
    check(&bench, &data);

    // One is lost while the site is down.
    server.kill();
    std::fs::remove_file(bench.dir().join("media/03.img")).unwrap();
    server = bench.start(LATER);
    let new = bench.path("b.img");
    bench
        .json(&["media", "replace", "03.img", new.to_str().unwrap(), "--file", "16M", "--yes", "--no-wait"])
        .json();
    server = kill_until_moved(&bench, server, &mut random);
    assert!(!paths(&bench).iter().any(|path| path.ends_with("03.img")) && paths(&bench).len() == 5);
    check(&bench, &data);
    let status = bench.json(&["status"]).json();
    assert_eq!((&status["health"], &status["can_lose_now"]), (&"ok".into(), &2.into()), "{status}");
    let scrub = bench.json(&["scrub", "start"]).json();
    assert_eq!(scrub["state"], "done", "{scrub}");
    check(&bench, &data);
    server.kill();
}
