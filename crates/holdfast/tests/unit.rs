//! The systemd unit: systemd takes it, and it keeps what it promises.

use std::collections::BTreeMap;
use std::process::Command;

use crate::harness::{Bench, program};

const UNIT: &str = include_str!("../../../packaging/holdfast.service");

/// Settings of the unit by section and name; each may be set several times.
fn settings() -> BTreeMap<(String, String), Vec<String>> {
    let mut section = String::new();
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for line in UNIT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}"));
        found.entry((section.clone(), key.to_owned())).or_default().push(value.to_owned());
    }
    found
}

#[test]
fn the_unit_is_whole() {
    let settings = settings();
    let one = |section: &str, key: &str| {
        let values = settings.get(&(section.to_owned(), key.to_owned()));
        values.unwrap_or_else(|| panic!("no {key} in {section}"))[0].clone()
    };
    // Ready is when the site answers, and not before.
    assert_eq!(one("Service", "Type"), "exec");
    let dir = one("Service", "ExecStart").split_once("--dir ").unwrap().1.to_owned();
    assert!(one("Service", "ExecStartPost").contains(&format!("holdfast --site {dir} status")));
    assert_eq!(one("Service", "Restart"), "on-failure");
    assert_eq!(one("Service", "KillMode"), "mixed");
    // Longer than a stop takes: clients, then the write buffer.
    assert!(one("Service", "TimeoutStopSec").parse::<u32>().unwrap() >= 75);
    assert_ne!(one("Service", "User"), "root");
    for key in ["NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateNetwork", "MemoryDenyWriteExecute"] {
        assert_eq!(one("Service", key), "yes", "{key}");
    }
    assert_eq!(one("Service", "ProtectSystem"), "strict");
    assert_eq!(one("Service", "LimitCORE"), "0");
    assert_eq!(one("Service", "CapabilityBoundingSet"), "");
    assert!(one("Service", "SystemCallFilter").contains("io_uring_enter"));
}

#[test]
fn systemd_takes_it_where_there_is_one() {
    let bench = Bench::new();
    let unit = bench.path("holdfast.service");
    // Nothing is installed here: the program stands elsewhere, and its manual nowhere.
    let text = UNIT.replace("/usr/bin/holdfast", program()).replace("Documentation=man:holdfast(1)\n", "");
    std::fs::write(&unit, text).unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("holdfast.service"), "{said}");
}
