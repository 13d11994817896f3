//! Goal: any body is answered or refused, and the server outlives any bytes on its socket: sound ones, mutated by seed.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::types::{Attributes, CreateVm, Disk, List, NewDisk, Vm, VmState, VmSummary};
use api::{Problem, code};
use seam::testing::replay;

use super::Bench;
use super::raw::request;
use crate::fuzz::fuzz_body;

const MUTATIONS: u64 = 10_000;
/// Each is a connection: about a tenth of a millisecond.
const SENT_MUTATIONS: u64 = 1000;

#[test]
fn damaged_bodies() {
    let disk = Disk {
        name: "disk0".to_owned(),
        export: "a/disk0".to_owned(),
        bytes: 1 << 40,
        used_bytes: None,
        clients: 1,
    };
    let vm = Vm {
        name: "a".to_owned(),
        state: VmState::Ready,
        created_ms: 5,
        has_definition: true,
        attributes: Attributes::default(),
        protection: None,
        disks: vec![disk.clone(), disk.clone()],
        files: vec![disk],
    };
    let summary = VmSummary {
        name: "a".to_owned(),
        created_ms: 5,
        disks: 2,
        bytes: 1 << 41,
        attributes: Attributes::default(),
        protection: None,
    };
    let new = CreateVm { name: "web01".to_owned(), disks: vec![NewDisk { bytes: u64::MAX }; 2] };
    let bench = Bench::new();
    let status = bench.runtime.block_on(bench.site.status()).unwrap();
    let corpus = [
        serde_json::to_vec(&new).unwrap(),
        serde_json::to_vec(&vm).unwrap(),
        serde_json::to_vec(&List { items: vec![summary] }).unwrap(),
        serde_json::to_vec(&status).unwrap(),
        serde_json::to_vec(&Problem::new(code::VM_EXISTS, "why", "what next")).unwrap(),
        "a/ä ?#%2f".as_bytes().to_vec(),
        b"null".to_vec(),
        br#"[{"name":"a","disks":[{"bytes":4096}],"source":"x"},{"vm":"a","disk":"disk0","destination":"y"},
            {"done_bytes":1,"total_bytes":18446744073709551615},{"error":"z"}]"#
            .to_vec(),
        br#"[{"name":"b"},{"bytes":4096,"shrink":true},{"text":"<domain/>"}]"#.to_vec(),
        br#"[{"from":"a@s1/disk0"},{"name":"s1"},{"name":"s2"},{"snapshot":"s1"},{"from":"a@s1","name":"b"}]"#.to_vec(),
        br#"[{"name":"w","include":{"match_names":["w*"]},"schedules":[{"name":"m","every":"5m","keep":{"last":3,"for":"1d"}}]},
            {"schedule":"m"},{"vm":"a","at":"2h ago","as":"b"},{"until":"1d"}]"#
            .to_vec(),
        b"group=w&vm=a&since=2h+ago&before=1-2&limit=9".to_vec(),
        b"vm=a&after=a@s1&limit=1000".to_vec(),
        b"disk=disk0&against=s1&offset=4096&limit=1".to_vec(),
    ];
    replay(&corpus, MUTATIONS, |input| {
        fuzz_body(input);
        client::fuzz::fuzz_body(input);
    });
}

#[test]
fn damaged_requests() {
    let bench = Bench::new();
    let corpus = [
        request("POST", "/api/v1/vms", "application/json", r#"{"name":"a","disks":[{"bytes":1}]}"#),
        request("GET", "/api/v1/vms/a%2fb", "text/plain", ""),
        request("POST", "/api/v1/vms/a/disks", "application/json", r#"{"from":"a@s1/disk0"}"#),
        request("GET", "/api/v1/vms/a/snapshots/s1/changes?disk=disk0&against=s0&offset=1&limit=9", "text/plain", ""),
        request("PATCH", "/api/v1/vms/a/disks/b", "application/json", r#"{"bytes":1,"shrink":true}"#),
        request("PUT", "/api/v1/imports/18446744073709551615", "application/json", r#"{"done_bytes":1,"total_bytes":2}"#),
        b"DELETE /api/v1/vms/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
    ];
    let answered = Cell::new(0);
    replay(&corpus, SENT_MUTATIONS, |input| {
        let mut stream = UnixStream::connect(bench.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may close before it read all.
        let _ = stream.write_all(input);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server hangs");
        }
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
        answered.set(answered.get() + usize::from(!answer.is_empty()));
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", answer.escape_ascii());
    });
    assert!(answered.get() > 1000, "only {} answers", answered.get());
    bench.runtime.block_on(bench.client(Duration::from_secs(20)).status()).unwrap();
}
