//! The trash and holds.

use api::types::{EmptyTrash, HowToDelete, ListTrash, Restore, TrashSetting};

use super::raw::{exchange, request};
use super::snapshots::named;
use super::typed::{SOON, new_vm};
use super::{Bench, code};

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        for name in ["a", "b", "c", "d"] {
            client.create_vm(&new_vm(name)).await.unwrap();
        }
        let (kept, all) = (HowToDelete::default(), HowToDelete { with_snapshots: true, now: false });
        for name in ["s1", "s2", "held"] {
            client.snapshot("a", &named(name)).await.unwrap();
        }
        let held = client.hold_snapshot("a", "held", "1h").await.unwrap();
        assert!(held.held_until_ms > held.created_ms + 3_500_000, "{held:?}");
        assert_eq!(code(client.delete_snapshot("a", "held", kept).await), "snapshot_held");
        assert_eq!(client.delete_snapshot("a", "s1", kept).await.unwrap().trash.unwrap().name, "a@s1");
        client.snapshot("d", &named("s1")).await.unwrap();
        assert_eq!(code(client.delete_vm("d", kept).await), "vm_has_snapshots");
        assert_eq!(client.delete_vm("d", all).await.unwrap().trash.unwrap().snapshots, 1);
        let now = HowToDelete { now: true, with_snapshots: false };
        assert_eq!(client.delete_vm("b", now).await.unwrap().trash, None);
        let last = client.delete_vm("c", kept).await.unwrap().trash.unwrap().id;
        let every = client.trash(&ListTrash { after: 0, limit: 9 }).await.unwrap();
        let ids: Vec<u64> = every.items.iter().map(|item| item.id).collect();
        assert_eq!((ids.len(), ids.last(), every.next), (3, Some(&last), None));
        let page = client.trash(&ListTrash { after: ids[0], limit: 1 }).await.unwrap();
        assert_eq!((page.items[0].id, page.next), (ids[1], Some(ids[1])));
        assert_eq!(client.restore(ids[0], &Restore { new_name: None }).await.unwrap().restored, "a@s1");
        let other = Restore { new_name: Some("x".to_owned()) };
        assert_eq!(client.restore(ids[1], &other).await.unwrap().restored, "x");
        client.condemn_trash(&EmptyTrash { items: vec![last, 1 << 40] }).await.unwrap();
        let gone = code(client.restore(last, &Restore { new_name: None }).await);
        // It goes by itself.
        assert!(["trash_emptying", "trash_not_found"].contains(&gone.as_str()), "{gone}");
        for wrong in [vec![], vec![1; 1001]] {
            assert_eq!(code(client.condemn_trash(&EmptyTrash { items: wrong }).await), "invalid_request");
        }
        let set = client.set_trash(TrashSetting { keep_seconds: 7200 }).await.unwrap();
        assert_eq!(set.keep_seconds, 7200);
        let gone = client.delete_vm("x", all).await.unwrap().trash.unwrap();
        let page = client.trash(&ListTrash { after: gone.id - 1, limit: 1 }).await.unwrap();
        assert_eq!((page.items[0].id, page.keep_seconds), (gone.id, 7200));
        client.empty_trash(gone.id).await.unwrap();
        assert_eq!(code(client.empty_trash(gone.id).await), "trash_not_found");
    });
}

#[test]
fn names_and_questions_are_read_as_they_are_written() {
    let bench = Bench::new();
    let json = "application/json";
    let send = |method, path: &str, body: &str| exchange(&bench, &request(method, path, json, body));
    send("POST", "/api/v1/vms", r#"{"name":"a","disks":[{"bytes":4096}]}"#);
    let (status, _, body) = send("DELETE", "/api/v1/vms/a?later=1", "");
    assert!(status == 422 && body.contains("invalid_request"), "{body}");
    send("DELETE", "/api/v1/vms/a", "");
    let (status, _, body) = send("GET", "/api/v1/trash", "");
    assert!(status == 200 && body.contains(r#""name":"a""#), "{body}");
    let id = serde_json::from_str::<api::types::Trash>(&body).unwrap().items[0].id;
    let (status, _, body) = send("POST", &format!("/api/v1/trash/{id}/restore"), r#"{"as":"n"}"#);
    assert_eq!((status, body.as_str()), (200, r#"{"restored":"n"}"#));
}
