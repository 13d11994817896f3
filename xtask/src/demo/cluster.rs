//! `cargo x demo --cluster`: a Debian virtual machine runs on a site of many nodes while they fail one by one.
//!
//! The site: three members of etcd, a manager, three data nodes with two media each and two compute nodes, every one in
//! a network namespace of its own. The guest's disk comes through the socket of the second compute node. While the guest
//! writes files and says the checksum of each once `fsync` of it returned, nodes are killed with SIGKILL, one is cut off,
//! one joins, and a medium is drained. For each event the longest pause that the guest saw is printed. At the end the
//! kernel of the guest must have met no error, `verify` must find nothing lost, and a guest on the other compute node
//! must find every file that was promised.
//!
//! Processes and namespaces end with this command however it ends, and the site's folder is swept after it.

mod network;
mod nodes;
mod pulse;
mod story;
mod sweep;

use crate::lab::{self, Options, Profile, Progress};
use crate::{Result, setup, tree};

/// The option that asks for this demo.
pub(super) const OPTION: &str = "--cluster";

/// `cargo x demo --cluster`.
pub(super) fn command(arguments: &[String]) -> Result {
    let arguments: Vec<String> = network::apart(arguments)?;
    let others: Vec<String> = arguments.into_iter().filter(|argument| argument != OPTION).collect();
    let options = Options::parse(&others)?;
    setup::packages()?;
    let mut progress = Progress::new();
    let [image] = lab::images(["base"], &mut progress)?;
    let home = tree::target().join("demo-cluster");
    let _sweeper = if options.keeps() { None } else { Some(sweep::Sweeper::new(&home.join("site"))?) };
    options.play(&home, Profile::Release, &mut progress, |stage, progress| {
        story::tell(stage, &image, progress)
    })?;
    println!("demo: every promised file was there ({})", progress.passed());
    Ok(())
}
