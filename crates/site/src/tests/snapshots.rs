//! Snapshots, clones and reverts: their definitions, their names, and what stands in the way.

use api::{Version, VmName};
use nbd::Exports;

use super::{Bench, NOW};
use crate::Site;

const MIB: u64 = 1 << 20;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: api::Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
    error.code.name
}

/// How many keys of a table there are.
async fn count(site: &Site, table: &'static str) -> usize {
    meta::list(&*site.engine().meta(), meta::Table::<meta::Shard>::new(table).all(), 1000)
        .await
        .unwrap()
        .0
        .len()
}

#[test]
fn a_definition_stays_as_long_as_somebody_has_it() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let vm = name("a");
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB]).await.unwrap();
        site.catalog().set_definition(&vm, "one").await.unwrap();
        site.catalog().snapshot(&vm, None).await.unwrap();
        site.catalog().snapshot(&vm, Some(&name("also"))).await.unwrap();
        site.catalog().set_definition(&vm, "two").await.unwrap();
        assert_eq!((count(&site, "definition").await, count(&site, "definition-use").await), (2, 2));
        // Its own, to be changed in its place.
        site.catalog().set_definition(&vm, "three").await.unwrap();
        assert_eq!(count(&site, "definition").await, 2);
        site.catalog().clone_vm(&version("a@s1"), &name("b")).await.unwrap();
        assert_eq!(site.catalog().definition(&name("b")).await.unwrap(), "one");
        let (reverted, kept) = site.catalog().revert(&vm, &name("s1")).await.unwrap();
        assert_eq!((reverted.has_definition, kept.name.as_str()), (true, "s2"));
        assert_eq!(site.catalog().definition(&vm).await.unwrap(), "one");
        site.catalog().delete_snapshot(&vm, &name("s1"), true).await.unwrap();
        site.catalog().delete_snapshot(&vm, &name("also"), true).await.unwrap();
        assert_eq!(site.catalog().definition(&vm).await.unwrap(), "one");
        site.catalog().revert(&vm, &name("s2")).await.unwrap();
        assert_eq!(site.catalog().definition(&vm).await.unwrap(), "three");
        site.catalog().set_definition(&vm, "").await.unwrap();
        assert_eq!(code(site.catalog().delete_vm(&vm, NOW).await), "vm_has_snapshots");
        for snapshot in ["s2", "s3"] {
            site.catalog().delete_snapshot(&vm, &name(snapshot), true).await.unwrap();
        }
        assert_eq!(site.catalog().definition(&name("b")).await.unwrap(), "one");
        for vm in ["a", "b"] {
            site.catalog().delete_vm(&name(vm), NOW).await.unwrap();
        }
        for table in ["definition", "definition-use", "snapshot", "vm"] {
            assert_eq!(count(&site, table).await, 0, "{table}");
        }
    });
    bench.stop(&site);
}

/// As many as a segment's start record could not carry together.
#[test]
fn clones_with_the_largest_definition_are_made_one_behind_the_other() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let mut state = 7_u64;
    let letters = std::iter::from_fn(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(char::from(b' ' + ((state >> 33) % 94) as u8))
    });
    let text: String = letters.take(8 << 10).collect();
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[MIB]).await.unwrap();
        site.catalog().set_definition(&name("a"), &text).await.unwrap();
        for clone in 0..24 {
            site.catalog().clone_vm(&version("a"), &name(&format!("b{clone}"))).await.unwrap();
        }
        assert!(site.catalog().definition(&name("b23")).await.unwrap() == text);
    });
    bench.stop(&site);
    drop(site);
    let site = bench.start(bench.later("d")).unwrap().site;
    bench.runtime.block_on(async {
        assert!(site.catalog().definition(&name("b0")).await.unwrap() == text);
    });
    bench.stop(&site);
}

#[test]
fn names_go_on_and_what_is_open_stays() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    let vm = name("a");
    bench.runtime.block_on(async {
        site.catalog().create_vm(&vm, &[MIB, MIB]).await.unwrap();
        site.catalog().snapshot(&vm, Some(&name("s2"))).await.unwrap();
        assert_eq!(site.catalog().snapshot(&vm, None).await.unwrap().name, "s1");
        assert_eq!(site.catalog().snapshot(&vm, None).await.unwrap().name, "s3", "s2 is taken");
        assert_eq!(code(site.catalog().snapshot(&vm, Some(&name("s1"))).await), "snapshot_exists");
        site.catalog().delete_snapshot(&vm, &name("s3"), true).await.unwrap();
        assert_eq!(site.catalog().snapshot(&vm, None).await.unwrap().name, "s4", "no name is given twice");
        // Two connections: a snapshot is read by many.
        let open = [site.exports().open("a@s1/disk1").await, site.exports().open("a@s1/disk1").await];
        let open = open.map(Result::unwrap);
        assert!(open[0].read_only() && open[0].size() == MIB);
        assert!(open[0].write(0, b"no".to_vec().into()).await.is_err());
        assert_eq!(code(site.catalog().delete_snapshot(&vm, &name("s1"), true).await), "vm_in_use");
        assert_eq!(code(site.catalog().rename_snapshot(&vm, &name("s1"), &name("x")).await), "vm_in_use");
        drop(open);
        assert_eq!(
            code(site.catalog().rename_snapshot(&vm, &name("s1"), &name("s2")).await),
            "snapshot_exists"
        );
        assert_eq!(site.catalog().rename_snapshot(&vm, &name("s1"), &name("x")).await.unwrap().name, "x");
        assert!(site.exports().open("a@s1/disk1").await.is_err());
        // A VM of other disks goes back to those it had.
        site.catalog().remove_disk(&vm, "disk0").await.unwrap();
        site.catalog().resize_disk(&vm, "disk1", 2 * MIB, false).await.unwrap();
        let (back, kept) = site.catalog().revert(&vm, &name("x")).await.unwrap();
        let sizes = |disks: Vec<(String, u64)>| disks;
        let disks = back.disks.into_iter().map(|disk| (disk.name, disk.bytes)).collect();
        assert_eq!(sizes(disks), [("disk0".to_owned(), MIB), ("disk1".to_owned(), MIB)]);
        assert_eq!((kept.disks.len(), kept.disks[0].bytes), (1, 2 * MIB));
        // While one of them is open it stays as it is, and nothing is kept.
        let open = site.exports().open("a/disk0").await.unwrap();
        assert_eq!(code(site.catalog().revert(&vm, &name("x")).await), "vm_in_use");
        drop(open);
        assert_eq!(code(site.catalog().revert(&vm, &name("none")).await), "snapshot_not_found");
        assert_eq!(site.catalog().snapshots(Some(&vm), None, 10).await.unwrap().len(), 4);
    });
    bench.stop(&site);
}
