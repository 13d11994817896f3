//! `cargo x demo`: a real Debian virtual machine lives on Holdfast through everything that may go wrong.
//!
//! The story: install the guest's disk, boot it, let it write files and say the checksum of each once `fsync` of it
//! returned; kill the server with SIGKILL in the middle; start it again, boot again, compare every file the guest had
//! reported. Then take one medium away, damage another, and compare again. At the end the disk is copied out and
//! checked by `e2fsck`, and by a comparison of the files that were part of the installation.
//!
//! What the guest reported before the kill is the promise; the checksums are kept outside the guest.

mod console;
mod damage;
mod guest;
mod site;
mod story;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{must, seconds};
use crate::{Failure, Result, failed, setup, tree};

/// Installing Debian from a slow mirror.
const IMAGE_LIMIT: Duration = Duration::from_secs(1800);
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Where the demo works and with what.
struct Stage {
    /// The guest's installation: a disk image with its kernel, kept between runs.
    image: Image,
    /// The program under demonstration.
    binary: PathBuf,
    /// The site's folder: new in every run, removed after it unless kept.
    site: PathBuf,
    /// What server and guests said, and the site's recovery key: never in the site's own folder.
    logs: PathBuf,
}

/// A disk image and how to boot it.
struct Image {
    disk: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

/// Prints the steps with their times.
struct Progress {
    start: Instant,
    step: u32,
}

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), step: 0 }
    }

    /// A new step begins.
    fn step(&mut self, what: &str) {
        self.step += 1;
        println!("{:>9}  {}. {what}", seconds(self.start.elapsed()), self.step);
    }

    /// Something worth knowing within the step.
    fn note(&self, what: &str) {
        for line in what.lines() {
            println!("{:>9}     {line}", seconds(self.start.elapsed()));
        }
    }
}

/// `cargo x demo`.
pub(crate) fn command(arguments: &[String]) -> Result {
    let mut keep = false;
    let mut binary = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), binary.is_none()) {
            ("--keep", _) => keep = true,
            ("--binary", true) => {
                let path = rest.next().ok_or_else(|| Failure::Usage("--binary needs a path".to_owned()))?;
                let path = std::path::absolute(path).map_err(|error| failed(format!("{path}: {error}")))?;
                binary = Some(path);
            }
            _ => return Err(Failure::Usage(format!("unexpected argument {argument:?}"))),
        }
    }
    setup::packages()?;
    let mut progress = Progress::new();
    let home = tree::target().join("demo");
    let stage = Stage {
        image: image(&home, &mut progress)?,
        binary: match binary {
            Some(binary) => binary,
            None => build(&mut progress)?,
        },
        site: home.join("site"),
        logs: home.join("logs"),
    };
    // The server makes its folder itself.
    remove(&stage.site)?;
    fresh(&stage.logs)?;
    let told = story::tell(&stage, &mut progress);
    if keep {
        println!("kept: the site in {}, logs in {}", stage.site.display(), stage.logs.display());
        println!("serve it again:  {} standalone --dir {}", stage.binary.display(), stage.site.display());
    } else {
        remove(&stage.site)?;
    }
    match told {
        Ok(()) => {
            println!("demo: every byte was there ({})", seconds(progress.start.elapsed()));
            if keep { Ok(()) } else { remove(&stage.logs) }
        }
        Err(Failure::Failed(why)) => Err(failed(format!("{why}\nlogs: {}", stage.logs.display()))),
        Err(other) => Err(other),
    }
}

/// The guest's disk image, made on first use and when the script that makes it changed.
fn image(home: &Path, progress: &mut Progress) -> Result<Image> {
    let image = Image {
        disk: home.join("base.img"),
        kernel: home.join("base.vmlinuz"),
        initrd: home.join("base.initrd"),
    };
    progress.step("the guest: a Debian disk image");
    if !image.disk.is_file() {
        progress.note("none yet: installing one with debootstrap, about a minute");
    }
    must(Command::new(tree::root().join("tools/vm-images.sh")).arg(home).arg("base"), IMAGE_LIMIT)?;
    progress.note(&image.disk.display().to_string());
    Ok(image)
}

fn build(progress: &mut Progress) -> Result<PathBuf> {
    progress.step("building holdfast");
    must(tree::cargo().args(["build", "--locked", "--package", "holdfast"]), BUILD_LIMIT)?;
    Ok(tree::target().join("debug/holdfast"))
}

/// Empties a folder of the demo, whatever an interrupted run left in it.
fn fresh(directory: &Path) -> Result {
    remove(directory)?;
    std::fs::create_dir_all(directory).map_err(|error| failed(format!("{}: {error}", directory.display())))
}

fn remove(directory: &Path) -> Result {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed(format!("{}: {error}", directory.display())))
        }
        _ => Ok(()),
    }
}
