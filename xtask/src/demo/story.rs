//! The demo's story, from an empty folder to the last comparison.

use std::process::Command;
use std::time::Duration;

use super::machine::Machine;
use super::{damage, restic};
use crate::lab::promises::{Promises, writer};
use crate::lab::site::{Site, copy};
use crate::lab::{Image, Progress, Stage};
use crate::process::{must, seconds};
use crate::{Result, failed};

/// The VM that runs, and two like it.
const VMS: [&str; 3] = ["base01", "web01", "db01"];
const EXPORT: &str = "base01/disk0";
/// Where the guest writes.
const FOLDER: &str = "/srv/data";
/// The server dies after so many files are safe, while the guest writes the next.
const FILES: usize = 40;
const VERIFY_LIMIT: Duration = Duration::from_secs(600);
const FSCK_LIMIT: Duration = Duration::from_secs(600);
const COMPARE_LIMIT: Duration = Duration::from_secs(600);

/// What the Debian packages say about their own files: all of the installation, read back.
const INSTALLED: &str = "cd / && cat /var/lib/dpkg/info/*.md5sums | md5sum --quiet -c -";

/// Tells it. An error says which promise was broken.
pub(super) fn tell(stage: &Stage, images: &[Image; 3], progress: &mut Progress) -> Result {
    let mut site = Site::new(stage);
    progress.step("a new site: six media of 4 GiB, 4+2");
    progress.note(&format!("serving after {}", seconds(site.start()?)));
    import(stage, images, &site, progress)?;
    let [image, others @ ..] = images;
    let promised = write_and_kill(stage, image, &mut site, progress)?;

    progress.step("the server starts again; the guest boots and checks");
    progress.note(&format!("serving after {}, recovery included", seconds(site.start()?)));
    verify(stage, image, &site, "after-kill", &promised, progress)?;

    progress.step("a clean stop; one medium is taken away, another gets random bytes");
    site.stop()?;
    hurt(&site, progress)?;
    progress.note(&format!("serving again after {}", seconds(site.start()?)));
    verify(stage, image, &site, "after-damage", &promised, progress)?;

    progress.step(
        "the whole disk is read and its file system checked; the others are compared with their images",
    );
    check_disk(stage, &site, progress)?;
    for (vm, image) in VMS[1..].iter().zip(others) {
        compare(&site, vm, image, progress)?;
    }
    progress.note(&site.cli(&["status"])?);
    site.stop()
}

/// Three VMs from images with much in common; what that took and what dedup saved.
fn import(stage: &Stage, images: &[Image; 3], site: &Site<'_>, progress: &mut Progress) -> Result {
    progress.step("three VMs imported: a Debian, and the same with a web server and with a database");
    let mut took = Duration::ZERO;
    let mut before = (0, 0);
    for (vm, image) in VMS.iter().zip(images) {
        let one = site.import(vm, &image.disk)?;
        let needed = site.needed_bytes()?;
        let now = (site.bytes("logical_bytes")?, needed);
        progress.note(&format!(
            "{vm}: {} of data took {} and needed {} more",
            mebibytes(now.0 - before.0),
            seconds(one),
            mebibytes(now.1 - before.1)
        ));
        took += one;
        before = now;
    }
    progress.note(&capacity(&site.cli(&["status"])?));
    progress.note(&format!("holdfast: {}, {} before parity", seconds(took), mebibytes(before.1)));
    match restic::import(stage, images)? {
        None => progress.note("restic is not installed: no comparison"),
        Some(theirs) => progress.note(&format!(
            "restic:   {}, {} for the same images ({:.2} x our time, ours are {:.2} x its bytes)",
            seconds(theirs.took),
            mebibytes(theirs.stored_bytes),
            theirs.took.as_secs_f64() / took.as_secs_f64(),
            before.1 as f64 / theirs.stored_bytes as f64
        )),
    }
    Ok(())
}

/// The part of `status` that says what is stored.
fn capacity(status: &str) -> String {
    let rows = status.lines().skip_while(|line| !line.starts_with("provisioned"));
    rows.take_while(|line| !line.starts_with("usable")).collect::<Vec<_>>().join("\n")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Boots the guest, lets it write, and kills the server; gives the files the guest had reported as safe.
fn write_and_kill(
    stage: &Stage,
    image: &Image,
    site: &mut Site<'_>,
    progress: &mut Progress,
) -> Result<Promises> {
    progress.step("the guest boots and writes files, reporting each once fsync returned");
    let mut guest = Machine::boot(image, &site.uri(EXPORT), &stage.logs.join("guest-first.log"))?;
    progress.note("it runs");
    guest.console.send(&writer(FOLDER))?;
    let mut promised = Promises::default();
    while promised.len() < FILES {
        promised.take(&mut guest.console)?;
    }
    progress.step("kill -9 of the server while the guest goes on writing");
    site.kill()?;
    promised.take_last(&mut guest.console)?;
    progress.note(&format!("{} files were reported safe; now the guest loses power too", promised.len()));
    Ok(promised)
}

/// Boots the guest and compares every promised file, and every file Debian installed.
fn verify(
    stage: &Stage,
    image: &Image,
    site: &Site<'_>,
    name: &str,
    promised: &Promises,
    progress: &Progress,
) -> Result {
    let transcript = stage.logs.join(format!("guest-{name}.log"));
    let mut guest = Machine::boot(image, &site.uri(EXPORT), &transcript)?;
    progress.note("the guest runs");
    promised.check(&mut guest.console, &[FOLDER])?;
    progress.note(&format!("all {} promised files are there, checksums equal", promised.len()));
    guest.console.run(INSTALLED, VERIFY_LIMIT)?;
    progress.note("all files of the installation are there, checksums equal");
    guest.power_off()
}

fn hurt(site: &Site<'_>, progress: &Progress) -> Result {
    let media = site.media()?;
    let [_, gone, _, _, rotten, ..] = media.as_slice() else {
        return Err(failed(format!("six media expected, found {}", media.len())));
    };
    let away = gone.with_extension("taken-away");
    let parked = site_parent(gone)?.join(away.file_name().unwrap_or_default());
    std::fs::rename(gone, &parked).map_err(|error| failed(format!("{}: {error}", gone.display())))?;
    progress.note(&format!("{} is gone", gone.display()));
    let bytes = damage::rot(rotten)?;
    progress.note(&format!("{} has {} MiB of random bytes in it", rotten.display(), bytes >> 20));
    Ok(())
}

/// The site's folder: a medium taken away is no longer among the media.
fn site_parent(medium: &std::path::Path) -> Result<&std::path::Path> {
    medium.parent().and_then(std::path::Path::parent).ok_or_else(|| failed("a medium outside its site"))
}

/// Reads every byte of the disk and lets e2fsck judge the copy.
fn check_disk(stage: &Stage, site: &Site<'_>, progress: &Progress) -> Result {
    let copied = stage.site.join("copied-out.img");
    let took = copy(site.uri(EXPORT), &copied)?;
    progress.note(&format!("nbdcopy took {}", seconds(took)));
    must(Command::new("e2fsck").arg("-fn").arg(&copied), FSCK_LIMIT)?;
    progress.note("e2fsck -fn finds nothing wrong");
    Ok(())
}

/// A disk nobody wrote to since its import is byte for byte the image.
fn compare(site: &Site<'_>, vm: &str, image: &Image, progress: &Progress) -> Result {
    let mut command = Command::new("qemu-img");
    command.args(["compare", "-f", "raw", "-F", "raw"]);
    let outcome = must(command.arg(&image.disk).arg(site.uri(&format!("{vm}/disk0"))), COMPARE_LIMIT)?;
    progress.note(&format!("{vm} is equal to its image ({})", seconds(outcome.took)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_cut_out_of_status() {
        let status = "health  ok\n\nprovisioned  3\nlogical  2\nraw  1\nusable  9\n\nVMs  1\n";
        assert_eq!(capacity(status), "provisioned  3\nlogical  2\nraw  1");
    }
}
