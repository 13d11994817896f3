//! kill -9 at every step of a first start: the next start makes the site all the same, and loses nothing of others.

use std::path::Path;

use crate::harness::{Bench, Server, TINY, pick, soak, tool, try_tool, wanted};

/// System calls that change what a crash leaves.
const CALLS: [&str; 6] = ["fsync", "fdatasync", "rename", "unlink", "mkdir", "pwrite64"];
/// Kills at each call that are enough for a commit; another commit takes others.
const SAMPLE: usize = 4;

/// Whose media the site gets.
#[derive(Debug, Clone, Copy)]
enum Media {
    /// Files it makes.
    Made,
    /// Files that were there, all zeros.
    Given,
}

/// Bytes of a medium that was there.
const GIVEN_BYTES: u64 = 16 << 20;

fn arguments(bench: &Bench, media: Media) -> Vec<String> {
    let paths = ["given0", "given1"].map(|name| bench.path(name));
    let mut arguments = vec!["--recovery-key-file".to_owned(), bench.path("recovery").display().to_string()];
    match media {
        Media::Made => arguments.extend(TINY.iter().map(|word| (*word).to_owned())),
        Media::Given => {
            arguments.extend(["--layout", "tiny", "--io", "sync"].map(str::to_owned));
            for path in &paths {
                if !path.exists() {
                    std::fs::File::create(path).unwrap().set_len(GIVEN_BYTES).unwrap();
                }
                arguments.extend(["--media".to_owned(), path.display().to_string()]);
            }
        }
    }
    arguments
}

fn spawn(bench: &Bench, wrapper: &[&str], media: Media) -> Server {
    let arguments = arguments(bench, media);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Server::spawn(bench, bench.standalone(wrapper, &arguments))
}

/// How often a sound first start, up to serving, makes each call.
fn count(call: &str, media: Media) -> usize {
    let bench = Bench::new();
    let trace = bench.path("trace");
    let wrapper = ["strace", "-f", "-qq", "-e", "signal=none", "-e", &format!("trace={call}"), "-o"];
    let wrapper = [&wrapper[..], &[trace.to_str().unwrap()]].concat();
    let mut server = spawn(&bench, &wrapper, media);
    assert!(server.wait_serving().is_ok(), "{}\n{}", wanted("strace"), server.log());
    server.kill();
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains(&format!("{call}("))).count()
}

/// Kills a first start at its `nth` call; gives whether it came to that.
fn killed_at(bench: &Bench, call: &str, nth: usize, media: Media) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let wrapper = ["strace", "-f", "-qq", "-e", &inject, "-o", "/dev/null"];
    let mut server = spawn(bench, &wrapper, media);
    let killed = server.wait_serving().is_err();
    server.kill();
    killed
}

fn is_whole(dir: &Path) -> bool {
    let manifest = std::fs::read_to_string(dir.join("site.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&manifest).is_ok() && !dir.join("first-start.json").exists()
}

/// A first start that was killed at a call is made good.
fn check(call: &str, nth: usize, media: Media) -> bool {
    let bench = Bench::new();
    if !killed_at(&bench, call, nth, media) {
        return false;
    }
    // With the site its recovery key is there: then none is asked for again.
    let made = bench.dir().join("site.json").exists();
    let what = format!("{call} {nth}, {media:?} media, site.json: {made}");
    let server = if made { bench.start(&[]) } else { spawn(&bench, &[], media).serving() };
    assert!(is_whole(&bench.dir()), "{what}");
    assert!(bench.path("recovery").exists(), "{what}");
    bench.create("web01", "1M");
    bench.connect("web01/disk0").write(0, b"works").unwrap();
    assert_eq!(server.stop("TERM").code(), Some(0), "{what}");
    let server = bench.start(&[]);
    assert_eq!(bench.connect("web01/disk0").read(0, 5).unwrap(), b"works", "{what}");
    server.kill();
    true
}

fn check_all(media: Media) {
    tool("strace", ["--version"]);
    let mut fired = 0;
    for call in CALLS {
        let total = count(call, media);
        let step = if soak() { 1 } else { total.div_ceil(SAMPLE).max(1) };
        let numbers = (1 + pick() % step..=total).step_by(step);
        fired += numbers.filter(|nth| check(call, *nth, media)).count();
    }
    assert!(fired > CALLS.len(), "only {fired} kills struck");
}

#[test]
fn a_kill_at_any_step_is_made_good_by_the_next_start() {
    check_all(Media::Made);
}

#[test]
fn so_it_is_with_media_that_were_there() {
    check_all(Media::Given);
}

#[test]
fn a_group_may_open_the_disks_and_nothing_else() {
    let bench = Bench::new();
    let _server = bench.start(&[TINY, &["--nbd-group", "12345"]].concat());
    bench.create("web01", "1M");
    for folder in [bench.path(""), bench.dir().parent().unwrap().to_owned()] {
        tool("chmod", ["o+x", folder.to_str().unwrap()]);
    }
    let uri = bench.uri("web01/disk0");
    let stranger = ["--reuid=54321", "--regid=54321", "--clear-groups"];
    let member = ["--reuid=54321", "--regid=54321", "--groups=12345"];
    let size = |who: [&str; 3]| try_tool("setpriv", who.iter().chain(&["nbdinfo", "--size", &uri]));
    assert_eq!(size(member).stdout.trim(), "1048576");
    assert_ne!(size(stranger).code, 0);
    for file in ["api.sock", "key", "site.json", "media"] {
        let path = bench.dir().join(file).display().to_string();
        let looked = try_tool("setpriv", member.iter().chain(&["cat", &path]));
        assert_ne!(looked.code, 0, "{file}: {looked:?}");
    }
    let other = Bench::new();
    let refused = other.refused(&[TINY, &["--nbd-group", "no such group"], &["-o", "json"]].concat());
    assert_eq!((refused.code, refused.error()["code"].as_str()), (2, Some("no_such_group")));
    assert!(!other.dir().exists(), "nothing half-done");
}
