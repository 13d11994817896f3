//! Cases on a disk in memory: what is written is what the sweep expects, and a wrong byte is found.

use super::*;
use crate::serve::testing::{RamServer, serve_ram};

const SIZE: u64 = 32 << 20;
const TIME: Span = Span::Time(Duration::from_millis(80));

fn disk(server: &RamServer) -> Disk {
    Disk::new(server.socket(), "disk", SIZE)
}

#[test]
fn every_case_runs_and_the_sweep_finds_what_was_written() {
    let server = serve_ram(SIZE);
    let mut disk = disk(&server);
    let generator = Generator::new(1, 0.5, 0.2);
    let filled = disk.run(&FILL, Span::Once, &generator, 1, false).unwrap();
    assert_eq!((filled.operations, filled.bytes), (32, SIZE));
    for case in CASES {
        let outcome = disk.run(case, TIME, &generator, 1, true).unwrap();
        assert!(outcome.operations > 0, "{}", case.name);
        assert_eq!(outcome.bytes, outcome.operations * case.bytes as u64);
        assert!(outcome.operations_in_all >= outcome.operations);
        assert!(outcome.took < Duration::from_secs(5));
        assert!(outcome.latencies.summary().max_us > 0.0);
    }
    let rewritten = disk.generations.iter().filter(|generation| **generation > 1).count();
    assert!(rewritten > 100, "{rewritten} blocks were written again");
    let swept = disk.run(&SWEEP, Span::Once, &generator, 1, true).unwrap();
    assert_eq!(swept.bytes, SIZE);
}

#[test]
fn the_sweep_finds_one_wrong_block() {
    let server = serve_ram(SIZE);
    let mut disk = disk(&server);
    let generator = Generator::new(1, 0.5, 0.0);
    disk.run(&FILL, Span::Once, &generator, 1, false).unwrap();
    disk.generations[5000] += 1;
    let why = disk.run(&SWEEP, Span::Once, &generator, 1, true).unwrap_err().to_string();
    assert!(why.contains("block 5000 should be of generation 2"), "{why}");
}

#[test]
fn a_disk_smaller_than_said_is_told() {
    let server = serve_ram(SIZE / 2);
    let why = disk(&server).run(&CASES[2], TIME, &Generator::new(1, 0.5, 0.0), 1, false).unwrap_err();
    assert!(why.to_string().contains("only 16777216 bytes"), "{why}");
    let mut small = Disk::new(server.socket(), "disk", 8 << 20);
    let why = small.run(&CASES[0], TIME, &Generator::new(1, 0.5, 0.0), 1, false).unwrap_err();
    assert!(why.to_string().contains("too small"), "{why}");
}

#[test]
fn mixed_cases_read_as_often_as_they_say() {
    let server = serve_ram(SIZE);
    let mut disk = disk(&server);
    let generator = Generator::new(1, 0.5, 0.0);
    let mixed = CASES.iter().find(|case| case.reads == 70).unwrap();
    let outcome = disk.run(mixed, TIME, &generator, 1, false).unwrap();
    let writes: u64 = disk.generations.iter().map(|generation| u64::from(*generation)).sum();
    let share = writes as f64 / outcome.operations_in_all as f64;
    assert!((share - 0.3).abs() < 0.1, "{share} of {} are writes", outcome.operations_in_all);
}
