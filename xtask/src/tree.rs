//! Where things are: the repository, its build directory, its files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::on_path;
use crate::{Result, failed};

/// The compiler as clippy has it.
pub(crate) const CLIPPY_DRIVER: &str = "clippy-driver";

/// The repository's top folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the repository").to_path_buf()
}

/// Cargo's build directory.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Where tools are kept that are made once for all work trees: a build directory made anew has not to wait for them.
/// In the build directory where there is no such place. `crates/holdfast/tests` look in both.
pub(crate) fn tools() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
    let shared = cache.map(|cache| cache.join("holdfast-tools"));
    let usable = shared.filter(|tools| std::fs::create_dir_all(tools).is_ok());
    usable.unwrap_or_else(|| target().join("tools"))
}

/// `cargo`, run in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set by the `cargo run` that started us; the inner cargo must see the developer's environment.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_MANIFEST_PATH"] {
        command.env_remove(name);
    }
    command
}

/// `cargo` for builds that tests run: clippy looks on while it compiles, so that check and test build once.
///
/// Clippy's driver is the compiler with more lints; what they find is a warning, which cargo shows with every build of the
/// same code, and which `cargo x check` does not let pass.
pub(crate) fn linted_cargo() -> Command {
    let mut command = cargo();
    if on_path(CLIPPY_DRIVER) {
        command.env("RUSTC_WORKSPACE_WRAPPER", CLIPPY_DRIVER);
    }
    command
}

/// Every file of the work tree that is tracked or would be (ignored files left out), relative to the root, sorted.
pub(crate) fn files() -> Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|error| failed(format!("git ls-files: {error}")))?;
    if !listed.status.success() {
        return Err(failed(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr))));
    }
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut files: Vec<String> = text
        .split('\0')
        .filter(|path| !path.is_empty() && root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The commit checked out, in hexadecimal; `None` outside a repository.
pub(crate) fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output().ok()?;
    let hash = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && hash.len() >= 8).then_some(hash)
}

/// The pick of every run that is told no other: what a commit did not touch cannot fail for it.
pub(crate) const FIXED_PICK: u64 = 0;

/// The pick: `HOLDFAST_PICK` when set, else [`FIXED_PICK`].
pub(crate) fn pick() -> Result<u64> {
    if let Ok(text) = std::env::var("HOLDFAST_PICK") {
        return text.parse().map_err(|_| failed(format!("HOLDFAST_PICK={text} is not a number")));
    }
    Ok(FIXED_PICK)
}
