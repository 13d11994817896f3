//! One site for all cases of a test: copied, worked on under an injection, judged.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bench, Server, tool};
use crate::nbd_client::{NbdClient, NbdError};

use super::model::{BLOCK, Change, Disk, Outcome};
use super::script::{self, Step};

/// A start after a kill takes no longer (a promise).
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// A medium that was to leave has left within so long, and pause between looks at it.
const REPLACED_MAX: Duration = Duration::from_secs(20);
const REPLACED_LOOK: Duration = Duration::from_millis(100);
/// Bytes of one read when all is read.
const PIECE: u64 = 1 << 20;
/// Where every judgement writes a block, so that the site is seen to take writes after each recovery.
const PROBE_AT: u64 = 5 * BLOCK;

/// Error numbers of NBD.
const EIO: u32 = 5;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const ETIMEDOUT: u32 = 110;
/// Replies of the hand-shake from here on are errors.
const REPLY_ERROR: u32 = 1 << 31;
/// Seconds that a command waits for its answer.
const ANSWER_WITHIN: &str = "5";

/// What there must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) disks: BTreeMap<&'static str, Disk>,
    /// Whether the VM must be there; `None` when it may be.
    pub(crate) vms: BTreeMap<&'static str, Option<bool>>,
}

/// How playing ended.
#[derive(Debug, Default)]
pub(crate) struct Played {
    /// The server went away before the end.
    pub(crate) gone: bool,
    /// Error numbers that clients were given, with the step.
    pub(crate) refused: Vec<(usize, u32)>,
}

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    /// `ring` or `sync`.
    pub(crate) io: &'static str,
    /// Options of `strace`.
    pub(crate) strace: Option<Vec<String>>,
    /// The plan of the fault layer.
    pub(crate) fault: Option<String>,
    pub(crate) log: Option<&'static str>,
    /// What a lost medium held is made again at once.
    pub(crate) rebuilds: bool,
}

impl How {
    pub(crate) fn plain(io: &'static str) -> Self {
        Self { io, ..Self::default() }
    }

    pub(crate) fn spawn(&self, bench: &Bench) -> Server {
        let mut wrapper: Vec<String> = Vec::new();
        if let Some(options) = &self.strace {
            // -D: the server stays our child, so that its end is seen as it is.
            // --seccomp-bpf would be quicker, but injects no signals.
            wrapper.extend(["strace", "-D", "-f", "-qq", "-o"].map(str::to_owned));
            wrapper.push(bench.path("trace").display().to_string());
            wrapper.extend(
                options.iter().map(|option| option.replace("{DIR}", &bench.dir().display().to_string())),
            );
        }
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let mut command = bench.standalone(
            &wrapper,
            &["--io", self.io, "--log", self.log.unwrap_or("info"), "--write-patience", "1"],
        );
        if self.rebuilds {
            command.args(["--rebuild-after", "0"]);
        }
        command.env_remove("HOLDFAST_LOG").env_remove("HOLDFAST_FAULT");
        if let Some(plan) = &self.fault {
            command.env("HOLDFAST_FAULT", plan);
        }
        Server::spawn(bench, command)
    }

    /// Whether the injection was made.
    pub(crate) fn fired(&self, bench: &Bench) -> bool {
        let (file, sign) =
            if self.strace.is_some() { ("trace", "(INJECTED)") } else { ("log", "injected fault") };
        std::fs::read_to_string(bench.path(file)).unwrap().contains(sign)
    }
}

/// A site that was killed with a part of the workload's data in it, to be copied.
pub(crate) struct Rig {
    template: Bench,
    world: World,
}

impl Rig {
    /// Makes the site: `media` is what `--file-media` takes.
    pub(crate) fn new(media: &str) -> Self {
        let template = Bench::new();
        let server = template.start(&["--file-media", media, "--layout", "tiny"]);
        let mut world = World::default();
        let played = world.play(&template, &script::before());
        assert!(!played.gone && played.refused.is_empty(), "{played:?}\n{}", server.log());
        server.kill();
        Self { template, world }
    }

    /// The same site with the first `steps` of the workload done too, killed right behind the last.
    pub(crate) fn advanced(self, steps: usize) -> Self {
        let Self { template, mut world } = self;
        let server = template.start(&[]);
        let played = world.play(&template, &script::workload()[..steps]);
        assert!(!played.gone && played.refused.is_empty(), "{played:?}\n{}", server.log());
        server.kill();
        Self { template, world }
    }

    /// The same site without one of its media.
    pub(crate) fn without(self, medium: &str) -> Self {
        std::fs::remove_file(self.template.dir().join("media").join(medium)).unwrap();
        self
    }

    /// A copy of the site.
    pub(crate) fn copy(&self) -> (Bench, World) {
        let bench = Bench::new();
        let (from, to) = (self.template.dir(), bench.dir());
        tool("cp", ["-r".as_ref(), "--sparse=always".as_ref(), from.as_os_str(), to.as_os_str()]);
        (bench, self.world.clone())
    }
}

/// Plays steps on a server started like this, then stops it in good order. Gives how it ended.
pub(crate) fn run(bench: &Bench, world: &mut World, how: &How, steps: &[Step]) -> (Played, ExitStatus) {
    let mut server = how.spawn(bench);
    if let Err(status) = server.wait_serving() {
        return (Played { gone: true, refused: Vec::new() }, status);
    }
    let played = world.play(bench, steps);
    if played.gone {
        return (played, server.ended());
    }
    (played, server.stop("TERM"))
}

/// What a server did that met errors.
#[derive(Debug)]
pub(crate) struct Endured {
    pub(crate) played: Played,
    /// `status` when the workload was through.
    pub(crate) status: Value,
    /// Whether the injection had been made by then.
    pub(crate) fired: bool,
}

/// Plays the workload on a server that meets errors, judges it while it still does, and stops it, in good order or
/// by kill -9.
pub(crate) fn endure(bench: &Bench, world: &mut World, how: &How, case: &str, clean: bool) -> Endured {
    let mut server = how.spawn(bench);
    if let Err(status) = server.wait_serving() {
        panic!("{case}: it does not start ({status}):\n{}", server.log());
    }
    let played = world.play(bench, &script::workload());
    assert!(!played.gone, "{case}: it died:\n{}", server.log());
    let fired = how.fired(bench);
    if let Err(wrong) = world.judge(bench, false) {
        panic!("{case}: {wrong}\n{}", server.log());
    }
    let status = bench.json(&["status"]).json();
    if clean {
        server.stop("TERM");
    } else {
        server.kill();
    }
    Endured { played, status, fired }
}

/// The media in a state, by the ends of their paths.
pub(crate) fn media_in(status: &Value, state: &str) -> Vec<String> {
    let media = status["media"].as_array().unwrap().iter().filter(|medium| medium["state"] == state);
    media.map(|medium| medium["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

/// Whether kill -9 ended it.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

impl World {
    /// Plays steps and notes what became of them; ends when the server is gone.
    pub(crate) fn play(&mut self, bench: &Bench, steps: &[Step]) -> Played {
        let mut clients: BTreeMap<&'static str, NbdClient> = BTreeMap::new();
        let mut played = Played::default();
        for (number, step) in steps.iter().enumerate() {
            match self.step(bench, &mut clients, step) {
                Ok(()) => {}
                Err(NbdError::Refused(error)) => played.refused.push((number, error)),
                Err(NbdError::Gone(_)) => {
                    played.gone = true;
                    break;
                }
            }
        }
        played
    }

    fn step(
        &mut self,
        bench: &Bench,
        clients: &mut BTreeMap<&'static str, NbdClient>,
        step: &Step,
    ) -> Result<(), NbdError> {
        match step {
            Step::Create(vm, bytes) => {
                self.vms.insert(vm, None);
                let disk = disk_of(vm);
                self.disks.insert(disk, Disk::new(*bytes));
                ask(bench, &["vm", "create", vm, "--disk", &bytes.to_string()])?;
                self.vms.insert(vm, Some(true));
            }
            Step::Delete(vm) => {
                // A disk in use is not deleted, and the server sees a client's end a little later.
                clients.remove(disk_of(vm));
                self.vms.insert(vm, None);
                ask(bench, &["vm", "delete", vm, "--now", "--yes"])?;
                self.vms.insert(vm, Some(false));
            }
            Step::Snapshot => {
                self.vms.insert(script::SNAPSHOT, None);
                let now = self.disks[script::MAIN].clone();
                self.disks.insert(script::SNAPSHOT_DISK, now);
                ask(bench, &["vm", "snapshot", "web01", "--name", "kept"])?;
                self.vms.insert(script::SNAPSHOT, Some(true));
            }
            Step::DeleteSnapshot => {
                self.vms.insert(script::SNAPSHOT, None);
                ask(bench, &["snapshot", "delete", script::SNAPSHOT, "--now", "--yes"])?;
                self.vms.insert(script::SNAPSHOT, Some(false));
            }
            Step::Verify => ask(bench, &["verify"])?,
            Step::Replace => replace(bench)?,
            Step::Replaced => replaced(bench)?,
            Step::Rebuilt => rebuilt(bench)?,
            Step::Clean => ask(bench, &["clean", "--garbage", "0"])?,
            Step::Flush => client(bench, clients, script::MAIN)?.flush()?,
            Step::Change(export, change) => {
                let done = client(bench, clients, export).and_then(|client| send(client, change));
                let disk = self.disks.get_mut(export).unwrap();
                disk.apply(change, if done.is_ok() { Outcome::Done } else { Outcome::Maybe });
                let vm = export.split('/').next().unwrap();
                match done {
                    // Its VM is still to be made: there is no export yet.
                    Err(NbdError::Refused(reply)) if reply >= REPLY_ERROR && self.vms[vm].is_none() => {
                        return Err(NbdError::Refused(ETIMEDOUT));
                    }
                    done => done?,
                }
            }
        }
        Ok(())
    }

    /// Restarts the site without injection and judges it; kills it, and judges once more.
    pub(crate) fn survives(&mut self, bench: &Bench, io: &'static str, case: &str) {
        for round in 0..2_u64 {
            let start = Instant::now();
            let mut server = How::plain(io).spawn(bench);
            if let Err(status) = server.wait_serving() {
                panic!("{case}: it does not start again ({status}):\n{}", server.log());
            }
            let took = start.elapsed();
            assert!(took <= RECOVERY_MAX, "{case}: recovery took {took:?}:\n{}", server.log());
            if let Err(wrong) = self.judge(bench, true) {
                panic!("{case}: start {round} after it: {wrong}\n{}", server.log());
            }
            let step = Step::Change(
                script::MAIN,
                Change::Write { offset: PROBE_AT, data: script::value(90 + round, 4096) },
            );
            let played = self.play(bench, &[step]);
            assert!(!played.gone && played.refused.is_empty(), "{case}: {played:?}\n{}", server.log());
            server.kill();
        }
    }

    /// Compares VMs, and every byte of every disk, with what must be there. With `settle`, what is found must stay.
    pub(crate) fn judge(&mut self, bench: &Bench, settle: bool) -> Result<(), String> {
        let list = bench.json(&["vm", "list"]).json();
        let vms = list["items"].as_array().unwrap().iter().filter_map(|vm| vm["name"].as_str());
        let list = bench.json(&["snapshot", "list"]).json();
        let snapshots = list["items"].as_array().unwrap().iter();
        let snapshots: Vec<String> = snapshots
            .map(|one| format!("{}@{}", one["vm"].as_str().unwrap(), one["name"].as_str().unwrap()))
            .collect();
        let there: Vec<&str> = vms.chain(snapshots.iter().map(String::as_str)).collect();
        for (vm, must) in &mut self.vms {
            let is = there.contains(vm);
            if must.is_some_and(|must| must != is) {
                return Err(format!("VM {vm}: listed {is}"));
            }
            if settle {
                *must = Some(is);
            }
        }
        if let Some(vm) = there.iter().find(|vm| !self.vms.contains_key(**vm)) {
            return Err(format!("VM {vm} was never made"));
        }
        for (export, disk) in &mut self.disks {
            let vm = export.split('/').next().unwrap();
            if !there.contains(&vm) {
                continue;
            }
            let mut client = match NbdClient::connect(&bench.dir().join("nbd.sock"), export) {
                Ok(client) => client,
                // A deletion that waits for room keeps its disks closed.
                Err(NbdError::Refused(_)) if !settle && self.vms[vm].is_none() => continue,
                Err(error) => return Err(format!("{export}: it cannot be opened: {error:?}")),
            };
            if client.size() != disk.size() {
                return Err(format!("{export}: {} bytes", client.size()));
            }
            for offset in (0..disk.size()).step_by(PIECE as usize) {
                let length = PIECE.min(disk.size() - offset) as u32;
                let read = client.read(offset, length).map_err(|error| format!("{export}: {error:?}"))?;
                disk.judge(offset, &read, settle).map_err(|wrong| format!("{export}: {wrong}"))?;
            }
        }
        Ok(())
    }
}

fn disk_of(vm: &str) -> &'static str {
    match vm {
        script::NEW => script::NEW_DISK,
        script::OLD => script::OLD_DISK,
        _ => script::MAIN,
    }
}

/// A command that the server may not live to answer.
fn replace(bench: &Bench) -> Result<(), NbdError> {
    let new = bench.dir().join("media").join(script::NEW_MEDIUM);
    let new = new.to_str().unwrap();
    ask(bench, &["media", "replace", script::OLD_MEDIUM, new, "--file", "16M", "--yes"])
}

/// Waits until the old medium has left and the new one is there.
fn replaced(bench: &Bench) -> Result<(), NbdError> {
    let begun = Instant::now();
    loop {
        let media = bench.json(&["media", "list"]).json();
        let media = media["items"].as_array().unwrap();
        let find = |name: &str| media.iter().find(|one| one["path"].as_str().unwrap().ends_with(name));
        match (find(script::OLD_MEDIUM), find(script::NEW_MEDIUM)) {
            (None, Some(_)) if media.len() == script::MEDIA => return Ok(()),
            (Some(old), _) if old["leaving"] == true => {
                assert!(begun.elapsed() < REPLACED_MAX, "it does not leave: {media:?}");
                std::thread::sleep(REPLACED_LOOK);
            }
            (Some(_), Some(_)) => {
                // It may just have left.
                let ran = bench.json(&["media", "drain", script::OLD_MEDIUM, "--yes"]);
                assert!(ran.code == 0 || ran.error()["code"] == "medium_not_found", "{ran:?}");
            }
            (Some(_), None) => {
                // A file that was made and never taken in is in the way, and is the administrator's.
                let _ = std::fs::remove_file(bench.dir().join("media").join(script::NEW_MEDIUM));
                replace(bench)?;
            }
            _ => panic!("media are missing: {media:?}"),
        }
    }
}

/// Waits until as many media may be lost as before one was.
fn rebuilt(bench: &Bench) -> Result<(), NbdError> {
    let begun = Instant::now();
    loop {
        let status = answer(bench, &["status"])?;
        if status["can_lose_now"] == script::CAN_LOSE && media_in(&status, "down") == [script::OLD_MEDIUM] {
            return Ok(());
        }
        assert!(begun.elapsed() < REPLACED_MAX, "it is not rebuilt: {status:?}");
        std::thread::sleep(REPLACED_LOOK);
    }
}

fn ask(bench: &Bench, arguments: &[&str]) -> Result<(), NbdError> {
    answer(bench, arguments).map(|_| ())
}

fn answer(bench: &Bench, arguments: &[&str]) -> Result<Value, NbdError> {
    let ran = bench.json(&[&["--timeout", ANSWER_WITHIN], arguments].concat());
    if ran.code == 0 {
        return Ok(serde_json::from_str(&ran.stdout).unwrap_or(Value::Null));
    }
    // Before the error there may be how far a task was.
    let last = ran.stderr.lines().last().unwrap_or_default();
    let error: Value =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ran:?}"));
    match error["code"].as_str().unwrap() {
        // These say that nobody answered.
        "not_running" | "protocol" => Err(NbdError::Gone(std::io::Error::other(error.to_string()))),
        "no_space" => Err(NbdError::Refused(ENOSPC)),
        "closing" | "too_few_media" => Err(NbdError::Refused(EIO)),
        // What waits for room may happen later.
        "timeout" => Err(NbdError::Refused(ETIMEDOUT)),
        other => panic!("{arguments:?}: {other}: {error}"),
    }
}

fn client<'a>(
    bench: &Bench,
    clients: &'a mut BTreeMap<&'static str, NbdClient>,
    export: &'static str,
) -> Result<&'a mut NbdClient, NbdError> {
    if !clients.contains_key(export) {
        clients.insert(export, NbdClient::connect(&bench.dir().join("nbd.sock"), export)?);
    }
    Ok(clients.get_mut(export).unwrap())
}

fn send(client: &mut NbdClient, change: &Change) -> Result<(), NbdError> {
    match change {
        Change::Write { offset, data } => client.write(*offset, data),
        Change::Trim { offset, length } => client.trim(*offset, *length as u32),
        Change::Zero { offset, length } => client.write_zeroes(*offset, *length as u32),
    }
}
