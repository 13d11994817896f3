//! Running other programs: output shown and kept, a time limit, nothing left running.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::{Result, failed};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long output is awaited after the program ended: something it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);
/// Output kept per program. The rest is shown but not kept; no suite comes near it.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Whether output is shown as it comes or only kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Live,
    Quiet,
}

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// It ended by itself with exit code 0.
    pub(crate) success: bool,
    /// It was stopped because its time was up.
    pub(crate) timed_out: bool,
    /// Standard output and standard error, interleaved by line.
    pub(crate) output: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// The last `lines` lines of the output.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Runs a program to its end, without standard input, for at most `limit`.
pub(crate) fn run(command: &mut Command, show: Show, limit: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{}: {error}", command.get_program().to_string_lossy())))?;
    let lines = follow(&mut child);
    let mut output = String::new();
    let mut timed_out = false;
    let status = loop {
        keep(&lines, POLL, show, &mut output);
        if let Some(status) = child.try_wait().map_err(|error| failed(format!("waiting: {error}")))? {
            break status;
        }
        if start.elapsed() > limit && !timed_out {
            timed_out = true;
            kill_tree(child.id());
        }
    };
    let end = Instant::now();
    while end.elapsed() < DRAIN && keep(&lines, POLL, show, &mut output) {}
    Ok(Outcome { success: status.success() && !timed_out, timed_out, output, took: start.elapsed() })
}

/// Like [`run`], quietly; a failure carries what the program said.
pub(crate) fn must(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let outcome = run(command, Show::Quiet, limit)?;
    if outcome.success {
        return Ok(outcome);
    }
    let why = if outcome.timed_out { "took too long" } else { "failed" };
    Err(failed(format!("{command:?} {why}:\n{}", outcome.tail(20))))
}

/// Takes one line, waiting up to `wait`. False when no more can come.
fn keep(lines: &Receiver<String>, wait: Duration, show: Show, output: &mut String) -> bool {
    let mut next = lines.recv_timeout(wait);
    loop {
        match next {
            Ok(line) => {
                if show == Show::Live {
                    println!("{line}");
                }
                if output.len() + line.len() < KEPT_BYTES_MAX {
                    output.push_str(&line);
                    output.push('\n');
                }
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(wait);
                return false;
            }
        }
        next = lines.recv_timeout(Duration::ZERO);
    }
}

/// Lines of both outputs as they come.
fn follow(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    forward(stdout, sender.clone());
    forward(stderr, sender);
    receiver
}

fn forward(pipe: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Ends a process and all that descend from it: a time-out must not leave a test's server running.
pub(crate) fn kill_tree(process: u32) {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent_of(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut doomed = vec![process];
    let mut next = 0;
    while next < doomed.len() {
        doomed.extend(children.remove(&doomed[next]).unwrap_or_default());
        next += 1;
    }
    let _ = signal_all("KILL", &doomed);
}

/// The parent in `/proc/ID/stat`: the second field after the name, which stands in parentheses.
fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal by name.
pub(crate) fn signal(name: &str, process: u32) -> Result {
    signal_all(name, &[process])
}

fn signal_all(name: &str, processes: &[u32]) -> Result {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(failed(format!("could not send {name} to {processes:?}"))),
    }
}

/// A program that dies with this one, however this one ends.
pub(crate) fn bound(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Waits for `child` to end, up to `limit`. False when it still runs.
pub(crate) fn ended(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    false
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// True when `program` stands on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
