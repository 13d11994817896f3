//! A run: which targets and cases, in which order, and what came of each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::data::{Generator, mix};
use crate::images::Folder;
use crate::load::{CASES, Case, Disk, FILL, Outcome, SWEEP, Span};
use crate::process::own_cpu;
use crate::report::{CaseResult, Results, SettingsTold, TargetResult};
use crate::targets::{Running, TARGETS, Target};
use crate::{Failure, import, machine, report, stop};

/// Seconds of a case, and how long a target may take to come to rest after it.
const SECONDS: u64 = 8;
const SETTLE: Duration = Duration::from_secs(10);
const QUICK_SECONDS: u64 = 2;
const QUICK_SETTLE: Duration = Duration::from_secs(3);
const SIZE: u64 = 2 << 30;
const QUICK_SIZE: u64 = 512 << 20;
/// Headers and maps, as a share of the disk.
const BESIDE: f64 = 0.04;
/// Least and largest share that a disk can fill.
const FULL_MIN: f64 = 0.01;
const FULL_MAX: f64 = 0.9;
/// Room that all targets and their logs may take, in sizes of the disk.
const ROOM: u64 = 10;

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Cases of 2 s on disks of 512 MiB
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seconds of a case [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: Option<u64>,
    /// Size of the disks: 512M, 2G [default: 2G]
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// How often every case runs on every target; the order of the targets rotates
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// Only these targets [default: all but ram]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = target)]
    pub(crate) targets: Vec<Target>,
    /// Only these cases; `import` is one
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = case)]
    pub(crate) cases: Vec<Chosen>,
    /// Folder of three raw images, *.img, to import, such as tools/vm-images.sh makes [default: made ones]
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Number that all data and places follow from
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// Share of each block that is zeros
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = share)]
    pub(crate) compressible: f64,
    /// Share of the blocks that repeat others
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of Holdfast's media that the disk fills, so that the cleaner works as it is overwritten [default: little]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) full: Option<f64>,
    /// Compare what reads give in the timed cases too
    #[arg(long)]
    pub(crate) verify: bool,
    /// Folder for the targets' files and the results
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// The holdfast program
    #[arg(long, value_name = "PATH", default_value = "target/release/holdfast")]
    pub(crate) holdfast: PathBuf,
    /// The commit that is measured, for the results
    #[arg(long, value_name = "HASH", default_value = "unknown")]
    pub(crate) commit: String,
}

impl Settings {
    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { QUICK_SECONDS } else { SECONDS })
    }

    fn size(&self) -> u64 {
        self.size.unwrap_or(if self.quick { QUICK_SIZE } else { SIZE })
    }

    fn settle(&self) -> Duration {
        if self.quick { QUICK_SETTLE } else { SETTLE }
    }

    fn targets(&self) -> Vec<Target> {
        if self.targets.is_empty() {
            TARGETS.iter().filter(|target| target.usual).copied().collect()
        } else {
            self.targets.clone()
        }
    }

    fn cases(&self) -> Vec<Case> {
        if self.cases.is_empty() {
            return CASES.to_vec();
        }
        let loads = self.cases.iter().filter_map(|chosen| match chosen {
            Chosen::Load(case) => Some(*case),
            Chosen::Import => None,
        });
        loads.collect()
    }

    fn imports(&self) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|chosen| matches!(chosen, Chosen::Import))
    }

    /// Bytes that are to fit on Holdfast's media: the disk with its headers and maps fills the share of them.
    fn room(&self) -> Option<u64> {
        let share = self.full?.clamp(FULL_MIN, FULL_MAX);
        let unique = self.size() as f64 * (1.0 - self.compressible) * (1.0 - self.duplicates);
        Some(((unique + self.size() as f64 * BESIDE) / share) as u64)
    }

    fn told(&self) -> SettingsTold {
        SettingsTold {
            seconds: self.seconds(),
            size_mib: self.size() >> 20,
            rounds: self.rounds,
            seed: self.seed,
            compressible: self.compressible,
            duplicates: self.duplicates,
            full: self.full,
            verified_in_cases: self.verify,
        }
    }
}

/// A size as it is typed: a number with K, M, G or T, or none of them.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(number) if text.ends_with('K') => (number, 10),
        Some(number) if text.ends_with('M') => (number, 20),
        Some(number) if text.ends_with('G') => (number, 30),
        Some(number) => (number, 40),
        None => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (64 << 20..=1 << 40).contains(&bytes) && bytes % (1 << 20) == 0 => Ok(bytes),
        _ => Err("a whole number of MiB from 64M to 1T".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 1".to_owned()),
    }
}

/// A case as it is named on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chosen {
    Load(Case),
    /// Images into Holdfast and into backup programs.
    Import,
}

const IMPORT: &str = "import";

fn target(name: &str) -> Result<Target, String> {
    let found = TARGETS.iter().find(|target| target.name == name).copied();
    found.ok_or_else(|| one_of(TARGETS.iter().map(|target| target.name)))
}

fn case(name: &str) -> Result<Chosen, String> {
    if name == IMPORT {
        return Ok(Chosen::Import);
    }
    let found = CASES.iter().find(|case| case.name == name).copied();
    found.map(Chosen::Load).ok_or_else(|| one_of(CASES.iter().map(|case| case.name).chain([IMPORT])))
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", names.collect::<Vec<_>>().join(", "))
}

/// A target in a run.
struct Entry {
    target: Target,
    result: TargetResult,
    /// None once it failed.
    live: Option<(Running, Disk)>,
}

/// Runs everything and writes the results.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let dir = std::path::absolute(&settings.dir)?;
    std::fs::create_dir_all(&dir).map_err(|error| Failure::at(&dir, &error))?;
    remove_stale(&dir);
    let home = Folder::new(&dir.join(format!("work-{}", std::process::id())))?;
    enough_room(&dir, settings.size() * ROOM)?;
    let mut machine = machine::Machine::look(&dir);
    let date = machine::date();
    let began = Instant::now();
    let cases = settings.cases();
    let targets = if cases.is_empty() { Vec::new() } else { loads(settings, &cases, home.path())? };
    let imported = if settings.imports() { imports(settings, home.path()).map(Some) } else { Ok(None) };
    // A signal here does not cost what was measured before.
    let (imports, outcome) = match imported {
        Ok(imports) => (imports, Ok(())),
        Err(why) => (None, Err(why)),
    };
    drop(home);
    machine.load_after = machine::load();
    let results = Results {
        date: date.clone(),
        commit: settings.commit.clone(),
        machine,
        settings: settings.told(),
        seconds_in_all: began.elapsed().as_secs(),
        targets,
        imports,
    };
    println!("{}", report::markdown(&results));
    let path = dir.join(format!("RESULT-{date}.json"));
    let text = serde_json::to_string_pretty(&results).map_err(|error| Failure::failed(error.to_string()))?;
    std::fs::write(&path, text).map_err(|error| Failure::at(&path, &error))?;
    eprintln!("results: {}", path.display());
    outcome?;
    match results.failed() {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Failure::failed(format!("failed: {}", failed.join(", ")))),
    }
}

fn imports(settings: &Settings, home: &Path) -> Result<import::Imports, Failure> {
    let holdfast = std::path::absolute(&settings.holdfast)?;
    import::imports(home, &holdfast, settings.images.as_deref(), settings.quick, settings.seed)
}

/// Every case on every target, in turns.
fn loads(settings: &Settings, cases: &[Case], home: &Path) -> Result<Vec<TargetResult>, Failure> {
    let generator = Generator::new(settings.seed, settings.compressible, settings.duplicates);
    let mut entries = start(settings, home)?;
    each(&mut entries, |entry| fill(entry, settings, &generator))?;
    for round in 0..settings.rounds {
        for (number, case) in cases.iter().enumerate() {
            let turn = (round as usize + number) % entries.len();
            entries.rotate_left(turn);
            let measured = each(&mut entries, |entry| measure(entry, case, round, settings, &generator));
            entries.rotate_right(turn);
            measured?;
        }
    }
    each(&mut entries, |entry| sweep(entry, settings, &generator))?;
    Ok(entries.into_iter().map(|entry| entry.result).collect())
}

/// Removes what killed runs left.
fn remove_stale(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix("work-")).map(str::to_owned);
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn enough_room(dir: &Path, wanted: u64) -> Result<(), Failure> {
    let found = rustix::fs::statvfs(dir).map_err(|error| Failure::at(dir, &error.into()))?;
    let free = found.f_bavail * found.f_frsize;
    if free >= wanted {
        return Ok(());
    }
    let (free, wanted) = (free >> 20, wanted >> 20);
    Err(Failure::failed(format!(
        "{}: {free} MiB free, {wanted} MiB wanted: a smaller --size needs less",
        dir.display()
    )))
}

/// Starts the targets, one after another, and looks at each at rest.
fn start(settings: &Settings, home: &Path) -> Result<Vec<Entry>, Failure> {
    let holdfast = std::path::absolute(&settings.holdfast)?;
    let mut entries = Vec::new();
    for target in settings.targets() {
        stop::check()?;
        eprintln!("starting {}", target.name);
        let mut entry = Entry { target, result: TargetResult::new(&target), live: None };
        match target.start(&home.join(target.name), settings.size(), settings.room(), &holdfast) {
            Ok(running) => {
                running.server.settle(settings.settle())?;
                entry.result.idle_rss_mib = running.server.resident() >> 20;
                entry.result.note.clone_from(&running.note);
                let disk = Disk::new(&running.socket, &running.export, settings.size());
                entry.live = Some((running, disk));
            }
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            Err(Failure::Failed(why)) => entry.fail(&format!("did not start: {why}")),
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl Entry {
    fn fail(&mut self, why: &str) {
        eprintln!("{}: {why}", self.target.name);
        self.result.failure = Some(why.to_owned());
        self.live = None;
    }
}

/// Runs a step on every target that lives; one that fails is out.
fn each(
    entries: &mut [Entry],
    mut step: impl FnMut(&mut Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for entry in entries.iter_mut().filter(|entry| entry.live.is_some()) {
        match step(entry) {
            Ok(()) => {}
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            Err(Failure::Failed(mut why)) => {
                if let Some(said) = entry.live.as_mut().and_then(|(running, _)| running.server.death()) {
                    why = format!("{why}; {said}");
                }
                entry.fail(&why);
            }
        }
    }
    Ok(())
}

fn fill(entry: &mut Entry, settings: &Settings, generator: &Generator) -> Result<(), Failure> {
    let Some((running, disk)) = &mut entry.live else { return Ok(()) };
    eprintln!("filling {}", entry.target.name);
    let outcome = disk.run(&FILL, Span::Once, generator, settings.seed, false)?;
    running.server.settle(settings.settle())?;
    entry.result.used.extend(running.used()?);
    entry.result.fill_mib_s = outcome.bytes as f64 / outcome.took.as_secs_f64() / f64::from(1 << 20);
    Ok(())
}

fn measure(
    entry: &mut Entry,
    case: &Case,
    round: u64,
    settings: &Settings,
    generator: &Generator,
) -> Result<(), Failure> {
    let Some((running, disk)) = &mut entry.live else { return Ok(()) };
    let (server, client) = (running.server.cpu(), own_cpu());
    let begun = Instant::now();
    let span = Span::Time(Duration::from_secs(settings.seconds()));
    let seed = mix(settings.seed ^ mix(round));
    let check = settings.verify && entry.target.keeps_data;
    let outcome = disk.run(case, span, generator, seed, check)?;
    let (client, ran) = (own_cpu().saturating_sub(client), begun.elapsed());
    let settle = running.server.settle(settings.settle())?;
    let server = running.server.cpu().saturating_sub(server);
    let result = case_result(case, round, &outcome, server, client, ran, settle);
    eprintln!(
        "{:<14} {:<11} {:>8.0}/s  {:>7.1} MiB/s  mean {:>8.0} us  p99 {:>8.0} us",
        case.name,
        entry.target.name,
        result.iops,
        result.mib_s,
        result.latency.mean_us,
        result.latency.p99_us
    );
    entry.result.cases.push(result);
    Ok(())
}

fn case_result(
    case: &Case,
    round: u64,
    outcome: &Outcome,
    server: Duration,
    client: Duration,
    ran: Duration,
    settle: Duration,
) -> CaseResult {
    let seconds = outcome.took.as_secs_f64().max(f64::EPSILON);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.operations_in_all.max(1) as f64;
    CaseResult {
        case: case.name,
        round,
        seconds,
        operations: outcome.operations,
        iops: outcome.operations as f64 / seconds,
        mib_s: outcome.bytes as f64 / seconds / f64::from(1 << 20),
        latency: outcome.latencies.summary(),
        server_cpu_us: each(server),
        client_cpu_us: each(client),
        client_cores: client.as_secs_f64() / ran.as_secs_f64(),
        settle_s: settle.as_secs_f64(),
    }
}

/// Reads the whole disk and compares it.
fn sweep(entry: &mut Entry, settings: &Settings, generator: &Generator) -> Result<(), Failure> {
    let Some((running, disk)) = &mut entry.live else { return Ok(()) };
    entry.result.used.extend(running.used()?);
    if entry.target.keeps_data {
        eprintln!("verifying {}", entry.target.name);
        let outcome = disk.run(&SWEEP, Span::Once, generator, settings.seed, true)?;
        entry.result.verified_mib = outcome.bytes >> 20;
    }
    entry.result.end_rss_mib = running.server.resident() >> 20;
    // Its server ends and its files go: what follows has the machine for itself.
    entry.live = None;
    Ok(())
}
