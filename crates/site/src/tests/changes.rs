//! Changes of VMs: names, disks, definitions; and how a guest gets a disk.

use std::path::Path;

use api::types::{ListVms, VmState};
use api::{DISKS_MAX, VmName};
use nbd::Exports;

use super::{Bench, NOW};
use crate::Site;
use crate::attach;
use machine::Options;

const MIB: u64 = 1 << 20;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: api::Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
    error.code.name
}

async fn disks(site: &Site, vm: &str) -> Vec<(String, u64)> {
    let vm = site.catalog().vm(&name(vm)).await.unwrap();
    vm.disks.into_iter().map(|disk| (disk.name, disk.bytes)).collect()
}

#[test]
fn a_vm_gets_another_name_unless_it_is_open() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        site.catalog().create_vm(&name("b"), &[MIB]).await.unwrap();
        site.catalog().set_definition(&name("a"), "<domain/>").await.unwrap();
        let open = site.exports().open("a/disk0").await.unwrap();
        open.write(0, b"kept".to_vec().into()).await.unwrap();
        assert_eq!(code(site.catalog().rename_vm(&name("a"), &name("c")).await), "vm_in_use");
        drop(open);
        assert_eq!(code(site.catalog().rename_vm(&name("a"), &name("b")).await), "vm_exists");
        assert_eq!(code(site.catalog().rename_vm(&name("x"), &name("c")).await), "vm_not_found");
        assert_eq!(site.catalog().rename_vm(&name("a"), &name("a")).await.unwrap().name, "a");
        let renamed = site.catalog().rename_vm(&name("a"), &name("c")).await.unwrap();
        assert_eq!((renamed.name.as_str(), renamed.disks[0].export.as_str()), ("c", "c/disk0"));
        assert!(site.exports().open("a/disk0").await.is_err());
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        let names: Vec<String> =
            site.catalog().vms(&ListVms::default()).await.unwrap().into_iter().map(|vm| vm.name).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(site.catalog().definition(&name("c")).await.unwrap(), "<domain/>");
        let open = site.exports().open("c/disk0").await.unwrap();
        assert_eq!(open.read(0, 4).await.unwrap(), b"kept"[..]);
    });
    bench.stop(&site);
}

#[test]
fn disks_come_and_go() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let vm = name("a");
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        assert_eq!(code(site.catalog().remove_disk(&vm, "disk0").await), "disk_count");
        site.catalog().add_disk(&vm, 2 * MIB).await.unwrap();
        let added = site.catalog().add_disk(&vm, 3 * MIB).await.unwrap();
        assert_eq!(added.disks[2].export, "a/disk2");
        let open = site.exports().open("a/disk1").await.unwrap();
        assert_eq!(code(site.catalog().remove_disk(&vm, "disk1").await), "vm_in_use");
        // Another disk of the VM is in nobody's way.
        site.catalog().remove_disk(&vm, "disk0").await.unwrap();
        drop(open);
        assert_eq!(code(site.catalog().remove_disk(&vm, "disk0").await), "disk_not_found");
        assert_eq!(disks(&site, "a").await, [("disk1".to_owned(), 2 * MIB), ("disk2".to_owned(), 3 * MIB)]);
        // The name of a disk that went is not given again while a later one is there.
        assert_eq!(site.catalog().add_disk(&vm, MIB).await.unwrap().disks[2].name, "disk3");
        assert_eq!(code(site.catalog().add_disk(&vm, 5000).await), "invalid_size");
        for _ in 3..DISKS_MAX {
            site.catalog().add_disk(&vm, MIB).await.unwrap();
        }
        assert_eq!(code(site.catalog().add_disk(&vm, MIB).await), "disk_count");
        assert_eq!(disks(&site, "a").await.len(), DISKS_MAX);
        let logical = site.status().await.unwrap().logical_bytes;
        site.catalog().delete_vm(&vm, NOW).await.unwrap();
        assert_eq!(logical, 0);
    });
    bench.stop(&site);
}

#[test]
fn a_disk_grows_at_any_time_and_shrinks_only_when_told_and_closed() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        let vm = name("a");
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        let open = site.exports().open("a/disk0").await.unwrap();
        site.catalog().resize_disk(&vm, "disk0", 2 * MIB, false).await.unwrap();
        assert_eq!(open.size(), 2 * MIB);
        open.write(0, vec![7; 2 * MIB as usize].into()).await.unwrap();
        assert_eq!(code(site.catalog().resize_disk(&vm, "disk0", MIB, false).await), "would_shrink");
        assert_eq!(code(site.catalog().resize_disk(&vm, "disk0", MIB, true).await), "vm_in_use");
        assert_eq!(open.read(2 * MIB - 1, 1).await.unwrap(), [7][..], "nothing was cut off");
        drop(open);
        assert_eq!(code(site.catalog().resize_disk(&vm, "disk0", 1000, true).await), "invalid_size");
        assert_eq!(code(site.catalog().resize_disk(&vm, "disk1", MIB, true).await), "disk_not_found");
        site.catalog().resize_disk(&vm, "disk0", MIB, true).await.unwrap();
        // What was cut off does not come back.
        site.catalog().resize_disk(&vm, "disk0", 2 * MIB, false).await.unwrap();
        let open = site.exports().open("a/disk0").await.unwrap();
        assert_eq!(open.read(MIB - 1, 2).await.unwrap(), [7, 0][..]);
    });
    bench.stop(&site);
}

#[test]
fn definitions_are_kept_with_their_vm_and_go_with_it() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let vm = name("a");
    let largest = 8 << 10;
    // Does not compress: each takes its room in the journal.
    let text = |seed: u64| {
        let mut state = seed;
        let letters = std::iter::from_fn(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(char::from(b' ' + ((state >> 33) % 94) as u8))
        });
        letters.take(largest).collect::<String>()
    };
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        assert_eq!(code(site.catalog().definition(&vm).await), "no_definition");
        assert!(!site.catalog().vm(&vm).await.unwrap().has_definition);
        // More of them than a segment's start record could carry together.
        for seed in 0..40 {
            site.catalog().set_definition(&vm, &text(seed)).await.unwrap();
        }
        assert_eq!(
            code(site.catalog().set_definition(&vm, &format!("{}x", text(1))).await),
            "definition_too_large"
        );
        assert!(site.catalog().vm(&vm).await.unwrap().has_definition);
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        assert!(site.catalog().definition(&vm).await.unwrap() == text(39));
        site.catalog().set_definition(&vm, "").await.unwrap();
        assert_eq!(code(site.catalog().definition(&vm).await), "no_definition");
        site.catalog().set_definition(&vm, "again").await.unwrap();
        site.catalog().delete_vm(&vm, NOW).await.unwrap();
        assert_eq!(code(site.catalog().definition(&vm).await), "vm_not_found");
        let left =
            meta::list(&*site.engine().meta(), meta::Table::<meta::Shard>::new("definition").all(), 10)
                .await
                .unwrap();
        assert!(left.0.is_empty(), "the text goes with its VM");
        let made = site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        assert_eq!((made.has_definition, made.state), (false, VmState::Ready));
    });
    bench.stop(&site);
}

/// Metadata alone, on a site so small that its checkpoints would fill it: the cleaner keeps up with them, or changes are
/// refused for a while, and the site goes on.
#[test]
fn changes_alone_never_use_up_the_journal() {
    const HUGE: u64 = 64 << 40;
    // Each brings a checkpoint, whose predecessor the cleaner frees.
    const ROUNDS: u64 = 1500;
    let bench = Bench::new();
    let patience = Some(std::time::Duration::from_secs(1));
    let options = Options { write_patience: patience, ..bench.options("d", 3) };
    let site = bench.start(options).unwrap().site;
    let vm = name("a");
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[HUGE]).await.unwrap();
        for round in 0..ROUNDS {
            let text = format!("{round} ").repeat(1500);
            let mut results = vec![site.catalog().set_definition(&vm, &text).await];
            if round % 8 == 0 {
                // Spans what no loop over blocks would come to the end of.
                results
                    .push(site.catalog().resize_disk(&vm, "disk0", 4096 * (1 + round), true).await.map(drop));
                results.push(site.catalog().resize_disk(&vm, "disk0", HUGE, false).await.map(drop));
            }
            let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
            assert!(errors.iter().all(|error| error.code == "no_space"), "{errors:?}");
            let used = site.engine().status().await.journal_used_percent;
            assert!(used <= 200, "{used} % of the journal are used in round {round}");
        }
        site.catalog().delete_vm(&vm, NOW).await.unwrap();
        assert_eq!(code(site.catalog().vm(&vm).await), "vm_not_found");
    });
    bench.stop(&site);
    drop(site);
    // What is there takes over, and is writable.
    let site = bench.start(bench.later("d")).unwrap().site;
    assert!(bench.runtime.block_on(site.engine().status()).stuck.is_none());
    bench.stop(&site);
}

#[test]
fn lines_for_guests_are_quoted_for_their_readers() {
    let info = attach::disk("web01/disk27", 27, Path::new("/srv/it's <a> & b/nbd.sock"));
    let word = info.qemu[0].strip_prefix("-blockdev '").unwrap().strip_suffix('\'').unwrap();
    let value: serde_json::Value = serde_json::from_str(&word.replace(r"'\''", "'")).unwrap();
    assert_eq!(value["server"]["path"], "/srv/it's <a> & b/nbd.sock");
    assert_eq!((&value["export"], &value["node-name"]), (&"web01/disk27".into(), &"disk27".into()));
    assert_eq!(value["reconnect-delay"], 300);
    assert_eq!(info.qemu[1], "-device virtio-blk-pci,drive=disk27,id=disk27-device,serial=disk27");
    assert!(info.libvirt.contains("socket='/srv/it&apos;s &lt;a&gt; &amp; b/nbd.sock'"), "{}", info.libvirt);
    assert!(info.libvirt.contains("<target dev='vdab' bus='virtio'/>"), "{}", info.libvirt);
    assert_eq!(info.uri, "nbd+unix:///web01/disk27?socket=/srv/it%27s%20%3Ca%3E%20%26%20b/nbd.sock");
    let first = attach::disk("web01/disk0", 0, Path::new("/s"));
    assert!(first.libvirt.contains("dev='vda'"));
}

/// Whoever stores a large definition pays for that one, whatever others there are, and what checkpoints supersede is freed.
#[test]
fn large_definitions_cost_what_they_are() {
    const VMS: usize = 40;
    let bench = Bench::new();
    let medium = machine::FileMedia { count: 3, bytes: 1 << 30 };
    let options = Options { sizes: machine::Sizes::Normal, file_media: Some(medium), ..bench.later("d") };
    let site = bench.start(options).unwrap().site;
    // Letters of a key stream: as good as random, and one byte each.
    let text = |seed: u64| {
        let mut state = seed;
        let letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(char::from(b' ' + ((state >> 33) % 94) as u8))
        };
        std::iter::from_fn(letter).take(api::DEFINITION_BYTES_MAX).collect::<String>()
    };
    bench.runtime.block_on(async {
        for number in 0..VMS {
            let vm = name(&format!("v{number}"));
            site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
            site.catalog().set_definition(&vm, &text(number as u64)).await.unwrap();
        }
        let stored = site.status().await.unwrap().stored_bytes;
        let own = (VMS * api::DEFINITION_BYTES_MAX) as u64;
        assert!(stored < 3 * own, "{stored} bytes for {own} of definitions");
    });
    bench.stop(&site);
}
