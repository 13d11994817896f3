//! Files of a VM: there when they are whole, unchanging, and in snapshots and clones as its disks are.

use api::types::TaskKind;
use api::{FILES_MAX, FileName, Version, VmName};
use nbd::Exports;

use super::{Bench, NOW};
use crate::Site;

const MIB: u64 = 1 << 20;
const IMPORT: TaskKind = TaskKind::Import;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn file(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: api::Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
    error.code.name
}

/// Stores a file whole.
async fn put(site: &Site, vm: &str, name_of: &str, content: &[u8], replace: bool) -> api::Result<()> {
    let (task, disk) = site.transfers().begin_file(&name(vm), &file(name_of), "here", replace).await?;
    if !content.is_empty() {
        site.catalog().grow_file(&name(vm), &file(name_of), content.len() as u64).await?;
        let open = site.exports().open(&disk.export).await.unwrap();
        open.write(0, content.to_vec().into()).await.unwrap();
    }
    site.transfers().finish(task.id, IMPORT).await.map(drop)
}

/// What an export reads as, `bytes` of it.
async fn get(site: &Site, export: &str, bytes: usize) -> Vec<u8> {
    let open = site.exports().open(export).await.unwrap();
    let read = open.read(0, open.size() as usize).await.unwrap();
    assert!(read[bytes..].iter().all(|byte| *byte == 0));
    read[..bytes].to_vec()
}

async fn files(site: &Site, vm: &str) -> Vec<(String, u64)> {
    let vm = site.catalog().vm(&name(vm)).await.unwrap();
    vm.files.into_iter().map(|file| (file.name, file.bytes)).collect()
}

/// Disks that the engine has.
async fn disks(site: &Site) -> u64 {
    site.status().await.unwrap().provisioned_bytes / 4096
}

#[test]
fn a_file_is_there_when_it_is_whole_and_does_not_change() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4096]).await.unwrap();
        let (task, disk) =
            site.transfers().begin_file(&name("a"), &file("Debian+1.iso"), "x", false).await.unwrap();
        assert_eq!(disk.export, format!("a/Debian+1.iso:{}", task.id));
        let open = site.exports().open(&disk.export).await.unwrap();
        open.write(0, b"one".to_vec().into()).await.unwrap();
        // Nobody else knows it.
        assert!(files(&site, "a").await.is_empty());
        assert_eq!(site.exports().list().await.len(), 1);
        assert!(site.exports().open("a/Debian+1.iso").await.is_err());
        site.catalog().snapshot(&name("a"), None).await.unwrap();
        assert!(site.catalog().show_snapshot(&name("a"), &name("s1")).await.unwrap().files.is_empty());
        site.catalog().clone_vm(&version("a"), &name("b")).await.unwrap();
        assert!(files(&site, "b").await.is_empty());
        for found in [
            code(site.transfers().begin_file(&name("a"), &file("Debian+1.iso"), "y", true).await),
            code(site.catalog().rename_vm(&name("a"), &name("c")).await),
            code(site.catalog().delete_vm(&name("a"), NOW).await),
        ] {
            assert_eq!(found, "file_storing");
        }
        // Nor is it there for anything else that takes a file.
        site.catalog().create_vm(&name("c"), &[4096]).await.unwrap();
        for found in [
            code(site.catalog().remove_file(&name("a"), &file("Debian+1.iso")).await),
            code(site.catalog().clone_disk(&version("a"), "Debian+1.iso", &name("c")).await),
            code(site.attach_info(&name("a"), "Debian+1.iso").await),
            code(site.transfers().begin_export(&version("a"), Some("Debian+1.iso"), "").await),
        ] {
            assert!(["file_not_found", "disk_not_found"].contains(&found), "{found}");
        }
        site.catalog().delete_vm(&name("c"), NOW).await.unwrap();
        site.catalog().grow_file(&name("a"), &file("Debian+1.iso"), 5000).await.unwrap();
        assert_eq!(
            code(site.catalog().grow_file(&name("a"), &file("Debian+1.iso"), 9).await),
            "would_shrink"
        );
        site.transfers().finish(task.id, IMPORT).await.unwrap();
        // Whoever still has it open writes no more.
        open.write(0, b"two".to_vec().into()).await.unwrap_err();
        drop(open);
        assert_eq!(files(&site, "a").await, [("Debian+1.iso".to_owned(), 5000)]);
        let reader = site.exports().open("a/Debian+1.iso").await.unwrap();
        assert!(reader.read_only() && reader.size() == 5120);
        assert_eq!(&get(&site, "a/Debian+1.iso", 5000).await[..4], b"one\0");
        assert_eq!(
            code(site.catalog().grow_file(&name("a"), &file("Debian+1.iso"), 6000).await),
            "file_taken"
        );
        assert_eq!(code(put(&site, "a", "Debian+1.iso", b"", false).await), "file_taken");
        assert_eq!(
            code(site.catalog().resize_disk(&name("a"), "Debian+1.iso", 8192, false).await),
            "disk_not_found"
        );
        assert_eq!(code(site.catalog().remove_disk(&name("a"), "Debian+1.iso").await), "disk_not_found");
        // In its place, once nobody reads the old one.
        assert_eq!(code(put(&site, "a", "Debian+1.iso", b"three", true).await), "vm_in_use");
        let stuck = site.tasks().tasks().await.unwrap()[0].id;
        site.transfers().cancel(stuck).await.unwrap();
        drop(reader);
        put(&site, "a", "Debian+1.iso", b"three", true).await.unwrap();
        assert_eq!(get(&site, "a/Debian+1.iso", 5).await, b"three");
        put(&site, "a", "empty", b"", false).await.unwrap();
        assert_eq!(files(&site, "a").await, [("Debian+1.iso".to_owned(), 5), ("empty".to_owned(), 0)]);
        assert_eq!(disks(&site).await, 1 + 1 + 2, "what was replaced or given up is gone");
        let cdrom = site.attach_info(&name("a"), "Debian+1.iso").await.unwrap();
        assert!(cdrom.libvirt.contains("device='cdrom'") && cdrom.qemu[1].contains("ide-cd"), "{cdrom:?}");
        site.catalog().remove_file(&name("a"), &file("empty")).await.unwrap();
        assert_eq!(code(site.catalog().remove_file(&name("a"), &file("empty")).await), "file_not_found");
        assert_eq!(code(site.catalog().remove_file(&name("a"), &file("x")).await), "file_not_found");
    });
    bench.stop(&site);
}

#[test]
fn snapshots_clones_and_reverts_have_the_files() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        put(&site, "a", "notes", b"old", false).await.unwrap();
        site.catalog().snapshot(&name("a"), None).await.unwrap();
        put(&site, "a", "notes", b"newer", true).await.unwrap();
        put(&site, "a", "more", b"m", false).await.unwrap();
        assert_eq!(get(&site, "a@s1/notes", 3).await, b"old");
        let kept = site.catalog().show_snapshot(&name("a"), &name("s1")).await.unwrap();
        assert_eq!((kept.disks.len(), kept.files.len(), kept.files[0].bytes), (1, 1, 3));
        // A clone of the VM, and of a file alone.
        site.catalog().clone_vm(&version("a@s1"), &name("b")).await.unwrap();
        assert_eq!(files(&site, "b").await, [("notes".to_owned(), 3)]);
        assert_eq!(get(&site, "b/notes", 3).await, b"old");
        assert_eq!(code(site.catalog().clone_disk(&version("a"), "notes", &name("b")).await), "file_taken");
        site.catalog().clone_disk(&version("a"), "more", &name("b")).await.unwrap();
        assert_eq!(get(&site, "b/more", 1).await, b"m");
        // A revert leaves alone what is being stored.
        let (task, _) = site.transfers().begin_file(&name("a"), &file("late"), "", false).await.unwrap();
        site.catalog().revert(&name("a"), &name("s1")).await.unwrap();
        assert_eq!(files(&site, "a").await, [("notes".to_owned(), 3)]);
        site.transfers().finish(task.id, IMPORT).await.unwrap();
        assert_eq!(files(&site, "a").await, [("notes".to_owned(), 3), ("late".to_owned(), 0)]);
        // The snapshot that the revert made has what was there.
        site.catalog().revert(&name("a"), &name("s2")).await.unwrap();
        assert_eq!(get(&site, "a/notes", 5).await, b"newer");
        // Another disk is numbered as ever, and an export of the VM is one of its disks.
        assert_eq!(site.catalog().add_disk(&name("a"), MIB).await.unwrap().disks[1].name, "disk1");
        let (_, vm) = site.transfers().begin_export(&version("a"), None, "").await.unwrap();
        assert_eq!(vm.disks.len(), 2);
        let (task, vm) = site.transfers().begin_export(&version("a@s1"), Some("notes"), "").await.unwrap();
        assert_eq!((task.total_bytes, vm.disks.len()), (3, 1));
        for vm in ["a", "b"] {
            let how = catalog::Deletion { now: true, with_snapshots: true };
            site.catalog().delete_vm(&name(vm), how).await.unwrap();
        }
        assert_eq!(site.status().await.unwrap().provisioned_bytes, 0);
    });
    bench.stop(&site);
}

#[test]
fn what_was_not_stored_to_its_end_leaves_nothing() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4096]).await.unwrap();
        put(&site, "a", "kept", b"kept", false).await.unwrap();
        let (given_up, disk) =
            site.transfers().begin_file(&name("a"), &file("one"), "", false).await.unwrap();
        let open = site.exports().open(&disk.export).await.unwrap();
        site.transfers().cancel(given_up.id).await.unwrap();
        open.write(0, b"late".to_vec().into()).await.unwrap_err();
        assert_eq!(disks(&site).await, 2);
        site.transfers().begin_file(&name("a"), &file("kept"), "", true).await.unwrap();
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        while site.shared.transfers.round().await.is_ok_and(|done| !done) {}
        assert_eq!(files(&site, "a").await, [("kept".to_owned(), 4)]);
        assert_eq!((get(&site, "a/kept", 4).await, disks(&site).await), (b"kept".to_vec(), 2));
        for number in 1..FILES_MAX {
            put(&site, "a", &format!("f{number}"), b"", false).await.unwrap();
        }
        assert_eq!(
            code(site.transfers().begin_file(&name("a"), &file("f"), "", false).await),
            "too_many_files"
        );
    });
    bench.stop(&site);
}

/// The largest VM there can be goes through everything that takes it whole, in records and transactions that hold it.
#[test]
fn a_vm_at_its_limits() {
    let bench = Bench::new();
    let media = machine::FileMedia { count: 3, bytes: 1 << 30 };
    let options = bench.options("d", 3);
    let options = machine::Options { file_media: Some(media), sizes: machine::Sizes::Normal, ..options };
    let site = bench.start(options).unwrap().site;
    let (large, twin) = (name(&"v".repeat(63)), name(&"w".repeat(63)));
    let definition = "x".repeat(api::DEFINITION_BYTES_MAX);
    bench.runtime.block_on(async {
        site.catalog().create_vm(&large, &[MIB; api::DISKS_MAX]).await.unwrap();
        assert_eq!(code(site.catalog().add_disk(&large, 4096).await), "disk_count");
        for number in 0..FILES_MAX {
            put(&site, large.as_str(), &format!("{number:a>127}"), b"f", false).await.unwrap();
        }
        assert_eq!(
            code(site.transfers().begin_file(&large, &file("one-more"), "", false).await),
            "too_many_files"
        );
        site.catalog().set_definition(&large, &definition).await.unwrap();
        let longer = format!("{definition}x");
        let refused = site.catalog().set_definition(&large, &longer).await.unwrap_err();
        assert_eq!(refused.code, "definition_too_large");
        site.catalog().snapshot(&large, None).await.unwrap();
        site.catalog().snapshot(&large, Some(&name(&"s".repeat(63)))).await.unwrap();
        site.catalog().clone_vm(&version(large.as_str()), &twin).await.unwrap();
        site.catalog().revert(&large, &name("s1")).await.unwrap();
        site.catalog().rename_vm(&twin, &name("u")).await.unwrap();
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        for vm in [large.clone(), name("u")] {
            let (found, text) =
                (site.catalog().vm(&vm).await.unwrap(), site.catalog().definition(&vm).await.unwrap());
            assert_eq!((found.disks.len(), found.files.len()), (api::DISKS_MAX, FILES_MAX));
            assert_eq!(text, definition);
            let how = catalog::Deletion { now: vm != large, with_snapshots: true };
            site.catalog().delete_vm(&vm, how).await.unwrap();
        }
        // The trash takes it whole too.
        let item = site.catalog().trash(0, 1).await.unwrap()[0].id;
        site.catalog().restore(item, None).await.unwrap();
        assert_eq!(site.catalog().vm(&large).await.unwrap().files.len(), FILES_MAX);
    });
    bench.stop(&site);
}

#[test]
fn names_of_files() {
    for good in ["a", "0", "Win11_English_x64.iso", "disk", "disk0.raw", "a+b-c", &"x".repeat(127)] {
        assert_eq!(FileName::parse(good).map(|name| name.to_string()).ok().as_deref(), Some(good));
    }
    for bad in ["", ".a", "-a", "a/b", "a b", "a:1", "disk0", "disk17", "\u{e4}", &"x".repeat(128)] {
        assert!(FileName::parse(bad).is_err_and(|error| error.code == "invalid_name"), "{bad}");
    }
}
