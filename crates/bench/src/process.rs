//! Programs beside us: started bound to us, watched through `/proc`, ended by their number.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::{Failure, stop};

const POLL: Duration = Duration::from_millis(20);
/// A clean stop may write back what is in memory.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Lines shown of what a program said before it ended.
const TAIL_LINES: usize = 12;

/// A command whose process dies with us, however we end, and which Ctrl-C does not reach before us.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0).stdin(Stdio::null());
    command
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it says goes to the file `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self, Failure> {
        let file = File::create(log).map_err(|error| Failure::at(log, &error))?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(|error| Failure::failed(format!("{command:?}: {error}")))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `is_there` holds.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut is_there: impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        while !is_there() {
            stop::check()?;
            if let Some(said) = self.death() {
                return Err(Failure::Failed(said));
            }
            if start.elapsed() > limit {
                let (limit, said) = (limit.as_secs(), tail(&self.log));
                return Err(Failure::failed(format!("not there after {limit} s; it says: {said}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// When it ended by itself: how, and what it said last.
    pub(crate) fn death(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the server ended ({status}): {}", tail(&self.log)))
    }

    /// CPU time of all its threads so far, and what its ended children took.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&format!("/proc/{}/stat", self.child.id()))
    }

    /// Resident bytes now.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        kib.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
    }

    /// Waits until it uses next to no CPU, at most `limit`; gives the time that took.
    pub(crate) fn settle(&self, limit: Duration) -> Result<Duration, Failure> {
        const LOOK: Duration = Duration::from_millis(250);
        let start = Instant::now();
        let mut before = self.cpu();
        while start.elapsed() < limit {
            stop::check()?;
            std::thread::sleep(LOOK);
            let now = self.cpu();
            // A clock tick is 10 ms: one of them is noise.
            if now.saturating_sub(before) <= Duration::from_millis(10) {
                break;
            }
            before = now;
        }
        Ok(start.elapsed())
    }

    /// Asks it to end and waits for that; kills it when it does not.
    fn end(&mut self) {
        if let Some(process) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = rustix::process::kill_process(process, Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    cpu_of("/proc/self/stat")
}

fn cpu_of(path: &str) -> Duration {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let ticks = cpu_ticks(&stat).unwrap_or(0);
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system time, also of children waited for: fields 14 to 17 of `/proc/ID/stat`; the name in parentheses
/// is field 2.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Runs a program to its end; gives its standard output, how long it took and its CPU time.
pub(crate) fn run(mut command: Command, log: &Path, limit: Duration) -> Result<Ran, Failure> {
    let file = File::create(log).map_err(|error| Failure::at(log, &error))?;
    let out = log.with_extension("out");
    command.stdout(File::create(&out).map_err(|error| Failure::at(&out, &error))?).stderr(file);
    let cpu = own_cpu();
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| Failure::failed(format!("{command:?}: {error}")))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let stopped = stop::check();
        if stopped.is_err() || start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            stopped?;
            return Err(Failure::failed(format!("{command:?} took more than {} s", limit.as_secs())));
        }
        std::thread::sleep(POLL);
    };
    let took = start.elapsed();
    if !status.success() {
        return Err(Failure::failed(format!("{command:?} failed ({status}): {}", tail(log))));
    }
    let output = String::from_utf8_lossy(&std::fs::read(&out)?).into_owned();
    Ok(Ran { output, took, cpu: own_cpu().saturating_sub(cpu) })
}

/// A program that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) output: String,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
}

/// True when `program` stands on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(127));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn a_server_that_ends_at_once_is_told_with_its_words() {
        let home = tempfile::tempdir().unwrap();
        let mut command = bound("sh");
        command.args(["-c", "echo no such medium >&2; exit 3"]);
        let mut server = Server::start(command, &home.path().join("log")).unwrap();
        let said = server.wait_until(Duration::from_secs(10), || false).unwrap_err();
        let said = said.to_string();
        assert!(said.contains("exit status: 3") && said.contains("no such medium"), "{said}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let mut command = bound("sleep");
        command.arg("600");
        let server = Server::start(command, &home.path().join("log")).unwrap();
        let place = PathBuf::from(format!("/proc/{}", server.child.id()));
        assert!(place.exists());
        drop(server);
        assert!(!place.exists());
    }
}
