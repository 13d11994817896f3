//! The client and the server together.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use api::types::{
    AddDisk, ChangeAttributes, ChangeDisk, CreateVm, Definition, GiveUp, HowToDelete, ListVms, MediumState,
    NewDisk, NewExport, NewImport, Progress, ProtectionState, Restore, TaskKind, TaskState, Vm,
};
use client::ClientErrorKind;

use super::hanging::let_go;
use super::raw::{exchange, request};
use super::{Bench, code, refused};

pub(super) const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_millis(200);

pub(super) fn new_vm(name: &str) -> CreateVm {
    CreateVm { name: name.to_owned(), disks: vec![NewDisk { bytes: 1 << 30 }] }
}

#[test]
fn calls_are_answered() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    assert_eq!(bench.socket().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    bench.runtime.block_on(async {
        let status = client.status().await.unwrap();
        assert_eq!((status.vms, status.tasks.len(), status.writable), (0, 0, true));
        assert_eq!(status.media, client.media().await.unwrap().items);
        assert!(status.media.len() == 3 && status.media.iter().all(|medium| medium.state == MediumState::Up));
        assert_eq!(client.vms(&ListVms::default()).await.unwrap().items.len(), 0);
        let made = client.create_vm(&new_vm("web01")).await.unwrap();
        assert_eq!(made.disks[0].bytes, 1 << 30);
        let shown = client.vm("web01").await.unwrap();
        assert_eq!(shown.protection.as_ref().unwrap().state, ProtectionState::Excluded);
        assert_eq!(Vm { protection: None, ..shown }, made);
        assert_eq!(client.vms(&ListVms::default()).await.unwrap().items[0].name, "web01");
        let refused = client.create_vm(&new_vm("web01")).await.unwrap_err();
        let ClientErrorKind::Refused(problem) = refused.kind else { panic!("{refused:?}") };
        assert_eq!((problem.status, problem.code.as_str()), (409, "vm_exists"));
        client.delete_vm("web01", HowToDelete::default()).await.unwrap();
        assert_eq!(code(client.vm("web01").await), "vm_not_found");
    });
    for name in ["a/b", "ä?#", "..", "%2F"] {
        let (code, detail) = refused(bench.runtime.block_on(client.vm(name)));
        assert!(code == "invalid_name" && detail.contains(name), "{name:?} must arrive as a name: {detail}");
    }
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        let disk = AddDisk::Empty(NewDisk { bytes: 4096 });
        assert_eq!(client.add_disk("a", &disk).await.unwrap().disks[1].name, "disk1");
        let change = |bytes, shrink| ChangeDisk { bytes, shrink };
        let changed = client.change_disk("a", "disk1", &change(8192, false)).await.unwrap();
        assert_eq!(changed.disks[1].bytes, 8192);
        assert_eq!(code(client.change_disk("a", "disk1", &change(4096, false)).await), "would_shrink");
        assert_eq!(client.change_disk("a", "disk1", &change(4096, true)).await.unwrap().disks[1].bytes, 4096);
        assert_eq!(client.attach_info("a", "disk1").await.unwrap().export, "a/disk1");
        assert_eq!(code(client.attach_info("a", "b/c").await), "disk_not_found");
        client.remove_disk("a", "disk1").await.unwrap();
        assert_eq!(code(client.definition("a").await), "no_definition");
        let text = "<\"\n".repeat(1000);
        client.set_definition("a", &Definition { text: text.clone() }).await.unwrap();
        assert!(client.definition("a").await.unwrap().text == text);
        assert_eq!(client.rename_vm("a", "b").await.unwrap().name, "b");
    });
}

#[test]
fn vms_are_ordered_and_picked_by_what_they_are_ordered_by() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        for name in ["web01", "web02", "db01"] {
            client.create_vm(&new_vm(name)).await.unwrap();
        }
        let change = ChangeAttributes {
            folder: Some("/prod/web".to_owned()),
            add_tags: vec!["gold".to_owned()],
            set_labels: [("owner".to_owned(), "a & b, ops=\u{e4}".to_owned())].into(),
            ..ChangeAttributes::default()
        };
        let vm = client.change_attributes("web01", &change).await.unwrap();
        assert_eq!((vm.attributes.folder.as_str(), &vm.attributes.tags), ("/prod/web", &change.add_tags));
        assert_eq!(Vm { protection: None, ..client.vm("web01").await.unwrap() }, vm);
        assert_eq!(client.vm("web02").await.unwrap().attributes.folder, "/");
        let text = |text: &str| Some(text.to_owned());
        for (which, names) in [
            (ListVms { name: text("*01"), ..ListVms::default() }, vec!["db01", "web01"]),
            (ListVms { tag: text("Gold"), ..ListVms::default() }, vec!["web01"]),
            (ListVms { folder: text("/prod"), ..ListVms::default() }, vec!["web01"]),
            (ListVms { label: text("owner=a & b, ops=\u{e4}"), ..ListVms::default() }, vec!["web01"]),
            (ListVms { label: text("owner=ops"), ..ListVms::default() }, vec![]),
            (ListVms { name: text("db*"), tag: text("gold"), ..ListVms::default() }, vec![]),
        ] {
            let found = client.vms(&which).await.unwrap().items;
            assert_eq!(found.iter().map(|vm| vm.name.as_str()).collect::<Vec<_>>(), names, "{which:?}");
        }
        let wrong = ListVms { folder: text("prod"), ..ListVms::default() };
        assert_eq!(code(client.vms(&wrong).await), "invalid_name");
        // It goes with the VM.
        client.rename_vm("web01", "www").await.unwrap();
        assert_eq!(client.vm("www").await.unwrap().attributes, vm.attributes);
        let gone = client.delete_vm("www", HowToDelete::default()).await.unwrap().trash.unwrap();
        client.restore(gone.id, &Restore { new_name: None }).await.unwrap();
        assert_eq!(client.vm("www").await.unwrap().attributes, vm.attributes);
    });
}

#[test]
fn every_call_of_tasks_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    let new = |name: &str| NewImport {
        name: name.to_owned(),
        disks: vec![NewDisk { bytes: 4096 }],
        source: "there".to_owned(),
    };
    let export = NewExport { vm: "vm1".to_owned(), disk: None, destination: String::new() };
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("vm1")).await.unwrap();
        let mut made = 0;
        for kind in [TaskKind::Import, TaskKind::Export] {
            let mut begun = Vec::new();
            for name in ["x", "y", "z"].map(|name| format!("{name}{made}")) {
                let task = match kind {
                    TaskKind::Import => client.begin_import(&new(&name)).await.unwrap(),
                    _ => client.begin_export(&export).await.unwrap(),
                };
                made += 1;
                assert_eq!((task.task.id, task.task.kind, task.disks.len()), (made, kind, 1));
                assert!(kind != TaskKind::Import || task.disks[0].export == format!("{name}/disk0"));
                begun.push(task.task.id);
            }
            let most = i64::MAX as u64;
            let far = |total_bytes| Progress { done_bytes: 1, total_bytes };
            let told = client.progress(kind, begun[0], &far(most)).await.unwrap();
            assert_eq!((told.kind, told.total_bytes), (kind, most));
            assert_eq!(code(client.progress(kind, begun[0], &far(most + 1)).await), "invalid_request");
            assert_eq!(client.finish(kind, begun[0]).await.unwrap().state, TaskState::Done);
            let failed = client.give_up(kind, begun[1], &GiveUp { error: "why".to_owned() }).await.unwrap();
            assert_eq!((failed.kind, failed.error.as_deref()), (kind, Some("why")));
            assert_eq!(client.cancel_task(begun[2]).await.unwrap().state, TaskState::Cancelled);
            assert_eq!(client.task(begun[2]).await.unwrap().state, TaskState::Cancelled);
            assert_eq!(code(client.finish(kind, begun[2]).await), "task_ended");
        }
        assert_eq!(code(client.finish(TaskKind::Export, 1).await), "task_not_found");
        let ids: Vec<u64> = client.tasks().await.unwrap().items.iter().map(|task| task.id).collect();
        assert_eq!(ids, [6, 5, 4, 3, 2, 1]);
        let names: Vec<String> =
            client.vms(&ListVms::default()).await.unwrap().items.into_iter().map(|vm| vm.name).collect();
        assert_eq!(names, ["vm1", "x0"]);
    });
}

/// `HOLDFAST_REGENERATE=1 cargo test -p rest` writes the file anew.
#[test]
fn the_description_in_the_repository_is_the_one_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let made = crate::openapi();
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "docs/openapi.json is not up to date: HOLDFAST_REGENERATE=1 cargo test -p rest");
    assert!(made.contains("\"openapi\": \"3.1"));
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(&request("GET", "/api/v1/openapi.json", "text/plain", "")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/json") && body == made, "{head}");
}

#[test]
fn calls_end_in_time_and_say_who_does_not_answer() {
    let mut bench = Bench::new();
    let client = bench.client(AT_ONCE);
    let server = bench.server.take().unwrap();
    bench.runtime.block_on(server.stop(SOON));
    assert!(!bench.socket().exists());
    let gone = bench.runtime.block_on(client.status()).unwrap_err();
    assert_eq!(gone.kind, ClientErrorKind::NotRunning);
    assert!(gone.reason.contains("api.sock"), "{gone}");
    // A server that was killed leaves its socket; one that hangs accepts nothing.
    let listener = UnixListener::bind(bench.socket()).unwrap();
    assert_eq!(bench.runtime.block_on(client.status()).unwrap_err().kind, ClientErrorKind::TimedOut);
    // Or accepts, and does not answer.
    let asking = bench.runtime.spawn(async move { client.status().await.unwrap_err().kind });
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(bench.runtime.block_on(asking).unwrap(), ClientErrorKind::TimedOut);
    drop((accepted, listener));
    let client = bench.client(SOON);
    assert_eq!(bench.runtime.block_on(client.status()).unwrap_err().kind, ClientErrorKind::NotRunning);
    bench.server = Some(bench.start());
    bench.runtime.block_on(client.status()).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods)] // a real socket, a real clock
fn a_change_goes_on_when_its_client_leaves() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(&request("POST", "/test/left-alone", "text/plain", "")).unwrap();
    // Time to arrive, and time to be missed.
    std::thread::sleep(AT_ONCE);
    drop(stream);
    std::thread::sleep(AT_ONCE);
    let_go("left-alone");
    let made = bench.runtime.block_on(async {
        for _ in 0..1000 {
            if bench.client(SOON).vm("left-alone").await.is_ok() {
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
    let server = bench.server.take().unwrap();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(&request("GET", "/test/to-the-end", "text/plain", "")).unwrap();
    bench.runtime.block_on(async {
        bench.rt().sleep(AT_ONCE).await;
        let stopping = bench.runtime.spawn(async move { server.stop(SOON).await });
        bench.rt().sleep(AT_ONCE).await;
        assert!(!stopping.is_finished(), "a request is still there");
        let_go("to-the-end");
        stopping.await.unwrap();
    });
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"to-the-end\""), "{answer}");
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
        // More than other bodies may have, and more than a definition may.
        let definition = Definition { text: "x".repeat(1 << 20) };
        assert_eq!(code(client.set_definition("web01", &definition).await), "definition_too_large");
        // The server sees a connection's end a little later than the client.
        while bench.budget.used() > 0 {
            bench.rt().sleep(Duration::from_millis(2)).await;
        }
    });
}

/// Where a change finds no room, what it says names what would make some.
#[test]
fn a_change_without_room_names_the_trash() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    let send = |name: &str| exchange(&bench, &request("PATCH", &format!("/test/{name}"), "text/plain", ""));
    let (status, _, body) = send("empty-trash");
    assert!(status == 507 && !body.contains("trash empty --yes"), "{body}");
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        client.delete_vm("a", HowToDelete::default()).await.unwrap();
    });
    let (_, _, body) = send("full-trash");
    assert!(body.contains("`trash empty --yes`: 1 in the trash"), "{body}");
}
