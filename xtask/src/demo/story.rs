//! The demo's story, from an empty folder to the last comparison.

use std::collections::BTreeMap;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use super::console::Console;
use super::guest::Guest;
use super::site::{Site, copy};
use super::{Progress, Stage, damage};
use crate::process::{must, seconds};
use crate::{Result, failed};

const VM: &str = "web01";
const EXPORT: &str = "web01/disk0";
/// Room for the 3 GiB image and some.
const DISK: &str = "4G";
/// The server dies after so many files are safe, while the guest writes the next.
const FILES: usize = 40;
/// Reports on their way when the server died: they count as promised too.
const LAST_WORDS: Duration = Duration::from_secs(2);
const FILE_LIMIT: Duration = Duration::from_secs(120);
const VERIFY_LIMIT: Duration = Duration::from_secs(600);
const FSCK_LIMIT: Duration = Duration::from_secs(600);

/// Writes files for ever, each with its own size and random contents, and reports a file once `fsync` of it and of
/// its folder returned. Stops at the first error.
const WRITER: &str = "mkdir -p /srv/data; i=0; while :; do i=$((i+1)); f=/srv/data/$i; \
    head -c $((i % 9 * 200000 + i + 1)) /dev/urandom >$f && sync $f /srv/data && s=$(sha256sum <$f) || break; \
    printf '@%s %s %s\\n' written $i \"${s%% *}\"; done; echo @stopped";
/// Checksums of the same files, as they are now.
const READER: &str =
    "cd /srv/data; for f in *; do s=$(sha256sum <$f); printf '@%s %s %s\\n' found $f \"${s%% *}\"; done";
/// What the Debian packages say about their own files: all of the installation, read back.
const INSTALLED: &str = "cd / && cat /var/lib/dpkg/info/*.md5sums | md5sum --quiet -c -";

/// File number to checksum.
type Files = BTreeMap<String, String>;

/// Tells it. An error says which promise was broken.
pub(super) fn tell(stage: &Stage, progress: &mut Progress) -> Result {
    let mut site = Site::new(stage);
    progress.step("a new site: six media of 8 GiB, 4+2");
    progress.note(&format!("serving after {}", seconds(site.start()?)));
    install(stage, &site, progress)?;
    let promised = write_and_kill(stage, &mut site, progress)?;

    progress.step("the server starts again; the guest boots and checks");
    progress.note(&format!("serving after {}, recovery included", seconds(site.start()?)));
    verify(stage, &site, "after-kill", &promised, progress)?;

    progress.step("a clean stop; one medium is taken away, another gets random bytes");
    site.stop()?;
    hurt(&site, progress)?;
    progress.note(&format!("serving again after {}", seconds(site.start()?)));
    verify(stage, &site, "after-damage", &promised, progress)?;

    progress.step("the whole disk is read and its file system checked");
    check_disk(stage, &site, progress)?;
    progress.note(&site.cli(&["status"])?);
    site.stop()
}

/// A VM with the Debian image on its disk.
fn install(stage: &Stage, site: &Site<'_>, progress: &mut Progress) -> Result {
    progress.step("a VM, and Debian copied onto its disk");
    site.cli(&["vm", "create", VM, "--disk", DISK])?;
    let took = copy(&stage.image.disk, site.uri(EXPORT))?;
    progress.note(&format!("nbdcopy took {}", seconds(took)));
    progress.note(&site.cli(&["status"])?);
    Ok(())
}

/// Boots the guest, lets it write, and kills the server; gives the files the guest had reported as safe.
fn write_and_kill(stage: &Stage, site: &mut Site<'_>, progress: &mut Progress) -> Result<Files> {
    progress.step("the guest boots and writes files, reporting each once fsync returned");
    let mut guest = Guest::boot(&stage.image, &site.uri(EXPORT), &stage.logs.join("guest-first.log"))?;
    progress.note("it runs");
    guest.console.send(WRITER)?;
    let mut promised = Files::new();
    while promised.len() < FILES {
        let (report, _) = guest.console.wait_for("@written ", FILE_LIMIT)?;
        record(&report, &mut promised)?;
    }
    progress.step("kill -9 of the server while the guest goes on writing");
    site.kill()?;
    last_words(&mut guest.console, &mut promised)?;
    progress.note(&format!("{} files were reported safe; now the guest loses power too", promised.len()));
    Ok(promised)
}

/// Reports that were on the serial line when the server died.
fn last_words(console: &mut Console<ChildStdin>, promised: &mut Files) -> Result {
    while let Some(line) = console.next_line(LAST_WORDS)? {
        match line.strip_prefix("@written ") {
            Some(report) => record(report, promised)?,
            None if line.starts_with("@stopped") => break,
            None => {}
        }
    }
    Ok(())
}

fn record(report: &str, files: &mut Files) -> Result {
    match report.split_once(' ') {
        Some((file, sum)) if sum.len() == 64 => {
            files.insert(file.to_owned(), sum.to_owned());
            Ok(())
        }
        _ => Err(failed(format!("the guest reported {report:?}"))),
    }
}

/// Boots the guest and compares every promised file, and every file Debian installed.
fn verify(stage: &Stage, site: &Site<'_>, name: &str, promised: &Files, progress: &Progress) -> Result {
    let transcript = stage.logs.join(format!("guest-{name}.log"));
    let mut guest = Guest::boot(&stage.image, &site.uri(EXPORT), &transcript)?;
    progress.note("the guest runs");
    let mut found = Files::new();
    for line in guest.console.run(READER, VERIFY_LIMIT)?.lines() {
        if let Some(report) = line.strip_prefix("@found ") {
            record(report, &mut found)?;
        }
    }
    let wrong = broken(promised, &found);
    if !wrong.is_empty() {
        return Err(failed(format!("of {} promised files: {}", promised.len(), wrong.join(", "))));
    }
    progress.note(&format!("all {} promised files are there, checksums equal", promised.len()));
    guest.console.run(INSTALLED, VERIFY_LIMIT)?;
    progress.note("all files of the installation are there, checksums equal");
    guest.power_off()
}

/// Promised files that are missing or differ.
fn broken(promised: &Files, found: &Files) -> Vec<String> {
    promised
        .iter()
        .filter_map(|(file, sum)| match found.get(file) {
            Some(other) if other == sum => None,
            Some(_) => Some(format!("{file} differs")),
            None => Some(format!("{file} is gone")),
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(file, sum)| ((*file).to_owned(), (*sum).to_owned())).collect()
    }

    #[test]
    fn missing_and_different_files_are_told_apart() {
        let promised = files(&[("1", "a"), ("2", "b"), ("3", "c")]);
        assert!(
            broken(&promised, &files(&[("1", "a"), ("2", "b"), ("3", "c"), ("4", "half-written")]))
                .is_empty()
        );
        assert_eq!(broken(&promised, &files(&[("1", "a"), ("2", "x")])), ["2 differs", "3 is gone"]);
    }

    #[test]
    fn a_report_cut_short_is_no_promise() {
        let mut promised = Files::new();
        assert!(record(&format!("7 {}", "0".repeat(64)), &mut promised).is_ok());
        assert!(record("8 0123", &mut promised).is_err());
        assert!(record("9", &mut promised).is_err());
        assert_eq!(promised.len(), 1);
    }
}
