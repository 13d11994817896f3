//! The guest's story, from an empty folder to the last check of its file systems.

use std::io::Write;
use std::time::Duration;

use super::libvirt::Libvirt;
use super::unit;
use crate::lab::console::Console;
use crate::lab::promises::{Promises, writer};
use crate::lab::site::{Site, copy};
use crate::lab::{Image, Progress, Stage};
use crate::process::seconds;
use crate::{Result, failed};

const VM: &str = "guest01";
const DISKS: [&str; 4] = ["disk0", "disk1", "disk2", "disk3"];
/// Room for what the writers write on a quick machine, many times over.
const DISK_SIZE: &str = "8G";
/// Folders of the two file systems: promised files lie there.
const FOLDERS: [&str; 2] = ["/mnt/xfs/safe", "/mnt/ext4/safe"];
/// So many files are safe on each file system before the kill.
const FILES: usize = 30;
const QUICK_LIMIT: Duration = Duration::from_secs(120);
const CHECK_LIMIT: Duration = Duration::from_secs(600);

const MAKE: &str = "mkfs.xfs -q /dev/vdb && mkfs.ext4 -q /dev/vdc";
const MOUNT: &str =
    "mkdir -p /mnt/xfs /mnt/ext4 && mount -t xfs /dev/vdb /mnt/xfs && mount -t ext4 /dev/vdc /mnt/ext4";
/// What the kernel says when a journal is replayed.
const REPLAYED: &str = "dmesg | grep -E 'XFS.*(Starting|Ending) recovery|EXT4-fs.*recovery complete'";
const CHECK: &str = "umount /mnt/xfs /mnt/ext4 && xfs_repair -n /dev/vdb 2>&1 && e2fsck -fn /dev/vdc 2>&1";

/// Tells it. An error says which promise was broken.
pub(super) fn tell(stage: &Stage, image: &Image, progress: &mut Progress) -> Result {
    let mut site = Site::new(stage);
    progress.step("a new site; a Debian VM is imported and gets three more disks");
    site.start()?;
    progress.note(&format!("the import took {}", seconds(site.import(VM, &image.disk)?)));
    for size in [DISK_SIZE, DISK_SIZE, unit::DISK_SIZE] {
        site.cli(&["disk", "add", VM, size])?;
    }
    copy(unit::pack(stage)?, site.uri(&format!("{VM}/disk3")))?;
    let disks = attach_info(&site)?;

    progress.step("libvirt starts it from the lines of `holdfast disk attach-info`");
    let libvirt = Libvirt::start(&stage.logs)?;
    progress.note(&libvirt.version()?);
    let mut console = libvirt.boot(image, &disks, "guest-first.log")?;
    progress.note("the guest runs");
    console.run(MAKE, QUICK_LIMIT)?;
    console.run(MOUNT, QUICK_LIMIT)?;

    let promised = write_and_kill(&mut site, &mut console, progress)?;
    libvirt.pull_plug()?;
    drop(console);
    progress.note("now the guest loses power too");

    progress.step("server and guest start again; both file systems are mounted and checked");
    progress.note(&format!("serving after {}, recovery included", seconds(site.start()?)));
    if attach_info(&site)? != disks {
        return Err(failed("attach-info prints other lines after a restart"));
    }
    let mut console = libvirt.boot(image, &disks, "guest-second.log")?;
    progress.note("the guest runs");
    console.run(MOUNT, QUICK_LIMIT)?;
    progress.note(&replayed(&mut console)?);
    promised.check(&mut console, &FOLDERS)?;
    progress.note(&format!("all {} promised files are there, checksums equal", promised.len()));
    console.run(CHECK, CHECK_LIMIT)?;
    progress.note("xfs_repair -n and e2fsck -fn find nothing wrong");

    progress.step("the unit for systemd, in the guest");
    unit::check(&mut console, progress)?;
    console.send("poweroff")?;
    libvirt.wait_off()?;
    site.stop()
}

/// The `<disk>` elements as `attach-info` prints them.
fn attach_info(site: &Site<'_>) -> Result<Vec<String>> {
    let one = |disk: &&str| {
        let text = site.cli(&["disk", "attach-info", &format!("{VM}/{disk}")])?;
        libvirt_lines(&text)
            .ok_or_else(|| failed(format!("attach-info prints no lines for libvirt:\n{text}")))
    };
    DISKS.iter().map(one).collect()
}

/// The paragraph for libvirt.
fn libvirt_lines(text: &str) -> Option<String> {
    let (_, lines) = text.split_once("# libvirt\n")?;
    Some(lines.split_once("\n\n")?.0.to_owned())
}

/// Files are written to both file systems, and the server is killed; gives the files reported as safe.
fn write_and_kill<W: Write>(
    site: &mut Site<'_>,
    console: &mut Console<W>,
    progress: &mut Progress,
) -> Result<Promises> {
    progress.step("files are written to xfs and ext4, each reported once fsync returned");
    console.send(&load())?;
    let mut promised = Promises::default();
    while FOLDERS.iter().any(|folder| promised.within(folder) < FILES) {
        promised.take(console)?;
    }
    progress.step("kill -9 of the server while the guest goes on writing");
    site.kill()?;
    promised.take_last(console)?;
    let [xfs, ext4] = FOLDERS.map(|folder| promised.within(folder));
    progress.note(&format!("files reported safe: {xfs} on xfs, {ext4} on ext4"));
    Ok(promised)
}

/// Both writers, and on both file systems a folder tree that comes and goes without a promise: the journals are never
/// at rest.
fn load() -> String {
    let churn = |mount: &str| {
        format!(
            "( while cp -r /etc {mount}/churn && mv {mount}/churn {mount}/old && rm -rf {mount}/old; do :; done ) &"
        )
    };
    let write = |folder: &str| format!("( {} ) &", writer(folder));
    let parts =
        [churn("/mnt/xfs"), churn("/mnt/ext4"), write(FOLDERS[0]), write(FOLDERS[1]), "wait".to_owned()];
    parts.join(" ")
}

/// Which journals were replayed: both, or the test has missed what it is for.
fn replayed<W: Write>(console: &mut Console<W>) -> Result<String> {
    let said = console.run(REPLAYED, QUICK_LIMIT)?;
    let told = |system: &str| said.lines().any(|line| line.contains(system));
    if told("XFS") && told("EXT4") {
        return Ok("both journals were replayed".to_owned());
    }
    Err(failed(format!("a journal had nothing to replay:\n{said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_for_libvirt_are_taken_as_printed() {
        let text =
            "# QEMU\n-blockdev x\n\n# libvirt\n<disk>\n  <target/>\n</disk>\n\n# any NBD client\nnbd:x\n";
        assert_eq!(libvirt_lines(text).as_deref(), Some("<disk>\n  <target/>\n</disk>"));
        assert_eq!(libvirt_lines("# QEMU\n-blockdev x\n"), None);
    }
}
