//! `cargo x bench`: builds the product and the benchmark in release, and becomes the benchmark.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::process::{Show, run};
use crate::{Result, failed, setup, tree};

const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// `cargo x bench`; all arguments are the benchmark's own.
pub(crate) fn command(arguments: &[String]) -> Result {
    setup::bench_packages()?;
    println!("building holdfast and the benchmark (release)");
    let mut build = tree::cargo();
    build.args(["build", "--release", "--locked", "--quiet", "--package", "holdfast", "--package", "bench"]);
    if !run(&mut build, Show::Live, BUILD_LIMIT)?.success {
        return Err(failed("the release build failed"));
    }
    let programs = tree::target().join("release");
    let mut bench = Command::new(programs.join("holdfast-bench"));
    bench.arg("run").arg("--dir").arg(tree::target().join("bench"));
    bench.arg("--holdfast").arg(programs.join("holdfast")).arg("--commit").arg(measured());
    // In our place, so that Ctrl-C reaches it alone and its exit code is ours.
    Err(failed(format!("holdfast-bench: {}", bench.args(arguments).exec())))
}

/// The commit that is built, and whether the tree differs from it.
fn measured() -> String {
    let Some(commit) = tree::commit() else { return "unknown".to_owned() };
    let mut status = Command::new("git");
    status.args(["status", "--porcelain", "--untracked-files=no"]).current_dir(tree::root());
    let changed = status.output().map_or(true, |output| !output.stdout.is_empty());
    format!("{}{}", &commit[..8], if changed { " with changes" } else { "" })
}
