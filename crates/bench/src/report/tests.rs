//! Tables of a made-up run: medians, ratios, the ceiling, failures.

use super::*;
use crate::import::ImportResult;

fn case(case: &'static str, round: u64, iops: f64) -> CaseResult {
    CaseResult {
        case,
        round,
        seconds: 7.0,
        operations: (iops * 7.0) as u64,
        iops,
        mib_s: iops / 256.0,
        latency: Summary { mean_us: 5.25, p50_us: 5.0, p99_us: 90.4, p999_us: 1000.0, max_us: 2000.0 },
        server_cpu_us: 30.0,
        client_cpu_us: 2.5,
        client_cores: 0.4,
        settle_s: if case.starts_with("rand") { 0.25 } else { 2.5 },
    }
}

fn target(name: &'static str, cases: Vec<CaseResult>) -> TargetResult {
    TargetResult {
        name,
        about: "a target",
        note: String::new(),
        used: Vec::new(),
        idle_rss_mib: 10,
        end_rss_mib: 200,
        fill_mib_s: 300.4,
        verified_mib: 512,
        failure: None,
        cases,
    }
}

fn results(targets: Vec<TargetResult>) -> Results {
    Results {
        date: "2026-01-02T03-04-05Z".to_owned(),
        commit: "abcdef12".to_owned(),
        machine: Machine {
            cpu: "a CPU".to_owned(),
            cores: 2,
            memory_gib: 24,
            kernel: "6.18".to_owned(),
            file_system: "ext4 on /dev/x".to_owned(),
            load_before: "0.1 0.2 0.3".to_owned(),
            load_after: "1 1 1".to_owned(),
        },
        settings: SettingsTold {
            seconds: 8,
            size_mib: 2048,
            rounds: 3,
            seed: 1,
            compressible: 0.5,
            duplicates: 0.0,
            full: None,
            verified_in_cases: false,
        },
        seconds_in_all: 600,
        imports: None,
        targets,
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
}

#[test]
fn tables_have_medians_and_ratios_of_the_same_round() {
    let rounds = |name, rates: [f64; 3]| {
        let cases = rates.iter().zip(0..).map(|(rate, round)| case("randread-qd1", round, *rate)).collect();
        target(name, cases)
    };
    // The machine was slow in the second round, for both alike.
    let text = markdown(&results(vec![
        rounds("holdfast-6", [2000.0, 100.0, 2100.0]),
        rounds(BASE, [1000.0, 50.0, 1000.0]),
        rounds(CEILING, [3000.0, 150.0, 3000.0]),
    ]));
    has(&text, "| case | holdfast-6 | qsd-raw | null |");
    has(
        &text,
        "| randread-qd1 | **2000**, 5.2 / 90 / 1000 | **1000**, 5.2 / 90 / 1000 | **3000**, 5.2 / 90 / 1000 |",
    );
    has(&text, "| randread-qd1 | 2.00 | 1.00 | 3.00 |");
    has(&text, "| randread-qd1 | 30 + 2.5 | 30 + 2.5 | 30 + 2.5 |");
    has(&text, "| holdfast-6 | a target | 10 / 200 | 300 | all 512 MiB |");
    assert!(text.contains("commit abcdef12") && text.contains("Load before: 0.1 0.2 0.3"), "{text}");
}

#[test]
fn a_target_at_the_ceiling_is_marked() {
    let text = markdown(&results(vec![
        target("holdfast-6", vec![case("seqread", 0, 2900.0)]),
        target(BASE, vec![case("seqread", 0, 1000.0)]),
        target(CEILING, vec![CaseResult { client_cores: 0.95, ..case("seqread", 0, 3000.0) }]),
    ]));
    assert!(text.contains("| **12** MiB/s, 5.2 / 90 / 1000 g |"), "{text}");
    has(&text, "| seqread | 2.90 * | 1.00 | 3.00 |");
    assert!(text.contains("| seqread | **11** MiB/s, 5.2 / 90 / 1000 |"), "{text}");
    assert!(text.contains("| seqread | 30 + 2.5, busy 2.5 s more |"), "{text}");
}

#[test]
fn a_failed_target_leaves_the_others_results() {
    let mut failed = target("holdfast-6", vec![case("randwrite-qd1", 0, 10.0)]);
    failed.failure = Some("Write of 4096 bytes at 0 refused: no space".to_owned());
    let cases = vec![case("randwrite-qd1", 0, 20.0), case("randread-qd1", 0, 30.0)];
    let results = results(vec![failed, target(BASE, cases)]);
    assert_eq!(results.failed(), ["holdfast-6"]);
    let text = markdown(&results);
    has(&text, "| randread-qd1 | - | **30**, 5.2 / 90 / 1000 |");
    has(&text, "| randread-qd1 | - | 1.00 |");
    has(&text, "| holdfast-6 | a target | 10 / 200 | 300 | FAILED |");
    has(&text, "holdfast-6 FAILED: Write of 4096 bytes at 0 refused: no space");
}

#[test]
fn without_the_base_there_are_no_ratios() {
    let text = markdown(&results(vec![target("holdfast-6", vec![case("randread-qd1", 0, 30.0)])]));
    has(&text, "| randread-qd1 | - |");
}

#[test]
fn the_results_are_json() {
    let mut results = results(vec![target(BASE, vec![case("randread-qd1", 0, 30.0)])]);
    results.imports = Some(Imports {
        images: "three".to_owned(),
        apparent_mib: 9216,
        data_mib: 2100,
        programs: vec![ImportResult {
            name: "restic",
            about: "0.14",
            seconds: 13.7,
            settle_s: 0.0,
            cpu_s: 27.0,
            stored_mib: 531,
            failure: None,
        }],
    });
    let json = serde_json::to_value(&results).unwrap();
    assert_eq!(json["targets"][0]["cases"][0]["latency"]["p99_us"], 90.4);
    assert_eq!(json["machine"]["cores"], 2);
    assert_eq!(json["imports"]["programs"][0]["stored_mib"], 531);
    has(&markdown(&results), "| restic | 0.14 | 13.7 | 0.0 | 27.0 | 531 |");
}
