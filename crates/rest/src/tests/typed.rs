//! The client and the server together.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use api::types::{
    AddDisk, ChangeDisk, CreateVm, Definition, GiveUp, Health, HowToDelete, NewDisk, NewExport, NewImport,
    Progress, TaskKind, TaskState,
};
use client::ClientErrorKind;

use super::Bench;
use super::raw::request;

pub(super) const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_millis(200);

pub(super) fn new_vm(name: &str) -> CreateVm {
    CreateVm { name: name.to_owned(), disks: vec![NewDisk { bytes: 1 << 50 }] }
}

#[test]
fn calls_are_answered() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    assert_eq!(bench.socket().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    bench.runtime.block_on(async {
        let status = client.status().await.unwrap();
        assert_eq!((status.health, status.logical_bytes), (Health::Degraded, u64::MAX));
        assert_eq!(client.vms().await.unwrap().items.len(), 0);
        let made = client.create_vm(&new_vm("web01")).await.unwrap();
        assert_eq!(made.disks[0].bytes, 1 << 50);
        assert_eq!(client.vm("web01").await.unwrap(), made);
        assert_eq!(client.vms().await.unwrap().items[0].name, "web01");
        let refused = client.create_vm(&new_vm("web01")).await.unwrap_err();
        let ClientErrorKind::Refused(problem) = refused.kind else { panic!("{refused:?}") };
        assert_eq!((problem.status, problem.code.as_str()), (409, "vm_exists"));
        assert_eq!((problem.detail.as_str(), problem.hint.as_str()), ("why", "what next"));
        client.delete_vm("web01", HowToDelete::default()).await.unwrap();
        for name in ["web01", "a/b", "ä?#", "..", "%2F"] {
            let refused = client.vm(name).await.unwrap_err();
            let ClientErrorKind::Refused(problem) = refused.kind else { panic!("{refused:?}") };
            assert_eq!(problem.code, "vm_not_found", "{name:?} must reach the backend as a name");
        }
    });
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        assert_eq!(
            client.add_disk("a", &AddDisk::Empty(NewDisk { bytes: 4096 })).await.unwrap().disks[1].name,
            "disk1"
        );
        let change = |bytes, shrink| ChangeDisk { bytes, shrink };
        let changed = client.change_disk("a", "disk1", &change(8192, false)).await.unwrap();
        assert_eq!(changed.disks[1].bytes, 8192);
        let refused = client.change_disk("a", "disk1", &change(4096, false)).await.unwrap_err();
        assert!(matches!(refused.kind, ClientErrorKind::Refused(problem) if problem.code == "would_shrink"));
        assert_eq!(client.change_disk("a", "disk1", &change(4096, true)).await.unwrap().disks[1].bytes, 4096);
        assert_eq!(client.attach_info("a", "b/c").await.unwrap().export, "a/b/c");
        client.remove_disk("a", "disk1").await.unwrap();
        // More than other bodies may have.
        let text = "<\"\n".repeat(100_000);
        client.set_definition("a", &Definition { text: text.clone() }).await.unwrap();
        assert!(client.definition("a").await.unwrap().text == text);
        assert_eq!(client.rename_vm("a", "b").await.unwrap().name, "b");
        assert!(client.media().await.unwrap().items.is_empty());
        assert_eq!(client.tasks().await.unwrap().items[0].id, 2);
        assert_eq!(client.task(2).await.unwrap().state, TaskState::Done);
        assert_eq!(client.cancel_task(9).await.unwrap().state, TaskState::Cancelled);
        let import =
            NewImport { name: "c".to_owned(), disks: vec![NewDisk { bytes: 4096 }], source: String::new() };
        let begun = client.begin_import(&import).await.unwrap();
        assert_eq!((begun.task.id, begun.disks[0].export.as_str()), (7, "c/disk0"));
        let export = NewExport { vm: "b".to_owned(), disk: None, destination: String::new() };
        assert_eq!(client.begin_export(&export).await.unwrap().task.id, 8);
        for kind in [TaskKind::Import, TaskKind::Export] {
            let most = i64::MAX as u64;
            let far = |total_bytes| Progress { done_bytes: 1, total_bytes };
            let told = client.progress(kind, 7, &far(most)).await.unwrap();
            assert_eq!((told.kind, told.total_bytes), (kind, most));
            let refused = client.progress(kind, 7, &far(most + 1)).await.unwrap_err();
            assert!(matches!(refused.kind, ClientErrorKind::Refused(problem) if problem.status == 422));
            assert_eq!(client.finish(kind, 7).await.unwrap().state, TaskState::Done);
            let failed = client.give_up(kind, 7, &GiveUp { error: "why".to_owned() }).await.unwrap();
            assert_eq!((failed.kind, failed.error.as_deref()), (kind, Some("why")));
        }
    });
}

/// `HOLDFAST_REGENERATE=1 cargo test -p api` writes the file anew.
#[test]
fn the_description_in_the_repository_is_the_one_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let made = crate::openapi();
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "docs/openapi.json is not up to date: HOLDFAST_REGENERATE=1 cargo test -p api");
    assert!(made.contains("\"openapi\": \"3.1"));
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(&request("GET", "/api/v1/openapi.json", "text/plain", "")).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/json") && body == made, "{head}");
}

#[test]
fn calls_end_in_time_and_say_who_does_not_answer() {
    let mut bench = Bench::new();
    let client = bench.client(AT_ONCE);
    bench.fake.hangs.send_replace(true);
    let late = bench.runtime.block_on(client.status()).unwrap_err();
    assert_eq!(late.kind, ClientErrorKind::TimedOut);
    bench.fake.hangs.send_replace(false);
    let server = bench.server.take().unwrap();
    bench.runtime.block_on(server.stop(SOON));
    assert!(!bench.socket().exists());
    let gone = bench.runtime.block_on(client.status()).unwrap_err();
    assert_eq!(gone.kind, ClientErrorKind::NotRunning);
    assert!(gone.reason.contains("api.sock"), "{gone}");
    // A server that was killed leaves its socket; one that hangs accepts nothing.
    let listener = UnixListener::bind(bench.socket()).unwrap();
    assert_eq!(bench.runtime.block_on(client.status()).unwrap_err().kind, ClientErrorKind::TimedOut);
    drop(listener);
    assert_eq!(bench.runtime.block_on(client.status()).unwrap_err().kind, ClientErrorKind::NotRunning);
    bench.server = Some(bench.start());
    bench.runtime.block_on(bench.client(SOON).status()).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods)] // a real socket, a real clock
fn a_change_goes_on_when_its_client_leaves() {
    let bench = Bench::new();
    bench.fake.hangs.send_replace(true);
    let body = serde_json::to_string(&new_vm("web01")).unwrap();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(&request("POST", "/api/v1/vms", "application/json", &body)).unwrap();
    // Time to arrive, and time to be missed.
    std::thread::sleep(AT_ONCE);
    drop(stream);
    std::thread::sleep(AT_ONCE);
    bench.fake.hangs.send_replace(false);
    let made = bench.runtime.block_on(async {
        for _ in 0..200 {
            if bench.client(SOON).vm("web01").await.is_ok() {
                return true;
            }
            bench.rt().sleep(Duration::from_millis(20)).await;
        }
        false
    });
    assert!(made, "the change was dropped with its connection");
}

#[test]
fn a_stop_lets_requests_end() {
    let mut bench = Bench::new();
    bench.fake.hangs.send_replace(true);
    let server = bench.server.take().unwrap();
    let client = bench.client(SOON);
    let (answer, ()) = bench.runtime.block_on(async {
        let asking = bench.runtime.spawn(async move { client.status().await });
        bench.rt().sleep(AT_ONCE).await;
        let stopping = bench.runtime.spawn(async move { server.stop(SOON).await });
        bench.rt().sleep(AT_ONCE).await;
        assert!(!stopping.is_finished(), "a request is still there");
        bench.fake.hangs.send_replace(false);
        (asking.await.unwrap(), stopping.await.unwrap())
    });
    answer.unwrap();
}

#[test]
fn requests_are_answered_while_others_hold_all_memory_and_all_of_it_comes_back() {
    let bench = Bench::new();
    let greedy: Vec<_> = (0..100)
        .map(|_| {
            let mut account = bench.budget.open(0).unwrap();
            while account.try_take(1 << 20) {}
            account
        })
        .collect();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("web01")).await.unwrap();
        client.status().await.unwrap();
        drop(greedy);
        let definition = Definition { text: "x".repeat(1 << 20) };
        client.set_definition("web01", &definition).await.unwrap();
        // The server sees a connection's end a little later than the client.
        while bench.budget.used() > 0 {
            bench.rt().sleep(Duration::from_millis(2)).await;
        }
    });
}
