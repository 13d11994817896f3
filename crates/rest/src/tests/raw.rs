//! Requests that no sound client makes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::Problem;
use api::types::{Deleted, ListVms};

use super::Bench;

/// Sends bytes; gives status, head and body of the answer.
pub(super) fn exchange(bench: &Bench, request: &[u8]) -> (u16, String, String) {
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may answer and close before it read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

pub(super) fn request(method: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn bad_requests_are_problems() {
    let bench = Bench::new();
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(100_000));
    let definition = format!("{{\"text\":\"{}\"}}", "x".repeat(2 << 20));
    let deep = "[".repeat(10_000);
    let json = "application/json";
    for (method, path, kind, body, status, code) in [
        ("GET", "/", json, "", 404, "not_found"),
        ("GET", "/api/v1/", json, "", 404, "not_found"),
        ("GET", "/api/v1/vms/", json, "", 404, "not_found"),
        ("GET", "/api/v1/vms/a/b", json, "", 404, "not_found"),
        ("GET", "/api/v1/vms/%ff", json, "", 400, "bad_request"),
        ("PUT", "/api/v1/vms", json, "", 405, "method_not_allowed"),
        ("POST", "/api/v1/status", json, "", 405, "method_not_allowed"),
        ("POST", "/api/v1/vms", json, "", 400, "bad_request"),
        ("POST", "/api/v1/vms", json, "{", 400, "bad_request"),
        ("POST", "/api/v1/vms", json, &deep, 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, "[]", 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, "{}", 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, r#"{"name":1,"disks":[]}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, r#"{"name":"a","disks":[{"bytes":-1}]}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, r#"{"name":"a","disks":[{"bytes":1e30}]}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms", json, r#"{"name":"a","disks":[],"more":1}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms", "text/plain", "{}", 415, "unsupported_media_type"),
        ("POST", "/api/v1/vms", json, &huge, 413, "body_too_large"),
        ("PATCH", "/api/v1/vms/a", json, "{}", 422, "invalid_request"),
        ("PATCH", "/api/v1/vms/a/disks/b", json, r#"{"bytes":"1"}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks/b", json, "{}", 405, "method_not_allowed"),
        ("PUT", "/api/v1/vms/a/definition", json, "\"text\"", 422, "invalid_request"),
        ("PUT", "/api/v1/vms/a/definition", json, &definition, 413, "body_too_large"),
        ("POST", "/api/v1/imports", json, &huge, 413, "body_too_large"),
        ("POST", "/api/v1/imports", json, r#"{"name":"a","disks":[]}"#, 422, "invalid_request"),
        ("PUT", "/api/v1/imports/x", json, "{}", 400, "bad_request"),
        ("PUT", "/api/v1/exports/-1", json, "{}", 400, "bad_request"),
        ("GET", "/api/v1/tasks/99999999999999999999", json, "", 400, "bad_request"),
        ("GET", "/api/v1/tasks/3", json, "", 404, "task_not_found"),
        ("DELETE", "/api/v1/tasks", json, "", 405, "method_not_allowed"),
        ("POST", "/api/v1/vms/a/disks", json, "{}", 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks", json, r#"{"bytes":4096,"from":"a/disk0"}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks", json, r#"{"bytes":4096,"from":null}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks", json, r#"{"bytes":null,"from":"a/disk0"}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks", json, r#"{"bytes":4096.5}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/disks", json, r#"{"bytes":4096,"more":1}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/snapshots", json, "", 400, "bad_request"),
        ("POST", "/api/v1/vms/a/snapshots", json, r#"{"name":1}"#, 422, "invalid_request"),
        ("POST", "/api/v1/vms/a/snapshots", json, r#"{"nam":"s1"}"#, 422, "invalid_request"),
        ("PUT", "/api/v1/vms/a/snapshots", json, "{}", 405, "method_not_allowed"),
        ("GET", "/api/v1/vms/a/snapshots/s1", json, "", 404, "vm_not_found"),
        ("GET", "/api/v1/vms/a/snapshots/%ff", json, "", 400, "bad_request"),
        ("PATCH", "/api/v1/vms/a/snapshots/s1", json, "{}", 422, "invalid_request"),
        ("GET", "/api/v1/snapshots?limit=0", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/snapshots?limit=1001", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/snapshots?limit=-1", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/snapshots?limit=1&limit=2", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/snapshots?max=1", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/vms/a/changes", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/vms/a/changes?disk=disk0&limit=x", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/vms/a/changes?disk=disk0&offset=70368744177665", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/vms/a/snapshots/s1/changes?disk=disk0&limit=0", json, "", 422, "invalid_request"),
        ("GET", "/api/v1/vms/a/changes?disk=disk0&limit=65537", json, "", 422, "invalid_request"),
        ("POST", "/api/v1/trash/empty", json, r#"{"items":[]}"#, 422, "invalid_request"),
        ("POST", "/api/v1/trash/empty", json, r#"{"items":[-1]}"#, 422, "invalid_request"),
        ("POST", "/api/v1/clock", json, "", 405, "method_not_allowed"),
        ("POST", "/api/v1/vms/a/revert", json, "{}", 422, "invalid_request"),
        ("POST", "/api/v1/clones", json, r#"{"from":"a"}"#, 422, "invalid_request"),
        (
            "POST",
            "/api/v1/clones",
            json,
            r#"{"from":"a@s1","name":"b","disk":"disk0"}"#,
            422,
            "invalid_request",
        ),
        ("GET", "/api/v1/clones", json, "", 405, "method_not_allowed"),
    ] {
        let what = format!("{method} {path} {:.40}", body);
        let (found, head, answer) = exchange(&bench, &request(method, path, kind, body));
        assert_eq!(found, status, "{what}: {answer}");
        assert!(head.contains("content-type: application/problem+json"), "{what}: {head}");
        let problem: Problem =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((problem.code.as_str(), problem.status), (code, status), "{what}: {answer}");
        assert_eq!(problem.r#type, format!("urn:holdfast:problem:{code}"));
        assert!(!problem.detail.is_empty() && !problem.hint.is_empty(), "{what}");
    }
    assert!(bench.runtime.block_on(bench.site.catalog().vms(&ListVms::default())).unwrap().is_empty());
}

#[test]
fn a_vm_made_says_where_it_is() {
    let bench = Bench::new();
    let body_of = r#"{"name":"a","disks":[{"bytes":4096}]}"#;
    let (status, head, _) = exchange(&bench, &request("POST", "/api/v1/vms", "application/json", body_of));
    assert_eq!(status, 201);
    assert!(head.contains("location: /api/v1/vms/a"), "{head}");
    let (status, _, body) = exchange(&bench, &request("DELETE", "/api/v1/vms/a?now=true", "text/plain", ""));
    assert_eq!((status, body.as_str()), (200, r#"{"deleted":"a"}"#));
    exchange(&bench, &request("POST", "/api/v1/vms", "application/json", body_of));
    let (_, _, body) = exchange(&bench, &request("DELETE", "/api/v1/vms/a", "text/plain", ""));
    let gone: Deleted = serde_json::from_str(&body).unwrap();
    let path = format!("/api/v1/trash/{}", gone.trash.unwrap().id);
    let (status, _, body) = exchange(&bench, &request("DELETE", &path, "text/plain", ""));
    assert_eq!((status, body.as_str()), (204, ""));
}

#[test]
fn noise_and_silence_do_not_hurt_others() {
    let bench = Bench::new();
    let (status, ..) = exchange(&bench, b"\x16\x03\x01 this is no HTTP\r\n\r\n");
    assert_eq!(status, 400);
    let head = [b"GET /".to_vec(), vec![b'a'; 100_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    assert!(matches!(exchange(&bench, &head).0, 414 | 431));
    // Clients that say nothing hold a seat each; one seat is left.
    let silent: Vec<UnixStream> = (0..63).map(|_| UnixStream::connect(bench.socket()).unwrap()).collect();
    let (status, ..) = exchange(&bench, &request("GET", "/api/v1/status", "text/plain", ""));
    assert_eq!(status, 200);
    drop(silent);
    for _ in 0..200 {
        let (status, ..) = exchange(&bench, &request("GET", "/api/v1/vms", "text/plain", ""));
        assert_eq!(status, 200);
    }
}
