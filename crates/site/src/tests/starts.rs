//! First starts, later starts, and what either must not destroy.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::VmName;
use api::types::{Health, ListVms, MediumState};
use nbd::{Exports, OpenErrorKind};

use super::{Bench, MEDIUM_BYTES, NOW, edit};
use machine::Options;

fn media(dir: &Path) -> Vec<PathBuf> {
    let mut media: Vec<PathBuf> =
        std::fs::read_dir(dir.join("media")).unwrap().map(|entry| entry.unwrap().path()).collect();
    media.sort();
    media
}

#[test]
fn a_site_is_made_once_and_remembered() {
    let bench = Bench::new();
    let first = bench.start(bench.options("d", 3)).unwrap();
    assert!(first.is_new && first.recovery_key.is_some());
    let dir = bench.path("d");
    for (name, mode) in
        [("", 0o700), ("key", 0o600), ("site.json", 0o600), ("witness", 0o600), ("media/00.img", 0o600)]
    {
        let found = dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    assert_eq!(bench.refused(bench.later("d")), "site_busy");
    bench.stop(&first.site);
    drop(first);
    let second = bench.made(bench.later("d"));
    assert!(!second.is_new && second.recovery_key.is_none());
    drop(second);
    // Options of a first start do no harm at a later one, be the media others by then.
    assert_eq!(bench.made(bench.options("d", 3)).other_media, None);
    let given = |media| Options { media, ..bench.later("d") };
    assert_eq!(bench.made(given(media(&dir))).other_media, None);
    let blank = bench.blank("x");
    let fewer = given(media(&dir)[..2].to_vec());
    for options in [bench.options("d", 4), bench.options("d", 2), fewer, given(vec![blank.clone()])] {
        let said = bench.made(options).other_media.unwrap();
        assert!(said.contains("has 3 media") && said.contains("media/02.img"), "{said}");
    }
    assert!(std::fs::read(blank).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn media_that_hold_something_are_refused_and_left_as_they_are() {
    let bench = Bench::new();
    let used = bench.blank("used");
    let other = Options { media: vec![used.clone()], ..bench.later("other") };
    drop(bench.made(other));
    let blank = bench.blank("blank");
    let start = bench.blank("start");
    edit(&start, |bytes| bytes[1080] = 0x53);
    let end = bench.blank("end");
    edit(&end, |bytes| *bytes.last_mut().unwrap() = 1);
    let small = bench.path("small");
    std::fs::write(&small, vec![0; 1 << 20]).unwrap();
    for (path, code) in [
        (&used, "foreign_medium"),
        (&start, "medium_not_empty"),
        (&end, "medium_not_empty"),
        (&small, "medium_too_small"),
        (&blank, "medium_busy"), // named twice
        (&bench.path("nothing"), "medium_missing"),
    ] {
        let before = std::fs::read(path).ok();
        let options = Options { media: vec![blank.clone(), path.clone()], ..bench.later("d") };
        assert_eq!(bench.refused(options), code, "{}", path.display());
        assert_eq!(std::fs::read(path).ok(), before, "{} was changed", path.display());
        assert!(seal::is_zero(&std::fs::read(&blank).unwrap()), "nothing may be half-done");
        assert!(!bench.path("d/first-start.json").exists() && !bench.path("d/site.json").exists());
    }
    drop(bench.made(Options { media: vec![blank], ..bench.later("d") }));
    let mut none = bench.options("e", 3);
    none.file_media.as_mut().unwrap().count = 0;
    assert!(bench.start(none).is_err());
}

#[test]
fn a_lost_directory_is_not_begun_anew() {
    let bench = Bench::new();
    drop(bench.made(bench.options("d", 3)));
    let before: Vec<_> = media(&bench.path("d")).iter().map(|path| std::fs::read(path).unwrap()).collect();
    std::fs::remove_file(bench.path("d/site.json")).unwrap();
    assert_eq!(bench.refused(bench.options("d", 3)), "site_lost");
    let after: Vec<_> = media(&bench.path("d")).iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn an_interrupted_first_start_is_done_again() {
    let bench = Bench::new();
    let dir = bench.path("d");
    let key_file = bench.path("recovery");
    let outside = bench.blank("outside");
    let options = Options {
        media: vec![outside.clone()],
        recovery_key_file: Some(key_file.clone()),
        ..bench.later("d")
    };
    drop(bench.made(options.clone()));
    let text = std::fs::read_to_string(dir.join("site.json")).unwrap();
    let kept_key = std::fs::read(&key_file).unwrap();
    // As if the crash came just before the last step.
    let planned = text.trim_end().trim_end_matches('}').trim_end().to_owned()
        + &format!(",\n\"recovery_key_file\": {:?}}}\n", key_file.to_str().unwrap());
    std::fs::write(dir.join("first-start.json"), planned).unwrap();
    std::fs::remove_file(dir.join("site.json")).unwrap();
    let started = bench.start(options.clone()).unwrap();
    assert!(started.is_new);
    bench.stop(&started.site);
    drop(started);
    assert!(!dir.join("first-start.json").exists());
    assert_eq!(std::fs::read(&key_file).unwrap(), kept_key, "whoever saw it may have written it down");
    let site = |text: &str| text.lines().find(|line| line.contains("site")).map(str::to_owned);
    assert_eq!(site(&std::fs::read_to_string(dir.join("site.json")).unwrap()), site(&text));
    drop(bench.made(Options { recovery_key_file: None, ..options }));
}

#[test]
fn a_half_formatted_medium_is_known_by_the_plan_that_names_it() {
    let bench = Bench::new();
    let dir = bench.path("d");
    let outside = bench.blank("outside");
    let options = Options { media: vec![outside.clone()], ..bench.later("d") };
    drop(bench.made(options.clone()));
    // As a crash leaves it that comes before the superblocks.
    std::fs::rename(dir.join("site.json"), dir.join("first-start.json")).unwrap();
    edit(&outside, |bytes| {
        let params = data::Superblock::decode(bytes).unwrap().params;
        let layout = data::Layout::new(params, bytes.len() as u64).unwrap();
        let first = layout.tables[0] as usize;
        bytes[..first].fill(0);
        bytes[first + 2 * layout.table_bytes as usize..].fill(0);
    });
    let half = std::fs::read(&outside).unwrap();
    let other = Options { dir: bench.path("other"), ..options.clone() };
    assert_eq!(bench.refused(other), "medium_not_empty", "no plan of that site names it");
    // A file system made on it meanwhile is not ours.
    edit(&outside, |bytes| bytes[1080] = 0x53);
    assert_eq!(bench.refused(options.clone()), "medium_not_empty");
    std::fs::write(&outside, half).unwrap();
    drop(bench.made(options));
    drop(bench.made(bench.later("d")));
}

#[test]
fn other_keys_and_passphrases_are_denied() {
    let bench = Bench::new();
    drop(bench.made(bench.options("d", 2)));
    let phrase = |name: &str, text: &str| {
        std::fs::write(bench.path(name), text).unwrap();
        Some(bench.path(name))
    };
    let right = phrase("right", "correct horse\n");
    let wrong = phrase("wrong", "incorrect horse\n");
    assert_eq!(bench.refused(Options { passphrase_file: right.clone(), ..bench.later("d") }), "key_wrong");
    let key = std::fs::read(bench.path("d/key")).unwrap();
    edit(&bench.path("d/key"), |bytes| bytes[0] ^= 1);
    assert_eq!(bench.refused(bench.later("d")), "key_wrong");
    std::fs::write(bench.path("d/key"), &key[1..]).unwrap();
    assert_eq!(bench.refused(bench.later("d")), "key_wrong");
    std::fs::remove_file(bench.path("d/key")).unwrap();
    assert_eq!(bench.refused(bench.later("d")), "key_missing");
    assert!(!bench.path("d/key").exists(), "a later start makes no key");
    std::fs::write(bench.path("d/key"), key).unwrap();
    drop(bench.made(bench.later("d")));

    let with = |passphrase_file| Options { passphrase_file, ..bench.later("p") };
    assert_eq!(bench.refused(with(phrase("empty", "\n"))), "passphrase_missing");
    assert_eq!(bench.refused(with(Some(bench.path("nothing")))), "passphrase_missing");
    drop(bench.made(Options { passphrase_file: right.clone(), ..bench.options("p", 2) }));
    assert!(!bench.path("p/key").exists());
    assert_eq!(bench.refused(with(wrong)), "key_wrong");
    assert_eq!(bench.refused(with(None)), "passphrase_wanted");
    drop(bench.made(with(right)));
}

/// The old passphrase opens nothing from then on, whichever medium is asked.
#[test]
fn another_passphrase_takes_the_place_of_the_first() {
    let bench = Bench::new();
    let phrase = |name: &str, text: &str| {
        std::fs::write(bench.path(name), text).unwrap();
        Some(bench.path(name))
    };
    let (first, second) = (phrase("first", "correct horse\n"), phrase("second", "battery staple\n"));
    let with = |passphrase_file: &Option<PathBuf>| Options {
        passphrase_file: passphrase_file.clone(),
        ..bench.later("p")
    };
    let started = bench.start(Options { passphrase_file: first.clone(), ..bench.options("p", 3) }).unwrap();
    let change = |current: &str, new: &str| {
        let (current, new) = (current.as_bytes().to_vec(), new.as_bytes().to_vec());
        bench.runtime.block_on(started.site.change_passphrase(current, new)).map_err(|error| error.code.name)
    };
    assert_eq!(change("incorrect horse", "battery staple"), Err("key_wrong"));
    assert_eq!(change("correct horse", ""), Err("passphrase_missing"));
    assert_eq!(change("correct horse", &"x".repeat(api::PASSPHRASE_BYTES_MAX + 1)), Err("invalid_request"));
    assert_eq!(change("correct horse", "battery staple"), Ok(()));
    assert_eq!(change("correct horse", "a third"), Err("key_wrong"));
    bench.stop(&started.site);
    drop(started);
    assert_eq!(bench.refused(with(&first)), "key_wrong");
    drop(bench.made(with(&second)));
    // Every medium alone knows: the others are away.
    for medium in media(&bench.path("p")) {
        let away = medium.with_extension("away");
        std::fs::rename(&medium, &away).unwrap();
        assert_eq!(bench.refused(with(&first)), "key_wrong", "without {}", medium.display());
        std::fs::rename(&away, &medium).unwrap();
    }
    drop(bench.made(with(&second)));

    let keyed = bench.start(bench.options("d", 2)).unwrap();
    let refused = bench.runtime.block_on(keyed.site.change_passphrase(b"x".to_vec(), b"y".to_vec()));
    assert_eq!(refused.unwrap_err().code, "no_passphrase");
}

#[test]
fn a_recovery_key_goes_to_a_new_file_and_to_every_medium() {
    let bench = Bench::new();
    let first = bench.path("first");
    let with =
        |file: &Path, options: Options| Options { recovery_key_file: Some(file.to_owned()), ..options };
    std::fs::write(&first, "mine").unwrap();
    assert_eq!(bench.refused(with(&first, bench.options("d", 3))), "recovery_key_file_exists");
    assert_eq!(std::fs::read(&first).unwrap(), b"mine");
    std::fs::remove_file(&first).unwrap();
    let started = bench.made(with(&first, bench.options("d", 3)));
    assert!(started.recovery_key.is_none());
    drop(started);
    assert_eq!(first.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.refused(with(&first, bench.later("d"))), "recovery_key_file_exists");

    let keys = |medium: &Path| {
        let bytes = std::fs::read(medium).unwrap();
        data::Superblock::decode(&bytes).unwrap().keys
    };
    let opens = |medium: &Path, file: &Path| {
        let key = seal::RecoveryKey::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
        keys(medium).unwrap_with_recovery(&key).is_ok()
    };
    let dir = bench.path("d");
    let second = bench.path("second");
    // One medium is away while the key changes.
    let away = bench.path("away");
    std::fs::rename(&media(&dir)[2], &away).unwrap();
    drop(bench.made(with(&second, bench.later("d"))));
    std::fs::rename(&away, dir.join("media/02.img")).unwrap();
    let media = media(&dir);
    assert!(opens(&media[0], &second) && opens(&media[1], &second) && opens(&media[2], &first));
    assert!(!opens(&media[0], &first), "the old key is of no use any more");
    drop(bench.made(bench.later("d")));
    assert!(opens(&media[2], &second), "the next start brings it up to date");
}

#[test]
fn a_missing_medium_degrades_and_comes_back() {
    let bench = Bench::new();
    let dir = bench.path("d");
    drop(bench.made(bench.options("d", 3)));
    let paths = media(&dir);
    let away = bench.path("away");
    std::fs::rename(&paths[1], &away).unwrap();
    let site = bench.start(bench.later("d")).unwrap().site;
    let status = || bench.runtime.block_on(site.status()).unwrap();
    assert_eq!(status().health, Health::Degraded);
    assert_eq!(status().media[1].state, MediumState::Down);
    assert!(status().reasons[0].contains("01.img"), "{:?}", status().reasons);
    // Something else in its place is left alone.
    std::fs::write(&paths[1], vec![1; MEDIUM_BYTES as usize]).unwrap();
    bench.runtime.block_on(site.probe());
    assert_eq!(status().media[1].state, MediumState::Down);
    assert!(status().reasons[0].contains("no superblock"), "{:?}", status().reasons);
    std::fs::rename(&away, &paths[1]).unwrap();
    bench.runtime.block_on(site.probe());
    assert_eq!(status().health, Health::Ok);
    // What the journal wrote meanwhile has fewer copies, until it stands in containers.
    for _ in 0..200 {
        if status().can_lose_now == 2 {
            break;
        }
        bench.runtime.block_on(site.runtime().sleep(std::time::Duration::from_millis(50)));
    }
    assert_eq!(status().can_lose_now, 2);
    bench.stop(&site);
    drop(site);

    // Devices may change places; superblocks tell them apart.
    std::fs::rename(&paths[0], &away).unwrap();
    std::fs::rename(&paths[1], &paths[0]).unwrap();
    std::fs::rename(&away, &paths[1]).unwrap();
    let site = bench.start(bench.later("d")).unwrap().site;
    assert_eq!(bench.runtime.block_on(site.status()).unwrap().health, Health::Ok);
    bench.stop(&site);
    drop(site);

    // One of three: what is there can be read, nothing can be written safely.
    for path in &paths[..2] {
        std::fs::remove_file(path).unwrap();
    }
    let site = bench.start(bench.later("d")).unwrap().site;
    let status = bench.runtime.block_on(site.status()).unwrap();
    assert_eq!((status.health, status.writable), (Health::Failed, false));
    let refused =
        bench.runtime.block_on(site.catalog().create_vm(&VmName::parse("a").unwrap(), &[4096])).unwrap_err();
    assert_eq!(refused.code, "too_few_media");
    bench.stop(&site);
    drop(site);
    std::fs::remove_file(&paths[2]).unwrap();
    let error = bench.start(bench.later("d")).unwrap_err();
    assert_eq!(error.code, "too_few_media");
    for name in ["00.img", "01.img", "02.img"] {
        assert!(error.reason.contains(name), "{error}");
    }
}

#[test]
fn vms_are_made_shown_used_and_deleted() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let name = |text| VmName::parse(text).unwrap();
    let work = async {
        let vm = site.catalog().create_vm(&name("web01"), &[1 << 20, 4096]).await.unwrap();
        let exports: Vec<&str> = vm.disks.iter().map(|disk| disk.export.as_str()).collect();
        assert_eq!(exports, ["web01/disk0", "web01/disk1"]);
        assert_eq!((vm.disks[0].bytes, vm.disks[1].bytes), (1 << 20, 4096));
        let code = |error: api::Error| error.code;
        let create = |text, disks: &'static [u64]| {
            let site = site.clone();
            async move { site.catalog().create_vm(&VmName::parse(text).unwrap(), disks).await.map_err(code) }
        };
        assert_eq!(create("web01", &[4096]).await.unwrap_err(), "vm_exists");
        for sizes in [&[4095][..], &[0], &[4097], &[1 << 60], &[u64::MAX]] {
            assert_eq!(create("x", sizes).await.unwrap_err(), "invalid_size", "{sizes:?}");
        }
        assert_eq!(create("x", &[]).await.unwrap_err(), "disk_count");
        assert_eq!(create("x", &[4096; 33]).await.unwrap_err(), "disk_count");
        create("app", &[4608]).await.unwrap();
        let listed: Vec<_> = site
            .catalog()
            .vms(&ListVms::default())
            .await
            .unwrap()
            .into_iter()
            .map(|vm| (vm.name, vm.bytes))
            .collect();
        assert_eq!(listed, [("app".to_owned(), 4608), ("web01".to_owned(), (1 << 20) + 4096)]);
        assert_eq!(site.catalog().vm(&name("nope")).await.unwrap_err().code, "vm_not_found");

        let exports = site.exports();
        assert_eq!(exports.list().await.len(), 3);
        for unknown in
            ["", "web01", "web01/", "/disk0", "web01/disk2", "web02/disk0", "WEB/disk0", "web01/disk0/"]
        {
            let error = exports.open(unknown).await.err().unwrap();
            assert_eq!(error.kind, OpenErrorKind::Unknown, "{unknown:?}");
        }
        let device = exports.open("web01/disk1").await.unwrap();
        device.write(1, bytes::Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(&device.read(0, 5).await.unwrap()[..], b"\0abc\0");
        let vm = site.catalog().vm(&name("web01")).await.unwrap();
        assert_eq!((vm.disks[0].clients, vm.disks[1].clients, vm.disks[1].used_bytes), (0, 1, Some(4096)));
        assert_eq!(site.catalog().delete_vm(&name("web01"), NOW).await.unwrap_err().code, "vm_in_use");
        drop(device);
        site.catalog().delete_vm(&name("web01"), NOW).await.unwrap();
        assert_eq!(site.catalog().delete_vm(&name("web01"), NOW).await.unwrap_err().code, "vm_not_found");
        // A new VM of the name has nothing of the old one.
        create("web01", &[4096, 4096]).await.unwrap();
        let device = exports.open("web01/disk1").await.unwrap();
        assert!(seal::is_zero(&device.read(0, 4096).await.unwrap()));
    };
    bench.runtime.block_on(work);
    bench.stop(&site);
}

#[test]
fn of_racing_creates_one_wins() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 2)).unwrap().site;
    let name = VmName::parse("one").unwrap();
    let outcomes =
        bench.runtime.block_on(seam::join_all((0..8).map(|_| site.catalog().create_vm(&name, &[4096]))));
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let lost =
        outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(|e| e.code == "vm_exists")).count();
    assert_eq!((won, lost), (1, 7));
    let outcomes =
        bench.runtime.block_on(seam::join_all((0..8).map(|_| site.catalog().delete_vm(&name, NOW))));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    bench.stop(&site);
}

#[test]
fn writes_are_refused_when_status_says_full_and_not_before() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 1)).unwrap().site;
    let name = VmName::parse("one").unwrap();
    let work = async {
        site.catalog().create_vm(&name, &[64 << 20]).await.unwrap();
        let device = site.exports().open("one/disk0").await.unwrap();
        assert_eq!(site.status().await.unwrap().health, Health::Ok);
        let mut block = vec![0; 4096];
        let mut warned = false;
        for number in 0.. {
            let status = site.status().await.unwrap();
            site.runtime().fill_random(&mut block);
            let written = device.write(number * 4096, bytes::Bytes::copy_from_slice(&block)).await;
            if written.is_err() {
                let status = site.status().await.unwrap();
                assert_eq!((status.health, status.usable_bytes), (Health::Degraded, 0), "{status:?}");
                assert!(status.reasons.iter().any(|reason| reason.contains("pool is full")), "{status:?}");
                break;
            }
            warned |= status.reasons.iter().any(|reason| reason.contains("nearly full"));
        }
        assert!(warned);
        device.trim(0, 4096).await.unwrap();
    };
    bench.runtime.block_on(work);
    bench.stop(&site);
}

/// The kind: a first start that fails leaves what was there before, and the next attempt makes the site.
#[test]
fn a_first_start_that_fails_takes_back_what_it_made() {
    for given in [false, true] {
        let bench = Bench::new();
        let names = |name: &str| {
            let entries = std::fs::read_dir(bench.path(name)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let media = [bench.blank("one"), bench.blank("two")];
        let options = || Options {
            recovery_key_file: Some(bench.path("recovery")),
            ..if given {
                Options { media: media.to_vec(), ..bench.later("d") }
            } else {
                bench.options("d", 2)
            }
        };
        // In the way of what is made last.
        std::fs::create_dir_all(bench.path("d/witness")).unwrap();
        let before = names("");
        assert_eq!(bench.refused(options()), "file_error");
        assert_eq!(names(""), before, "no recovery key that opens nothing");
        assert_eq!(names("d"), ["lock", "witness"]);
        for path in &media {
            assert!(seal::is_zero(&std::fs::read(path).unwrap()[..1 << 20]), "it is as free as before");
        }
        // A key that was there is the administrator's.
        std::fs::write(bench.path("d/key"), [7; 32]).unwrap();
        assert_eq!(bench.refused(options()), "file_error");
        assert_eq!(std::fs::read(bench.path("d/key")).unwrap(), [7; 32]);
        std::fs::remove_dir(bench.path("d/witness")).unwrap();
        drop(bench.made(options()));
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_recovery_key() {
    let bench = Bench::new();
    drop(bench.made(bench.options("d", 6)));
    let aside = |number: usize| {
        (bench.path(&format!("d/media/0{number}.img")), bench.path(&format!("aside{number}")))
    };
    (0..5).map(aside).for_each(|(medium, aside)| std::fs::rename(medium, aside).unwrap());
    let options = || Options { recovery_key_file: Some(bench.path("new")), ..bench.later("d") };
    bench.refused(Options { on_loss: machine::OnLoss::Refuse, ..options() });
    assert!(!bench.path("new").exists(), "it would open nothing");
    (0..5).map(aside).for_each(|(medium, aside)| std::fs::rename(aside, medium).unwrap());
    drop(bench.made(options()));
    assert!(bench.path("new").exists());
}
