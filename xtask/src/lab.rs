//! What the commands with real virtual machines share: the images of their disks, a site, a console, and the files
//! that a guest was promised.

pub(crate) mod console;
pub(crate) mod promises;
pub(crate) mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{must, seconds};
use crate::{Failure, Result, failed, tree};

/// Installing Debian from a slow mirror.
const IMAGE_LIMIT: Duration = Duration::from_secs(1800);
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Where a run works and with what.
pub(crate) struct Stage {
    /// The program under test.
    pub(crate) binary: PathBuf,
    /// The site's folder: new in every run, removed after it unless kept.
    pub(crate) site: PathBuf,
    /// What server and guests said, and the site's recovery key: never in the site's own folder.
    pub(crate) logs: PathBuf,
}

/// A raw disk image with a Debian installation, and how to boot it. Kept between runs.
pub(crate) struct Image {
    pub(crate) disk: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// Options of a command with virtual machines.
#[derive(Debug, Default)]
pub(crate) struct Options {
    keep: bool,
    binary: Option<PathBuf>,
}

impl Options {
    /// `[--keep] [--binary PATH]`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match (argument.as_str(), options.binary.is_none()) {
                ("--keep", _) => options.keep = true,
                ("--binary", true) => {
                    let path =
                        rest.next().ok_or_else(|| Failure::Usage("--binary needs a path".to_owned()))?;
                    let path =
                        std::path::absolute(path).map_err(|error| failed(format!("{path}: {error}")))?;
                    options.binary = Some(path);
                }
                _ => return Err(Failure::Usage(format!("unexpected argument {argument:?}"))),
            }
        }
        Ok(options)
    }

    /// Whether folders stay when the run is over.
    pub(crate) fn keeps(&self) -> bool {
        self.keep
    }

    /// Plays `story` with new folders in `home`, removes them after it and says how it ended.
    pub(crate) fn play(
        self,
        home: &Path,
        profile: Profile,
        progress: &mut Progress,
        story: impl FnOnce(&Stage, &mut Progress) -> Result,
    ) -> Result {
        let binary = match self.binary {
            Some(binary) => binary,
            None => build(profile, progress)?,
        };
        let stage = Stage { binary, site: home.join("site"), logs: home.join("logs") };
        // The server makes its folder itself.
        remove(&stage.site)?;
        fresh(&stage.logs)?;
        let told = story(&stage, progress);
        if self.keep {
            println!("kept: the site in {}, logs in {}", stage.site.display(), stage.logs.display());
            // A site of many nodes needs its network.
            if stage.site.join("media").is_dir() {
                println!(
                    "serve it again:  {} standalone --dir {}",
                    stage.binary.display(),
                    stage.site.display()
                );
            }
        } else {
            remove(&stage.site)?;
        }
        match told {
            Ok(()) if self.keep => Ok(()),
            Ok(()) => remove(&stage.logs),
            Err(Failure::Failed(why)) => Err(failed(format!("{why}\nlogs: {}", stage.logs.display()))),
            Err(other) => Err(other),
        }
    }
}

/// How the program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With assertions: it notices more.
    Debug,
    /// As it is installed: its times mean something.
    Release,
}

/// Prints the steps with their times.
pub(crate) struct Progress {
    start: Instant,
    step: u32,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), step: 0 }
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, what: &str) {
        self.step += 1;
        println!("{:>9}  {}. {what}", self.passed(), self.step);
    }

    /// Something worth knowing within the step.
    pub(crate) fn note(&self, what: &str) {
        for line in what.lines() {
            println!("{:>9}     {line}", self.passed());
        }
    }

    /// The time since the start.
    pub(crate) fn passed(&self) -> String {
        seconds(self.start.elapsed())
    }
}

/// Disk images of virtual machines, made on first use and when the script that makes them changed.
pub(crate) fn images<const N: usize>(names: [&str; N], progress: &mut Progress) -> Result<[Image; N]> {
    let home = tree::target().join("images");
    progress.step(&format!("Debian disk images: {}", names.join(", ")));
    let images = names.map(|name| Image {
        disk: home.join(format!("{name}.img")),
        kernel: home.join(format!("{name}.vmlinuz")),
        initrd: home.join(format!("{name}.initrd")),
    });
    if images.iter().any(|image| !image.disk.is_file()) {
        progress.note("not all there yet: installing them with debootstrap and apt, one to two minutes");
    }
    must(Command::new(tree::root().join("tools/vm-images.sh")).arg(&home).args(names), IMAGE_LIMIT)?;
    progress.note(&format!("in {}", home.display()));
    Ok(images)
}

fn build(profile: Profile, progress: &mut Progress) -> Result<PathBuf> {
    progress.step("building holdfast");
    let mut command = tree::cargo();
    command.args(["build", "--locked", "--package", "holdfast"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    must(&mut command, BUILD_LIMIT)?;
    Ok(tree::target().join(folder).join("holdfast"))
}

/// Empties a folder, whatever an interrupted run left in it.
fn fresh(directory: &Path) -> Result {
    remove(directory)?;
    std::fs::create_dir_all(directory).map_err(|error| failed(format!("{}: {error}", directory.display())))
}

/// Removes a folder with all that is in it; one that is not there is no failure.
pub(crate) fn remove(directory: &Path) -> Result {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed(format!("{}: {error}", directory.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options> {
        Options::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_known_or_refused() {
        let both = options(&["--binary", "/x/holdfast", "--keep"]).expect("both are options");
        assert!(both.keep);
        assert_eq!(both.binary.as_deref(), Some(Path::new("/x/holdfast")));
        for bad in [&["--binary"][..], &["--binary", "a", "--binary", "b"], &["keep"]] {
            assert!(matches!(options(bad), Err(Failure::Usage(_))), "{bad:?}");
        }
    }
}
