//! Goal: the first commands of README.md work as they are written.
//!
//! Model: one shell runs the `sh` blocks under "First commands" in order, in a folder that stands for a clone, and stops
//! at the first command that fails. Three things are not as written: the build, which is the caller's own (its program
//! stands where the build would leave it); `/srv/holdfast`, which is a folder of the test; and QEMU, which gets no window
//! but a socket, on which the test sees the guest's BIOS read the disk and then ends it, as its user would.
//!
//! What it does not do: the commands of the README's first block. `cargo x test` runs this test, and the others are
//! CI's own steps.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Bench, Random, descendants, program, tool, wanted};

const README: &str = include_str!("../../../../README.md");
const HEADING: &str = "## First commands";
/// The caller has built, and this test runs what was built.
const BUILD: &str = "cargo build --release";
const SITE: &str = "/srv/holdfast";
const QEMU: &str = "qemu-system-x86_64";
/// All commands together, QEMU's start without hardware help among them.
const PATIENCE: Duration = Duration::from_secs(90);
const IMAGE_BYTES: usize = 3 << 20;

/// The `sh` blocks of the section.
fn commands(readme: &str) -> String {
    let (_, section) = readme.split_once(HEADING).expect("the README has first commands");
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let commands: String = blocks.collect();
    assert!(commands.starts_with(BUILD) && commands.matches(BUILD).count() == 1, "{commands}");
    assert!(commands.contains(SITE) && commands.contains(QEMU), "{commands}");
    commands
}

/// A folder that stands for a clone, with an image and what the build leaves.
fn clone() -> Bench {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("target/release")).unwrap();
    symlink(program(), bench.path("target/release/holdfast")).unwrap();
    std::fs::write(bench.path("debian.raw"), Random(8).bytes(IMAGE_BYTES)).unwrap();
    std::fs::write(bench.path("debian.iso"), Random(9).bytes(IMAGE_BYTES)).unwrap();
    std::fs::create_dir(bench.path("bin")).unwrap();
    let real = tool("sh", ["-c", &format!("command -v {QEMU}")]);
    let qemu = format!(
        "#!/bin/sh\nexec setpriv --pdeathsig KILL -- {} \"$@\" -display none -qmp unix:{},server=on,wait=off\n",
        real.trim(),
        bench.path("qmp").display()
    );
    let path = bench.path("bin").join(QEMU);
    std::fs::write(&path, qemu).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    bench
}

/// The shell. Dropping it ends it with what it started.
struct Shell(Child);

impl Shell {
    fn start(bench: &Bench, commands: &str) -> Self {
        let site = bench.dir().display().to_string();
        let commands = commands.replacen(BUILD, ":", 1).replace(SITE, &site);
        // The server outlives the commands: it goes with their shell.
        let script = format!("trap 'kill $!; wait $!' EXIT\n{commands}");
        let path = std::env::var("PATH").unwrap();
        let log = || File::options().create(true).append(true).open(bench.path("said")).unwrap();
        let mut shell = Command::new("setpriv");
        shell.args(["--pdeathsig", "KILL", "--", "sh", "-e", "-c", &script]);
        shell.current_dir(bench.path("")).env("PATH", format!("{}:{path}", bench.path("bin").display()));
        shell.env_remove("HOLDFAST_SITE").stdin(Stdio::null()).stdout(log()).stderr(log());
        Self(shell.spawn().unwrap_or_else(|error| panic!("{}: {error}", wanted("setpriv"))))
    }

    /// Whether all commands did what they were told.
    fn ended(&mut self) -> Option<bool> {
        self.0.try_wait().unwrap().map(|status| status.success())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        for id in descendants(self.0.id()) {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One command of QEMU's control socket; gives its answer.
fn ask(qmp: &mut BufReader<UnixStream>, command: &str) -> Value {
    qmp.get_mut().write_all(format!("{}\n", json!({"execute": command})).as_bytes()).unwrap();
    loop {
        let mut line = String::new();
        assert!(qmp.read_line(&mut line).unwrap() > 0, "QEMU is gone");
        let answer: Value = serde_json::from_str(&line).unwrap();
        if answer["return"] != Value::Null {
            return answer["return"].clone();
        }
    }
}

/// Ends the VM when its BIOS has read the disk; gives whether there is one yet.
fn boot(qmp: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(qmp) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut qmp = BufReader::new(stream);
    ask(&mut qmp, "qmp_capabilities");
    let start = Instant::now();
    loop {
        let drives = ask(&mut qmp, "query-blockstats");
        let read =
            drives.as_array().unwrap().iter().map(|drive| drive["stats"]["rd_bytes"].as_u64().unwrap());
        if read.sum::<u64>() >= 512 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the BIOS does not read the disk: {drives}");
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(&mut qmp, "quit");
    true
}

/// Runs commands; gives whether all did what they were told, whether a VM ran, and what was said.
fn run(bench: &Bench, commands: &str) -> (bool, bool, String) {
    let mut shell = Shell::start(bench, commands);
    let start = Instant::now();
    let mut booted = false;
    let success = loop {
        if let Some(success) = shell.ended() {
            break success;
        }
        let said = || std::fs::read_to_string(bench.path("said")).unwrap();
        assert!(start.elapsed() < PATIENCE, "the commands do not end:\n{}", said());
        booted = booted || boot(&bench.path("qmp"));
        std::thread::sleep(Duration::from_millis(50));
    };
    (success, booted, std::fs::read_to_string(bench.path("said")).unwrap())
}

#[test]
fn the_first_commands_work_as_written() {
    let bench = clone();
    let (success, booted, said) = run(&bench, &commands(README));
    assert!(success && booted, "success: {success}, a VM ran: {booted}\n{said}");
    assert!(said.contains("-blockdev") && said.contains("<disk"), "lines for QEMU and libvirt: {said}");
    // Not `ok` where the machine has little room below the media.
    assert!(said.contains("health        ") && !said.contains("health        failed"), "{said}");
    assert!(said.contains("\nVMs           2"), "{said}");
    let (raw, exported) = (bench.path("debian.raw"), bench.path("web01.qcow2"));
    tool(
        "qemu-img",
        ["compare", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap(), exported.to_str().unwrap()],
    );
    assert!(!bench.dir().join("api.sock").exists(), "the server stopped in good order: {said}");
}

/// What would tell of a misspelt command does.
#[test]
fn a_misspelt_command_is_noticed() {
    for (word, misspelt) in [("disk attach-info", "disk attach-inof"), ("debian.raw", "debain.raw")] {
        let bench = clone();
        let commands = commands(README);
        assert!(commands.contains(word));
        let (success, booted, said) = run(&bench, &commands.replace(word, misspelt));
        assert!(!success && !booted, "{misspelt}: {said}");
        assert!(!bench.path("web01.qcow2").exists());
    }
}
