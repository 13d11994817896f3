//! `cargo x guest`: libvirt runs a guest on Holdfast, from the lines that `disk attach-info` prints.
//!
//! The guest has Debian on its first disk, xfs on the second and ext4 on the third, all of one site. Files are written
//! to both file systems, each reported once `fsync` returned, while other files come and go. The server is killed with
//! SIGKILL in the middle, and the guest loses its power. Both start again from the same lines: both file systems replay
//! their journals, every reported file is there with its checksum, and `xfs_repair -n` and `e2fsck -fn` find nothing
//! wrong. At the end a site is started, killed and stopped by the guest's systemd, from the unit in `packaging`.
//!
//! What it does not do: it never touches a libvirt that runs on the machine; see `libvirt`.

mod libvirt;
mod story;
mod unit;

use crate::lab::{self, Options, Profile, Progress};
use crate::{Result, setup, tree};

/// `cargo x guest`.
pub(crate) fn command(arguments: &[String]) -> Result {
    let options = Options::parse(arguments)?;
    setup::guest_packages()?;
    let mut progress = Progress::new();
    let [image] = lab::images(["base"], &mut progress)?;
    let home = tree::target().join("guest");
    options
        .play(&home, Profile::Debug, &mut progress, |stage, progress| story::tell(stage, &image, progress))?;
    println!("guest: both file systems kept what they promised ({})", progress.passed());
    Ok(())
}
