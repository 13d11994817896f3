//! The scratch copy of the work tree that planted bugs are applied to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::plain_git;
use crate::process::{Show, run};
use crate::{Result, failed, tree};

const GIT_LIMIT: Duration = Duration::from_secs(60);

/// A copy of the work tree under the build directory, with a build directory of its own that is kept between runs.
pub(super) struct Scratch {
    tree: PathBuf,
    target: PathBuf,
    files: BTreeSet<String>,
}

impl Scratch {
    /// Makes the copy, or brings the one of an earlier run up to date.
    pub(super) fn make() -> Result<Self> {
        let home = tree::target().join("planted");
        let scratch = Self {
            tree: home.join("tree"),
            target: home.join("target"),
            files: tree::files()?.into_iter().collect(),
        };
        std::fs::create_dir_all(&scratch.tree)
            .map_err(|error| failed(format!("{}: {error}", home.display())))?;
        scratch.restore()?;
        Ok(scratch)
    }

    /// Makes the copy equal to the work tree. Only files that differ are touched, so builds stay incremental.
    pub(super) fn restore(&self) -> Result {
        for path in &self.files {
            copy_if_different(&tree::root().join(path), &self.tree.join(path))
                .map_err(|error| failed(format!("{path}: {error}")))?;
        }
        let mut there = Vec::new();
        list(&self.tree, &self.tree, &mut there).map_err(|error| failed(format!("scratch copy: {error}")))?;
        for path in there.iter().filter(|path| !self.files.contains(*path)) {
            std::fs::remove_file(self.tree.join(path)).map_err(|error| failed(format!("{path}: {error}")))?;
        }
        Ok(())
    }

    /// Applies a patch; the inner result says why it does not apply.
    pub(super) fn apply(&self, patch: &Path) -> Result<std::result::Result<(), String>> {
        let outcome = run(plain_git(&self.tree).arg("apply").arg(patch), Show::Quiet, GIT_LIMIT)?;
        Ok(if outcome.success { Ok(()) } else { Err(outcome.output) })
    }

    /// cargo in the copy.
    pub(super) fn cargo(&self, arguments: &[String]) -> Command {
        let mut command = tree::cargo();
        command.current_dir(&self.tree).args(arguments).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

fn copy_if_different(from: &Path, to: &Path) -> std::io::Result<()> {
    let wanted = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to)?;
    Ok(())
}

fn list(top: &Path, directory: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(top, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(top) {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
