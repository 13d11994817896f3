//! A directory that is lost is made anew from the media and the recovery key, and nothing that is on them is.

use std::path::PathBuf;

use api::{Error, VmName};
use media::Backend;
use nbd::Exports;

use super::{Bench, edit};
use crate::Site;
use machine::{Options, RecoverOptions, RecoveredSite};

const DISK_BYTES: u64 = 4 << 20;

impl Bench {
    fn recovering(&self, name: &str, media: Vec<PathBuf>) -> RecoverOptions {
        RecoverOptions {
            host: None,
            dir: self.path(name),
            media,
            recovery_key_file: Some(self.path("recovery")),
            accept_loss: false,
            passphrase_file: None,
            missing: 0,
            backend: Backend::Sync,
        }
    }

    fn recover(&self, options: RecoverOptions) -> Result<RecoveredSite, Error> {
        self.wait_for_media(&Options { media: options.media.clone(), ..Options::new(&options.dir) });
        self.runtime.block_on(Site::recover(self.rt(), options))
    }

    fn not_recovered(&self, options: RecoverOptions) -> &'static str {
        let error = self.recover(options).unwrap_err();
        assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
        error.code.name
    }

    /// A site with a VM and some data, stopped.
    fn filled(&self, name: &str, media: usize) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = (0..media).map(|i| self.blank(&format!("{name}-{i}"))).collect();
        let recovery = self.path("recovery");
        let options = Options { media: paths.clone(), recovery_key_file: Some(recovery), ..self.later(name) };
        let started = self.start(options).unwrap();
        self.runtime.block_on(async {
            started.site.catalog().create_vm(&VmName::parse("web01").unwrap(), &[DISK_BYTES]).await.unwrap();
            let disk = started.site.exports().open("web01/disk0").await.unwrap();
            for block in 0..DISK_BYTES / 4096 {
                disk.write(block * 4096, contents(block).into()).await.unwrap();
            }
        });
        self.stop(&started.site);
        paths
    }

    /// Starts the site and reads everything back.
    fn check(&self, name: &str) {
        let started = self.start(self.later(name)).unwrap();
        self.runtime.block_on(async {
            let disk = started.site.exports().open("web01/disk0").await.unwrap();
            for block in 0..DISK_BYTES / 4096 {
                let read = disk.read(block * 4096, 4096).await.unwrap();
                assert_eq!(read, contents(block), "block {block}");
            }
        });
        self.stop(&started.site);
    }
}

/// A block unlike any other.
fn contents(block: u64) -> Vec<u8> {
    let mut word = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(4096);
    while bytes.len() < 4096 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[test]
fn a_lost_directory_is_made_anew() {
    let bench = Bench::new();
    let media = bench.filled("d", 3);
    std::fs::remove_dir_all(bench.path("d")).unwrap();
    let mut turned = media.clone();
    turned.reverse();
    let found = bench.recover(bench.recovering("e", turned)).unwrap();
    assert_eq!((found.media, found.missing), (3, 0));
    bench.check("e");
    assert_eq!(bench.not_recovered(bench.recovering("e", media)), "site_exists");
    bench.check("e");
}

#[test]
fn media_that_the_site_made_are_found_in_its_folder() {
    let bench = Bench::new();
    let options = Options { recovery_key_file: Some(bench.path("recovery")), ..bench.options("d", 2) };
    drop(bench.made(options));
    let before = std::fs::read_to_string(bench.path("d/site.json")).unwrap();
    for name in ["site.json", "key", "witness"] {
        std::fs::remove_file(bench.path("d").join(name)).unwrap();
    }
    bench.recover(bench.recovering("d", Vec::new())).unwrap();
    let after = std::fs::read_to_string(bench.path("d/site.json")).unwrap();
    let without: Vec<&str> = after.lines().filter(|line| !line.contains("recovered_ms")).collect();
    assert_eq!(without.join("\n").replace("],\n}", "]\n}") + "\n", before);
    drop(bench.made(bench.later("d")));
}

#[test]
fn too_few_or_wrong_media_are_refused_before_anything_is_changed() {
    let bench = Bench::new();
    let media = bench.filled("d", 3);
    let bytes = |path: &PathBuf| std::fs::read(path).unwrap();
    let before: Vec<Vec<u8>> = media.iter().map(bytes).collect();
    let refused = |media: Vec<PathBuf>, missing, code: &str| {
        let options = RecoverOptions { missing, ..bench.recovering("e", media) };
        assert_eq!(bench.not_recovered(options), code);
        assert!(!bench.path("e/site.json").exists() && !bench.path("e/key").exists());
    };
    refused(media[..2].to_vec(), 0, "media_missing");
    refused(Vec::new(), 3, "media_missing");
    let blank = bench.blank("blank");
    refused(vec![media[0].clone(), blank.clone()], 2, "not_a_medium");
    let copy = bench.path("copy");
    std::fs::copy(&media[0], &copy).unwrap();
    refused(vec![media[0].clone(), copy], 2, "foreign_medium");
    let other = vec![blank];
    drop(bench.made(Options { media: other.clone(), ..bench.later("other") }));
    refused(vec![media[0].clone(), other[0].clone()], 2, "foreign_medium");
    let right = std::fs::read(bench.path("recovery")).unwrap();
    edit(&bench.path("recovery"), |text| text[0] = if text[0] == b'0' { b'1' } else { b'0' });
    refused(media.clone(), 0, "recovery_key_wrong");
    std::fs::write(bench.path("recovery"), right).unwrap();
    let after: Vec<Vec<u8>> = media.iter().map(bytes).collect();
    assert!(before == after, "a medium was changed");
    bench.check("d");
}

#[test]
fn as_many_media_as_may_be_lost_may_be_missing() {
    let bench = Bench::new();
    let media = bench.filled("d", 3);
    std::fs::remove_dir_all(bench.path("d")).unwrap();
    let options = RecoverOptions { missing: 1, ..bench.recovering("e", media[1..].to_vec()) };
    let found = bench.recover(options).unwrap();
    assert_eq!((found.media, found.missing), (2, 1));
    bench.check("e");
    // It turns up again, where site.json says.
    let manifest = std::fs::read_to_string(bench.path("e/site.json")).unwrap();
    let place = manifest.split('"').find(|word| word.starts_with("media/missing-")).unwrap();
    std::fs::create_dir_all(bench.path("e/media")).unwrap();
    std::fs::rename(&media[0], bench.path("e").join(place)).unwrap();
    bench.check("e");
}

#[test]
fn a_passphrase_may_take_the_place_of_the_key_file() {
    let bench = Bench::new();
    let media = bench.filled("d", 2);
    std::fs::remove_dir_all(bench.path("d")).unwrap();
    let phrase = bench.path("phrase");
    std::fs::write(&phrase, "correct horse\n").unwrap();
    let options = RecoverOptions { passphrase_file: Some(phrase.clone()), ..bench.recovering("e", media) };
    bench.recover(options).unwrap();
    assert_eq!(bench.refused(bench.later("e")), "passphrase_wanted");
    drop(bench.made(Options { passphrase_file: Some(phrase), ..bench.later("e") }));
}

/// A directory that turns up again has the site no more, says since when, and changes nothing; with a passphrase, which opens
/// the keys all the same, too.
#[test]
fn the_directory_from_before_a_recovery_says_that_it_was_taken_over() {
    for phrase in [false, true] {
        let bench = Bench::new();
        let media: Vec<PathBuf> = (0..3).map(|i| bench.blank(&format!("m{i}"))).collect();
        std::fs::write(bench.path("phrase"), "correct horse\n").unwrap();
        let passphrase_file = phrase.then(|| bench.path("phrase"));
        let later = |name: &str| Options { passphrase_file: passphrase_file.clone(), ..bench.later(name) };
        let recovery_key_file = Some(bench.path("recovery"));
        drop(bench.made(Options { media: media.clone(), recovery_key_file, ..later("d") }));
        let mut newest = "d";
        for next in ["e", "f"] {
            let options = bench.recovering(next, media.clone());
            bench.recover(RecoverOptions { passphrase_file: passphrase_file.clone(), ..options }).unwrap();
            let before: Vec<Vec<u8>> = media.iter().map(|path| std::fs::read(path).unwrap()).collect();
            let error = bench.start(later(newest)).unwrap_err();
            assert_eq!(error.code, "site_recovered", "{error:?}");
            assert!(error.reason.contains(" at 20") && !error.hint.contains("key file"), "{error:?}");
            let accept = RecoverOptions { accept_loss: true, ..bench.recovering(newest, media.clone()) };
            let accept = RecoverOptions { passphrase_file: passphrase_file.clone(), ..accept };
            assert_eq!(bench.not_recovered(accept), "site_recovered");
            let after: Vec<Vec<u8>> = media.iter().map(|path| std::fs::read(path).unwrap()).collect();
            assert!(before == after, "a medium was changed");
            drop(bench.made(later(next)));
            drop(bench.made(later(next)));
            newest = next;
        }
    }
}

#[test]
fn more_missing_media_than_a_site_bears_are_refused_whatever_is_there() {
    for (count, missing) in [(1, 1), (2, 2), (6, 3), (6, 99)] {
        let bench = Bench::new();
        let media = bench.filled("d", count);
        let options = RecoverOptions { missing, ..bench.recovering("e", media) };
        assert_eq!(bench.not_recovered(options), "invalid_request", "{missing} of {count}");
        assert!(!bench.path("e/site.json").exists() && !bench.path("e/key").exists());
        bench.check("d");
    }
}

/// Spoils the second batch of the newest segment, wherever it stands: the writes in it were acknowledged.
fn spoil_journal(media: &[PathBuf]) {
    let mut batches = Vec::new();
    for path in media {
        let bytes = std::fs::read(path).unwrap();
        let pages = bytes.chunks(4096).enumerate();
        let found = pages.filter_map(|(page, bytes)| Some((journal::BatchHeader::peek(bytes).ok()?, page)));
        batches.extend(found.map(|(header, page)| (header.segment, header.index, path, page * 4096)));
    }
    let newest = batches.iter().map(|(segment, ..)| *segment).max().unwrap();
    assert!(batches.iter().any(|(segment, index, ..)| *segment == newest && *index > 1));
    for (_, _, path, at) in batches.into_iter().filter(|(s, index, ..)| *s == newest && *index == 1) {
        edit(path, |bytes| bytes[at + journal::BATCH_HEADER_BYTES] ^= 1);
    }
}

/// The kind: what cannot be replayed is named, what stands for itself is served, and there is a way on.
#[test]
fn a_journal_with_a_hole_ends_no_start() {
    let bench = Bench::new();
    let media = bench.filled("d", 3);
    let name = |text: &str| VmName::parse(text).unwrap();
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(site.catalog().snapshot(&name("web01"), None)).unwrap();
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let disk = site.exports().open("web01/disk0").await.unwrap();
        for block in 0..8 {
            disk.write(block * 4096, contents(1000 + block).into()).await.unwrap();
        }
        drop(disk);
        site.abandon().await;
    });
    drop(site);
    bench.wait_for_media(&bench.later("d"));
    spoil_journal(&media);

    let read = async |site: &Site, export: &str, block: u64| {
        let disk = site.exports().open(export).await.map_err(|_| ())?;
        disk.read(block * 4096, 4096).await.map(|bytes| bytes.to_vec()).map_err(|_| ())
    };
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        assert_eq!((status.health, status.writable, status.vms), (api::types::Health::Failed, false, 1));
        assert!(
            status.reasons.iter().any(|reason| reason.starts_with("lost: ") && reason.contains("batch 1"))
        );
        assert!(status.next.iter().any(|next| next.contains("--accept-loss")));
        for block in 0..DISK_BYTES / 4096 {
            assert_eq!(read(&site, "web01@s1/disk0", block).await, Ok(contents(block)));
            assert_eq!(read(&site, "web01/disk0", block).await, Err(()));
        }
        assert_eq!(site.catalog().create_vm(&name("b"), &[4096]).await.unwrap_err().code, "data_lost");
    });
    bench.stop(&site);
    drop(site);
    let options = Options { on_loss: machine::OnLoss::ServeAll, ..bench.later("d") };
    let site = bench.start(options).unwrap().site;
    bench.runtime.block_on(async {
        assert_eq!(read(&site, "web01/disk0", 9).await, Ok(contents(9)));
        let disk = site.exports().open("web01/disk0").await.unwrap();
        disk.write(0, vec![0; 4096].into()).await.unwrap_err();
    });
    bench.stop(&site);
    drop(site);

    let accept = |media: Vec<PathBuf>| RecoverOptions { accept_loss: true, ..bench.recovering("d", media) };
    let found = bench.recover(accept(media.clone())).unwrap();
    assert_eq!((found.media, found.missing, found.lost.len()), (3, 0, 1), "{:?}", found.lost);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let status = site.status().await.unwrap();
        assert!(status.writable && !status.reasons.iter().any(|reason| reason.starts_with("lost")));
        for block in 0..DISK_BYTES / 4096 {
            let read = read(&site, "web01/disk0", block).await.unwrap();
            assert!(read == contents(block) || block < 8 && read == contents(1000 + block), "block {block}");
        }
        site.catalog().create_vm(&name("b"), &[4096]).await.unwrap();
    });
    bench.stop(&site);
    drop(site);
    assert_eq!(bench.recover(accept(media)).unwrap().lost, Vec::<String>::new(), "nothing is lost");
}

/// Media with what was missing come back to a site that serves what it can: it goes on as if they had been there.
#[test]
fn what_was_lost_comes_back() {
    let bench = Bench::new();
    let media = bench.filled("d", 6);
    let all = Options { media: media.clone(), ..bench.later("d") };
    let dir = all.dir.clone();
    bench.wait_for_media(&all);
    let witness = std::fs::read(dir.join("witness")).unwrap();
    let images: Vec<Vec<u8>> = media.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let aside = |path: &PathBuf| path.with_extension("aside");
    let mut served = false;
    for first in 0..media.len() {
        let away: Vec<&PathBuf> = (0..3).map(|at| &media[(first + at) % media.len()]).collect();
        away.iter().for_each(|path| std::fs::rename(path, aside(path)).unwrap());
        let back = || away.iter().for_each(|path| std::fs::rename(aside(path), path).unwrap());
        let site = bench.start(bench.later("d")).map(|started| started.site);
        // The loss that nothing but itself brings back: of what the newest checkpoint says, while all of the journal is
        // there, which would be read anew where it is longer than it was. With other media away nothing begins, or a part
        // of the journal is lost, or what a start reads is all there.
        let is_it =
            |site: &Site| site.engine().losses().first().is_some_and(|loss| loss.starts_with("container"));
        let site = match site {
            Ok(site) if is_it(&site) => site,
            other => {
                other.iter().for_each(|site| bench.stop(site));
                drop(other);
                back();
                bench.wait_for_media(&all);
                for (path, image) in media.iter().zip(&images) {
                    std::fs::write(path, image).unwrap();
                }
                std::fs::write(dir.join("witness"), &witness).unwrap();
                continue;
            }
        };
        served = true;
        let open = bench.runtime.block_on(site.exports().open("web01/disk0"));
        assert!(open.is_err() && !site.engine().is_writable(), "nothing is known of the disk");
        back();
        bench.runtime.block_on(async {
            for _ in 0..600 {
                if site.engine().is_writable() {
                    break;
                }
                bench.rt().sleep(std::time::Duration::from_millis(50)).await;
            }
            let status = site.status().await.unwrap();
            assert!(
                status.writable && !status.reasons.iter().any(|reason| reason.starts_with("lost")),
                "{status:?}"
            );
            let disk = site.exports().open("web01/disk0").await.unwrap();
            for block in 0..DISK_BYTES / 4096 {
                assert_eq!(disk.read(block * 4096, 4096).await.unwrap(), contents(block), "block {block}");
            }
            disk.write(0, contents(0).into()).await.unwrap();
        });
        bench.stop(&site);
        break;
    }
    assert!(served, "some three media hold what the checkpoint says and not all of the journal");
}

/// Three of six media are lost for good: what is left is named and served, with and without the directory.
#[test]
fn more_media_are_lost_than_the_site_bears() {
    let bench = Bench::new();
    let media = bench.filled("d", 6);
    let left = media[3..].to_vec();
    for path in &media[..3] {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(
        bench.not_recovered(RecoverOptions { missing: 3, ..bench.recovering("e", left.clone()) }),
        "media_missing"
    );
    // Neither half of 4+2 fragments makes a container, so of the VMs nothing is left; that is said before any harm is done.
    let before: Vec<Vec<u8>> = left.iter().map(|path| std::fs::read(path).unwrap()).collect();
    match bench.recover(RecoverOptions { accept_loss: true, ..bench.recovering("e", left.clone()) }) {
        // An older segment was left, from before there was any VM.
        Ok(found) => assert!(found.lost[0].starts_with("3 of 6 media are missing"), "{:?}", found.lost),
        Err(error) => assert!(error.reason.contains("nothing"), "{error:?}"),
    }
    if !bench.path("e/site.json").exists() {
        assert!(left.iter().zip(before).all(|(path, before)| std::fs::read(path).unwrap() == before));
    }
}
