//! The trash and holds.

use api::Problem;
use api::types::{
    Deleted, EmptyTrash, HowToDelete, ListTrash, Restore, Restored, Snapshot, Trash, TrashItem, TrashKind,
    TrashSetting,
};
use client::ClientErrorKind;

use super::raw::{exchange, request};
use super::snapshots::named;
use super::typed::{SOON, new_vm};
use super::{Bench, Fake, at_once, problem};
use crate::{Answer, Trashing};

impl Fake {
    /// What is deleted stays unless it is to go now.
    fn thrown(&self, kind: TrashKind, name: &str, how: HowToDelete) -> Deleted {
        let mut trash = self.trash.lock().unwrap();
        let id = trash.len() as u64 + 1;
        let item = TrashItem {
            id,
            kind,
            name: name.to_owned(),
            deleted_ms: 1,
            expires_ms: 2,
            bytes: 3,
            used_bytes: 4,
            snapshots: u64::from(how.with_snapshots),
        };
        if how.now {
            return Deleted { deleted: name.to_owned(), trash: None };
        }
        trash.push(item.clone());
        Deleted { deleted: name.to_owned(), trash: Some(item) }
    }
}

impl Trashing for Fake {
    fn delete_vm<'a>(&'a self, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted> {
        let removed = self.vms.lock().unwrap().remove(name);
        at_once(match removed {
            Some(_) => Ok(self.thrown(TrashKind::Vm, name, how)),
            None => Err(problem("vm_not_found")),
        })
    }

    fn delete_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, how: HowToDelete) -> Answer<'a, Deleted> {
        let name = format!("{vm}@{name}");
        let removed = self.snapshots.lock().unwrap().remove(&name);
        at_once(match removed {
            Some(_) => Ok(self.thrown(TrashKind::Snapshot, &name, how)),
            None => Err(problem("snapshot_not_found")),
        })
    }

    fn hold_snapshot<'a>(&'a self, vm: &'a str, name: &'a str, until: &'a str) -> Answer<'a, Snapshot> {
        let mut snapshots = self.snapshots.lock().unwrap();
        let Some(found) = snapshots.get_mut(&format!("{vm}@{name}")) else {
            return at_once(Err(problem("snapshot_not_found")));
        };
        found.held_until_ms = until.len() as u64;
        at_once(Ok(found.clone()))
    }

    fn trash(&self, which: ListTrash) -> Answer<'_, Trash> {
        let trash = self.trash.lock().unwrap();
        let items = trash.iter().filter(|item| item.id > which.after).take(which.limit as usize);
        let items: Vec<TrashItem> = items.cloned().collect();
        let next = items.last().filter(|_| items.len() as u64 == which.limit).map(|last| last.id);
        at_once(Ok(Trash { items, next, keep_seconds: 7 }))
    }

    fn set_trash(&self, setting: TrashSetting) -> Answer<'_, TrashSetting> {
        at_once(if setting.keep_seconds == 5 { Err(problem("no_space")) } else { Ok(setting) })
    }

    fn restore<'a>(&'a self, id: u64, new: Option<&'a str>) -> Answer<'a, Restored> {
        at_once(Ok(Restored { restored: format!("{id} {}", new.unwrap_or("-")) }))
    }

    fn condemn_trash(&self, which: EmptyTrash) -> Answer<'_, ()> {
        let mut trash = self.trash.lock().unwrap();
        trash.iter_mut().filter(|item| which.items.contains(&item.id)).for_each(|item| item.expires_ms = 0);
        at_once(Ok(()))
    }

    fn empty_trash(&self, id: u64) -> Answer<'_, ()> {
        self.trash.lock().unwrap().retain(|item| item.id != id);
        at_once(Ok(()))
    }

    fn with_room_hint(&self, problem: Problem) -> seam::BoxFuture<'_, Problem> {
        let hint = if problem.code == "no_space" { "empty it".to_owned() } else { problem.hint };
        Box::pin(std::future::ready(Problem { hint, ..problem }))
    }
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        for name in ["a", "b", "c"] {
            client.create_vm(&new_vm(name)).await.unwrap();
        }
        client.snapshot("a", &named("s1")).await.unwrap();
        assert_eq!(client.hold_snapshot("a", "s1", "30d").await.unwrap().held_until_ms, 3);
        let (kept, all) = (HowToDelete::default(), HowToDelete { with_snapshots: true, now: false });
        assert_eq!(client.delete_snapshot("a", "s1", kept).await.unwrap().trash.unwrap().name, "a@s1");
        assert_eq!(client.delete_vm("a", all).await.unwrap().trash.unwrap().snapshots, 1);
        let now = HowToDelete { now: true, with_snapshots: false };
        assert_eq!(client.delete_vm("b", now).await.unwrap().trash, None);
        assert_eq!(client.delete_vm("c", kept).await.unwrap().trash.unwrap().id, 3);
        let page = client.trash(&ListTrash { after: 1, limit: 1 }).await.unwrap();
        assert_eq!((page.items[0].id, page.next, page.keep_seconds), (2, Some(2), 7));
        client.condemn_trash(&EmptyTrash { items: vec![1, 7] }).await.unwrap();
        client.empty_trash(2).await.unwrap();
        let all = client.trash(&ListTrash { after: 0, limit: 9 }).await.unwrap();
        assert_eq!((all.items.iter().map(|item| item.id).collect::<Vec<_>>(), all.next), (vec![1, 3], None));
        assert_eq!((all.items[0].expires_ms, all.items[1].expires_ms), (0, 2));
        for wrong in [vec![], vec![1; 1001]] {
            let refused = client.condemn_trash(&EmptyTrash { items: wrong }).await.unwrap_err();
            assert!(
                matches!(refused.kind, ClientErrorKind::Refused(problem) if problem.code == "invalid_request")
            );
        }
        assert_eq!(client.restore(1, &Restore { new_name: None }).await.unwrap().restored, "1 -");
        let other = Restore { new_name: Some("x".to_owned()) };
        assert_eq!(client.restore(3, &other).await.unwrap().restored, "3 x");
        let set = client.set_trash(TrashSetting { keep_seconds: 60 }).await.unwrap();
        assert_eq!(set.keep_seconds, 60);
        let full = client.set_trash(TrashSetting { keep_seconds: 5 }).await.unwrap_err();
        assert!(matches!(full.kind, ClientErrorKind::Refused(problem) if problem.hint == "empty it"));
    });
    let (status, _, body) = exchange(&bench, &request("GET", "/api/v1/trash", "application/json", ""));
    assert!(status == 200 && body.contains("a@s1"), "{body}");
    let (status, _, body) = exchange(&bench, &request("DELETE", "/api/v1/vms/x?later=1", "text/plain", ""));
    assert!(status == 422 && body.contains("invalid_request"), "{body}");
    let (status, _, body) =
        exchange(&bench, &request("POST", "/api/v1/trash/1/restore", "application/json", "{\"as\":\"n\"}"));
    assert_eq!((status, body.as_str()), (200, "{\"restored\":\"1 n\"}"));
}
