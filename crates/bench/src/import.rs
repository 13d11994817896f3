//! Images copied into Holdfast, and into backup programs: time, CPU, and what is stored.
//!
//! Each starts from images that are out of the page cache, and ends when all is stored durably. What Holdfast stores is
//! counted before parity; a backup program's is the size of its files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use serde::Serialize;

use crate::images::{self, Folder};
use crate::process::{bound, on_path, run};
use crate::{Failure, targets};

const MEDIA: &str = "6x16G";
const LIMIT: Duration = Duration::from_secs(1800);
/// How long Holdfast may go on after the last acknowledgement.
const SETTLE: Duration = Duration::from_secs(60);
/// Data of each made image.
const DATA: u64 = 700 << 20;
const QUICK_DATA: u64 = 96 << 20;
/// The repositories hold nothing but the benchmark's data.
const PASSWORD: &str = "benchmark";

/// What importing came to.
#[derive(Debug, Serialize)]
pub(crate) struct Imports {
    /// Where the images are from.
    pub(crate) images: String,
    /// Their length, and what of it is not a hole.
    pub(crate) apparent_mib: u64,
    pub(crate) data_mib: u64,
    pub(crate) programs: Vec<ImportResult>,
}

/// One program's import of all images.
#[derive(Debug, Serialize)]
pub(crate) struct ImportResult {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Until all is acknowledged and flushed.
    pub(crate) seconds: f64,
    /// How long it went on working after that.
    pub(crate) settle_s: f64,
    /// Of all its processes, until it rests.
    pub(crate) cpu_s: f64,
    pub(crate) stored_mib: u64,
    pub(crate) failure: Option<String>,
}

/// A way to import: in a new folder, gives seconds, seconds of settling, CPU seconds, bytes stored.
type Import = fn(&Path, &Path, &[PathBuf]) -> Result<Figures, Failure>;

struct Figures {
    took: Duration,
    settle: Duration,
    cpu: Duration,
    stored: u64,
}

const PROGRAMS: &[(&str, &str, Import)] = &[
    ("holdfast", "nbdcopy onto 6x16G, one disk after another; before parity", holdfast),
    ("restic", "restic backup, compression auto", restic),
    ("borg", "borg create, lz4, repokey-blake2", borg),
];

/// Imports the images of `dir`, or made ones, with every program in turn.
pub(crate) fn imports(
    home: &Path,
    program: &Path,
    dir: Option<&Path>,
    quick: bool,
    seed: u64,
) -> Result<Imports, Failure> {
    let folder = Folder::new(&home.join("images"))?;
    let (images, told) = match dir {
        Some(dir) => (images::find(dir)?, format!("images of {}", dir.display())),
        None => {
            eprintln!("making images");
            let data = if quick { QUICK_DATA } else { DATA };
            (images::make(folder.path(), data, seed)?, "made images, not real ones".to_owned())
        }
    };
    let (mut apparent, mut data) = (0, 0);
    for image in &images {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(image).map_err(|error| Failure::at(image, &error))?;
        apparent += meta.len();
        data += meta.blocks() * 512;
    }
    let mut programs = Vec::new();
    for (name, about, import) in PROGRAMS {
        eprintln!("importing with {name}");
        evict(&images)?;
        let work = Folder::new(&home.join(format!("import-{name}")))?;
        let mut result = ImportResult {
            name,
            about,
            seconds: 0.0,
            settle_s: 0.0,
            cpu_s: 0.0,
            stored_mib: 0,
            failure: None,
        };
        match import(work.path(), program, &images) {
            Ok(figures) => {
                result.seconds = figures.took.as_secs_f64();
                result.settle_s = figures.settle.as_secs_f64();
                result.cpu_s = figures.cpu.as_secs_f64();
                result.stored_mib = figures.stored >> 20;
            }
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            Err(Failure::Failed(why)) => {
                eprintln!("{name}: {why}");
                result.failure = Some(why);
            }
        }
        programs.push(result);
    }
    Ok(Imports { images: told, apparent_mib: apparent >> 20, data_mib: data >> 20, programs })
}

/// Puts the images out of the page cache, so that each program reads them from the disk.
fn evict(images: &[PathBuf]) -> Result<(), Failure> {
    for image in images {
        let evicted = std::fs::File::open(image).and_then(|file| {
            file.sync_all()?;
            Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
        });
        evicted.map_err(|error| Failure::at(image, &error))?;
    }
    Ok(())
}

fn wanted(program: &str) -> Result<(), Failure> {
    if on_path(program) { Ok(()) } else { Err(Failure::failed(format!("{program} is not installed"))) }
}

fn holdfast(home: &Path, program: &Path, images: &[PathBuf]) -> Result<Figures, Failure> {
    wanted("nbdcopy")?;
    let server = targets::start_site(home, program, MEDIA)?;
    let before = server.cpu();
    let start = Instant::now();
    let mut cpu = Duration::ZERO;
    for (number, image) in images.iter().enumerate() {
        let length = std::fs::metadata(image).map_err(|error| Failure::at(image, &error))?.len();
        let name = format!("image{number}");
        targets::create_vm(home, program, &name, length)?;
        let mut copy = bound("nbdcopy");
        copy.args(["--flush", "--destination-is-zero"]).arg(image);
        copy.arg(format!("nbd+unix:///{name}/disk0?socket={}", home.join("site/nbd.sock").display()));
        cpu += run(copy, &home.join("copy.log"), LIMIT)?.cpu;
    }
    let took = start.elapsed();
    let settle = server.settle(SETTLE)?;
    cpu += server.cpu().saturating_sub(before);
    let mut status = bound(program);
    status.arg("--site").arg(home.join("site")).args(["-o", "json", "status"]);
    let said = run(status, &home.join("status.log"), LIMIT)?.output;
    let stored = stored_bytes(&said).ok_or_else(|| Failure::failed(format!("status says {said}")))?;
    Ok(Figures { took, settle, cpu, stored })
}

fn stored_bytes(status: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(status).ok()?.get("stored_bytes")?.as_u64()
}

fn restic(home: &Path, _: &Path, images: &[PathBuf]) -> Result<Figures, Failure> {
    wanted("restic")?;
    let repository = home.join("repository");
    let restic = |arguments: &[&str]| {
        let mut command = bound("restic");
        command.env("RESTIC_PASSWORD", PASSWORD).args(["--no-cache", "--quiet", "--repo"]);
        command.arg(&repository).args(arguments);
        command
    };
    run(restic(&["init"]), &home.join("init.log"), LIMIT)?;
    let mut backup = restic(&["backup", "--compression", "auto"]);
    backup.args(images);
    measured(backup, home, &repository)
}

fn borg(home: &Path, _: &Path, images: &[PathBuf]) -> Result<Figures, Failure> {
    wanted("borg")?;
    let repository = home.join("repository");
    let borg = |arguments: &[&str]| {
        let mut command = bound("borg");
        command.env("BORG_PASSPHRASE", PASSWORD).env("BORG_BASE_DIR", home.join("base")).args(arguments);
        command
    };
    let mut init = borg(&["init", "--encryption", "repokey-blake2"]);
    init.arg(&repository);
    run(init, &home.join("init.log"), LIMIT)?;
    let mut create = borg(&["create", "--compression", "lz4"]);
    create.arg(format!("{}::images", repository.display())).args(images);
    measured(create, home, &repository)
}

/// Runs a backup and brings its files to the disk.
fn measured(command: Command, home: &Path, repository: &Path) -> Result<Figures, Failure> {
    let start = Instant::now();
    let ran = run(command, &home.join("backup.log"), LIMIT)?;
    std::fs::File::open(repository).and_then(|folder| Ok(rustix::fs::syncfs(folder)?))?;
    let took = start.elapsed().max(ran.took);
    let stored = size_of(repository).map_err(|error| Failure::at(repository, &error))?;
    Ok(Figures { took, settle: Duration::ZERO, cpu: ran.cpu, stored })
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { size_of(&entry.path())? } else { meta.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_found_in_the_status() {
        let status = r#"{"health": "ok", "media": [], "raw_bytes": 9, "stored_bytes": 6}"#;
        assert_eq!(stored_bytes(status), Some(6));
        assert_eq!(stored_bytes("{}"), None);
        assert_eq!(stored_bytes("no json"), None);
    }

    #[test]
    fn sizes_add_up_over_folders() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("a/b")).unwrap();
        std::fs::write(home.path().join("a/b/one"), [0; 100]).unwrap();
        std::fs::write(home.path().join("two"), [0; 23]).unwrap();
        assert_eq!(size_of(home.path()).unwrap(), 123);
    }
}
