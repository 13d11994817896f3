//! Goal: changes of one VM that come at once all happen, one after the other; only what contradicts another is a conflict.

use std::collections::BTreeSet;

use api::types::{ChangeAttributes, TaskKind};
use api::{FileName, Result, Version, VmName};

use super::Bench;
use crate::Site;

/// At once, of each kind.
const AT_ONCE: usize = 12;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn file(number: usize) -> FileName {
    FileName::parse(&format!("f{number}")).unwrap()
}

/// Runs so many at once, each in a task of its own; gives how they ended.
async fn at_once<T: Send + 'static>(
    site: &Site,
    work: impl AsyncFn(Site, usize) -> Result<T>,
) -> Vec<Result<T>> {
    let all = (0..AT_ONCE).map(|number| work(site.clone(), number));
    seam::join_all(all).await
}

fn codes<T>(ended: &[Result<T>]) -> Vec<&'static str> {
    ended.iter().filter_map(|one| one.as_ref().err().map(|error| error.code.name)).collect()
}

#[test]
fn changes_at_once_all_happen() {
    let bench = Bench::new();
    let site = bench.start(bench.options("d", 3)).unwrap().site;
    bench.runtime.block_on(async {
        site.catalog().create_vm(&name("a"), &[4096]).await.unwrap();
        let made = at_once(&site, async |site, _| site.catalog().snapshot(&name("a"), None).await).await;
        assert!(codes(&made).is_empty(), "{:?}", codes(&made));
        let names: BTreeSet<String> = made.into_iter().map(|made| made.unwrap().name).collect();
        assert_eq!(names.len(), AT_ONCE, "each has a name of its own");

        let added = at_once(&site, async |site, _| site.catalog().add_disk(&name("a"), 4096).await).await;
        assert!(codes(&added).is_empty(), "{:?}", codes(&added));
        assert_eq!(site.catalog().vm(&name("a")).await.unwrap().disks.len(), 1 + AT_ONCE);
        let sized = at_once(&site, async |site, number| {
            site.catalog().resize_disk(&name("a"), &format!("disk{number}"), 8192, false).await
        });
        assert!(codes(&sized.await).is_empty());
        let removed = at_once(&site, async |site, number| {
            site.catalog().remove_disk(&name("a"), &format!("disk{}", number + 1)).await
        });
        assert!(codes(&removed.await).is_empty());

        let tagged = at_once(&site, async |site, number| {
            let add_tags = vec![format!("t{number}")];
            let change = ChangeAttributes { add_tags, ..ChangeAttributes::default() };
            site.catalog().change_attributes(&name("a"), &change).await
        });
        assert!(codes(&tagged.await).is_empty());
        assert_eq!(site.catalog().vm(&name("a")).await.unwrap().attributes.tags.len(), AT_ONCE);

        let stored = at_once(&site, async |site, number| {
            let (task, _) = site.transfers().begin_file(&name("a"), &file(number), "", false).await?;
            site.catalog().grow_file(&name("a"), &file(number), 4096).await?;
            site.transfers().finish(task.id, TaskKind::Import).await
        });
        let stored = stored.await;
        assert!(codes(&stored).is_empty(), "{:?}", codes(&stored));
        // All kinds at once.
        let mixed = at_once(&site, async |site, number| match number % 6 {
            0 => site.catalog().snapshot(&name("a"), None).await.map(drop),
            1 => site.catalog().set_definition(&name("a"), &format!("text {number}")).await,
            2 => site.catalog().remove_file(&name("a"), &file(number)).await,
            3 => {
                let from = Version::parse("a").unwrap();
                site.catalog().clone_vm(&from, &name(&format!("b{number}"))).await.map(drop)
            }
            4 => site
                .catalog()
                .clone_disk(&Version::parse("a@s1").unwrap(), "disk0", &name("a"))
                .await
                .map(drop),
            _ => {
                site.catalog().delete_snapshot(&name("a"), &name(&format!("s{number}")), true).await.map(drop)
            }
        });
        let mixed = mixed.await;
        assert!(codes(&mixed).is_empty(), "{:?}", codes(&mixed));

        // What contradicts another is refused, by its reason.
        let same =
            at_once(&site, async |site, _| site.catalog().snapshot(&name("a"), Some(&name("same"))).await)
                .await;
        assert_eq!(codes(&same), vec!["snapshot_exists"; AT_ONCE - 1]);
        let gone = at_once(&site, async |site, number| {
            site.catalog().rename_vm(&name("a"), &name(&format!("c{number}"))).await
        });
        let gone = gone.await;
        assert_eq!(codes(&gone), vec!["vm_not_found"; AT_ONCE - 1]);
    });
    bench.stop(&site);
}
