//! The client and the server together.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::Bench;
use super::raw::request;
use crate::ClientErrorKind;
use crate::types::{CreateVm, Health, NewDisk};

const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_millis(200);

fn new_vm(name: &str) -> CreateVm {
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
        client.delete_vm("web01").await.unwrap();
        for name in ["web01", "a/b", "ä?#", "..", "%2F"] {
            let refused = client.vm(name).await.unwrap_err();
            let ClientErrorKind::Refused(problem) = refused.kind else { panic!("{refused:?}") };
            assert_eq!(problem.code, "vm_not_found", "{name:?} must reach the backend as a name");
        }
    });
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
        let stopping = bench.runtime.spawn(server.stop(SOON));
        bench.rt().sleep(AT_ONCE).await;
        assert!(!stopping.is_finished(), "a request is still there");
        bench.fake.hangs.send_replace(false);
        (asking.await.unwrap(), stopping.await.unwrap())
    });
    answer.unwrap();
}
