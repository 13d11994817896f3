//! `cargo x demo`: Debian virtual machines live on Holdfast through everything that may go wrong.
//!
//! The story: three machines with much in common are imported, and what dedup saved is shown, beside restic where it is
//! installed. One of them boots, writes files and says the checksum of each once `fsync` of it returned; the server is
//! killed with SIGKILL in the middle; it starts again, the guest boots again, and every file it had reported is
//! compared. Then one medium is taken away, another damaged, and all is compared again. At the end the disk is copied
//! out and checked by `e2fsck`, and the disks of the machines that never ran are compared with their images.
//!
//! What the guest reported before the kill is the promise; the checksums are kept outside the guest.

mod cluster;
mod damage;
mod machine;
mod restic;
mod story;

use crate::lab::{self, Options, Profile, Progress};
use crate::{Result, setup, tree};

/// `cargo x demo`.
pub(crate) fn command(arguments: &[String]) -> Result {
    if arguments.iter().any(|argument| argument == cluster::OPTION) {
        return cluster::command(arguments);
    }
    let options = Options::parse(arguments)?;
    setup::packages()?;
    let mut progress = Progress::new();
    let images = lab::images(["base", "web", "db"], &mut progress)?;
    let home = tree::target().join("demo");
    options.play(&home, Profile::Release, &mut progress, |stage, progress| {
        story::tell(stage, &images, progress)
    })?;
    println!("demo: every byte was there ({})", progress.passed());
    Ok(())
}
