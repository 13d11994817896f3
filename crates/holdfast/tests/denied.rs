//! Goal: who may not do something is told so, with the exit code for it, whatever the system refuses: socket, directory,
//! image, target, medium.
//!
//! Model: the real program without the right of root to pass over permissions.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Bench, Ran, Server, TINY, program, tool};

/// What root runs commands under to be held to permissions.
fn held() -> Vec<&'static str> {
    match tool("id", ["-u"]).trim() {
        "0" => vec!["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"],
        _ => vec!["env"],
    }
}

fn ran(bench: &Bench, arguments: &[&str]) -> Ran {
    let held = held();
    let mut command = Command::new(held[0]);
    command.args(&held[1..]).arg(program()).args(arguments).args(["-o", "json"]);
    command.env("HOLDFAST_SITE", bench.dir()).stdin(Stdio::null());
    Ran::new(command.output().unwrap())
}

/// Runs a command; gives its exit code and the code of its error, whose message names `path`.
fn denied(bench: &Bench, path: &Path, arguments: &[&str]) -> (i32, String) {
    let ran = ran(bench, arguments);
    let error: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert!(error["message"].as_str().unwrap().contains(path.to_str().unwrap()), "{arguments:?}: {ran:?}");
    assert!(!error["hint"].as_str().unwrap().is_empty(), "{arguments:?}: {ran:?}");
    (ran.code, error["code"].as_str().unwrap().to_owned())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn commands_that_may_not_are_told_so() {
    let bench = Bench::new();
    let server = Server::spawn(&bench, bench.standalone(&held(), TINY)).serving();
    bench.create("web01", "1M");
    let (closed, locked) = (bench.path("closed"), bench.path("locked"));
    std::fs::write(&closed, [7; 8192]).unwrap();
    std::fs::create_dir(&locked).unwrap();
    let inside = locked.join("file");
    std::fs::write(&inside, [7; 8192]).unwrap();
    set_mode(&closed, 0);
    set_mode(&locked, 0);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (shut, inner, target) = (text(&closed), text(&inside), text(&locked.join("new")));
    bench.json(&["file", "put", "web01", "/proc/version", "--as", "file"]).json();
    let no = || (5, "permission_denied".to_owned());
    for (path, arguments) in [
        (&closed, &["vm", "import", "a", &shut][..]),
        (&inside, &["vm", "import", "a", &inner]),
        (&closed, &["file", "put", "web01", &shut]),
        (&inside, &["file", "put", "web01", &inner]),
        (&closed, &["vm", "set-definition", "web01", &shut]),
        (&locked, &["vm", "export", "web01", &target]),
        (&locked, &["file", "get", "web01/file", &target]),
        (&locked, &["man", &target]),
        (&closed, &["media", "add", &shut]),
        (&locked, &["media", "add", &target, "--file", "16M"]),
        (&locked, &["standalone", "--dir", &target]),
        (&closed, &["site", "recover", "--dir", &target, "--from-media", "--recovery-key-file", &shut]),
    ] {
        assert_eq!(denied(&bench, path, arguments), no(), "{arguments:?}");
    }
    let socket = bench.dir().join("api.sock");
    set_mode(&socket, 0);
    assert_eq!(denied(&bench, &socket, &["status"]), (5, "denied".to_owned()));
    set_mode(&socket, 0o600);
    set_mode(&bench.dir(), 0);
    assert_eq!(denied(&bench, &socket, &["status"]), (5, "denied".to_owned()));
    set_mode(&bench.dir(), 0o700);
    assert!(server.stop("TERM").success());

    let dir = text(&bench.dir());
    for name in ["key", "lock", "site.json", "witness"] {
        let path = bench.dir().join(name);
        set_mode(&path, 0);
        assert_eq!(denied(&bench, &path, &["standalone", "--dir", &dir]), no(), "{name}");
        set_mode(&path, 0o600);
    }
    bench.media().iter().for_each(|medium| set_mode(medium, 0));
    assert_eq!(denied(&bench, &bench.media()[0], &["standalone", "--dir", &dir]), no(), "media");
    bench.media().iter().for_each(|medium| set_mode(medium, 0o600));
    let new = text(&bench.path("new"));
    let arguments = ["standalone", "--dir", &new, "--media", &shut, "--layout", "tiny"];
    assert_eq!(denied(&bench, &closed, &arguments), no());
    set_mode(&locked, 0o700);
}
