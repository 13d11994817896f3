//! Starts, asks, kills and restarts the program.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::nbd_client::NbdClient;

/// A server that does not serve, or does not end, by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Six media with room for a few GiB, sparse.
pub(crate) const MEDIA: &[&str] = &["--file-media", "6x1G"];
/// Three media of 16 MiB, in the smallest sizes there are.
pub(crate) const TINY: &[&str] = &["--file-media", "3x16M", "--layout", "tiny", "--io", "sync"];

/// A site's directory, and what tells its servers apart.
pub(crate) struct Bench {
    temp: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as one JSON value, of a command that did what it was told.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard error as the JSON of an error.
    pub(crate) fn error(&self) -> Value {
        assert!(self.code != 0 && self.stdout.is_empty(), "{self:?}");
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Bench {
    /// A directory without a site.
    pub(crate) fn new() -> Self {
        Self { temp: TempDir::new().unwrap() }
    }

    /// The site's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.path("d")
    }

    /// A path beside the site's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The media that the site made, in order.
    pub(crate) fn media(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir().join("media")).unwrap();
        let mut media: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        media.sort();
        media
    }

    /// `standalone` on the site's directory, under `wrapper` (a tracer with its options, or nothing). It ends with the
    /// test, and so does the wrapper.
    pub(crate) fn standalone(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let bound = ["setpriv", "--pdeathsig", "KILL", "--"];
        let mut all: Vec<&str> = bound.to_vec();
        if !wrapper.is_empty() {
            all.extend(wrapper);
            all.extend(bound);
        }
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).arg(program()).arg("standalone").arg("--dir").arg(self.dir());
        // Points that come by the hour would be there in one run and not in the next.
        command.arg("--no-default-points");
        command.args(arguments).env_remove("HOLDFAST_SITE").stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn start(&self, arguments: &[&str]) -> Server {
        Server::spawn(self, self.standalone(&[], arguments)).serving()
    }

    /// Runs `standalone` to its end: for starts that are refused.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.standalone(&[], arguments).output().unwrap())
    }

    /// A command of the command line on the site.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program());
        command.env_remove("HOLDFAST_SITE").arg("--site").arg(self.dir()).args(arguments);
        Ran::new(command.stdin(Stdio::null()).output().unwrap())
    }

    /// The same with `-o json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Ran {
        self.cli(&[arguments, &["-o", "json"]].concat())
    }

    /// Makes a VM with one disk.
    pub(crate) fn create(&self, name: &str, size: &str) {
        self.json(&["vm", "create", name, "--disk", size]).json();
    }

    /// Deletes a VM. The server sees a client's end a little later than the client.
    pub(crate) fn delete(&self, name: &str) {
        let begun = Instant::now();
        loop {
            let ran = self.json(&["vm", "delete", name, "--yes"]);
            let in_use = ran.code == 6 && ran.stderr.contains("vm_in_use");
            if !in_use || begun.elapsed() > PATIENCE {
                ran.json();
                return;
            }
            std::thread::sleep(POLL);
        }
    }

    /// The address of an export.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.dir().join("nbd.sock").display())
    }

    /// Opens an export.
    pub(crate) fn connect(&self, export: &str) -> NbdClient {
        NbdClient::connect(&self.dir().join("nbd.sock"), export).unwrap()
    }
}

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_holdfast")
}

/// A server process. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Server {
    /// Starts a command made by [`Bench::standalone`]; what it says is appended to the bench's `log`.
    pub(crate) fn spawn(bench: &Bench, command: Command) -> Self {
        Self::spawn_at(bench, command, &bench.dir())
    }

    /// The same for a site elsewhere.
    pub(crate) fn spawn_at(bench: &Bench, mut command: Command, dir: &Path) -> Self {
        let log = bench.path("log");
        let open = || OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", wanted("setpriv")));
        Self { child, log, socket: dir.join("api.sock") }
    }

    /// Waits until it serves.
    pub(crate) fn serving(mut self) -> Self {
        if let Err(status) = self.wait_serving() {
            panic!("the server ended at its start ({status}):\n{}", self.log());
        }
        self
    }

    /// Waits until it serves, or gives how it ended instead.
    pub(crate) fn wait_serving(&mut self) -> Result<(), ExitStatus> {
        let start = Instant::now();
        loop {
            if UnixStream::connect(&self.socket).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(start.elapsed() < PATIENCE, "the server does not serve:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// What all servers of the bench have said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The server's process; under a wrapper the wrapper's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, of a wrapper's processes too.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for id in descendants(self.child.id()) {
            // It may be gone by itself.
            let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(mut self, signal: &str) -> ExitStatus {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.ended()
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Processes beneath this one, parents first.
pub(crate) fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// What to say of a tool that is not there.
pub(crate) fn wanted(tool: &str) -> String {
    format!("{tool} is needed: `cargo x setup` installs it")
}

/// Runs an outside tool that must succeed; gives its standard output.
pub(crate) fn tool<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let ran = try_tool(name, arguments);
    assert_eq!(ran.code, 0, "{name} failed: {ran:?}");
    ran.stdout
}

/// Runs an outside tool.
pub(crate) fn try_tool<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(name);
    let output = command.args(arguments).stdin(Stdio::null()).output();
    Ran::new(output.unwrap_or_else(|error| panic!("{}: {error}", wanted(name))))
}

/// Whether nothing is to be left out.
pub(crate) fn soak() -> bool {
    std::env::var_os("HOLDFAST_SOAK").is_some()
}

/// Chooses a sample.
pub(crate) fn pick() -> usize {
    std::env::var("HOLDFAST_PICK").ok().and_then(|pick| pick.parse().ok()).unwrap_or(0)
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}

/// Writes a file of this length with a third of noise, a third of text and a third of holes, in pieces.
pub(crate) fn mixed_file(path: &Path, length: u64, seed: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    let mut random = Random(seed);
    let piece = 192 << 10;
    for at in (0..length).step_by(piece) {
        let size = piece.min((length - at) as usize);
        match random.below(3) {
            0 => file.write_all_at(&random.bytes(size), at).unwrap(),
            1 => file
                .write_all_at(&format!("line {at}\n").repeat(size / 7 + 1).as_bytes()[..size], at)
                .unwrap(),
            _ => {}
        }
    }
}
