//! What the figures are of: machine, kernel, date.

use std::process::Command;

use serde::Serialize;

/// The machine a run was made on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Type of the file system that holds the targets' files.
    pub(crate) file_system: String,
    /// Load averages at the start: what else the machine does.
    pub(crate) load_before: String,
    /// At the end; the run's own load is in it.
    pub(crate) load_after: String,
}

impl Machine {
    /// Looks at this one, before any load.
    pub(crate) fn look(home: &std::path::Path) -> Self {
        let cpu = field("/proc/cpuinfo", "model name");
        let kib = field("/proc/meminfo", "MemTotal");
        let kib: u64 = kib.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut df = Command::new("df");
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: kernel.trim().to_owned(),
            file_system: said(df.args(["--output=fstype,source"]).arg(home))
                .lines()
                .nth(1)
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" on "),
            load_before: load(),
            load_after: String::new(),
        }
    }
}

/// The load averages.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Date and time, UTC, fit for a file name.
pub(crate) fn date() -> String {
    said(Command::new("date").args(["-u", "+%Y-%m-%dT%H-%M-%SZ"])).trim().to_owned()
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}

/// The value of the first line `NAME: VALUE`.
fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
}
