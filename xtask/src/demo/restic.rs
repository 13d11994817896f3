//! The same images into restic, the backup program: what another tool with dedup makes of them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::lab::{Image, Stage, remove};
use crate::process::{must, on_path};
use crate::{Result, failed};

const LIMIT: Duration = Duration::from_secs(900);

/// What an import took.
pub(super) struct Figures {
    pub(super) took: Duration,
    pub(super) stored_bytes: u64,
}

/// Backs the images up, one after another, into a new repository that is removed again. `None` without restic.
pub(super) fn import(stage: &Stage, images: &[Image]) -> Result<Option<Figures>> {
    if !on_path("restic") {
        return Ok(None);
    }
    let repository = stage.logs.join("restic");
    let restic = || {
        let mut command = Command::new("restic");
        // Its cache would lie in the home folder. The password guards nothing: the repository goes in a moment.
        command.args(["--quiet", "--no-cache", "--repo"]).arg(&repository).env("RESTIC_PASSWORD", "demo");
        command
    };
    must(restic().arg("init"), LIMIT)?;
    let mut took = Duration::ZERO;
    for image in images {
        let mut backup = restic();
        backup.args(["backup", "--compression", "auto"]).arg(&image.disk);
        took += must(&mut backup, LIMIT)?.took;
    }
    let stored_bytes = bytes_in(&repository)?;
    remove(&repository)?;
    Ok(Some(Figures { took, stored_bytes }))
}

/// Bytes of all files below a folder.
fn bytes_in(directory: &Path) -> Result<u64> {
    let fail = |error: std::io::Error| failed(format!("{}: {error}", directory.display()));
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let metadata = entry.metadata().map_err(fail)?;
        sum += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}
