//! kill -9 at every step of a first start: the next start makes the site all the same, and loses nothing of others.

use std::path::Path;

use crate::harness::{Bench, Server, TINY, pick, soak, tool, wanted};

/// System calls that change what a crash leaves.
const CALLS: [&str; 6] = ["fsync", "fdatasync", "rename", "unlink", "mkdir", "pwrite64"];
/// Of these there are hundreds; one in so many is enough for a commit.
const SAMPLED: &str = "pwrite64";
const SAMPLE: usize = 37;

/// How often a sound first start, up to serving, makes each call.
fn count(call: &str) -> usize {
    let bench = Bench::new();
    let trace = bench.path("trace");
    let wrapper = ["strace", "-f", "-qq", "-e", "signal=none", "-e", &format!("trace={call}"), "-o"];
    let wrapper = [&wrapper[..], &[trace.to_str().unwrap()]].concat();
    let mut server = Server::spawn(&bench, bench.standalone(&wrapper, &arguments(&bench)));
    assert!(server.wait_serving().is_ok(), "{}\n{}", wanted("strace"), server.log());
    server.kill();
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains(&format!("{call}("))).count()
}

fn arguments(bench: &Bench) -> Vec<&'static str> {
    // Leaked: a test's arguments live as long as the test program.
    let key: &'static str = Box::leak(bench.path("recovery").display().to_string().into_boxed_str());
    [TINY, &["--recovery-key-file", key]].concat()
}

/// Kills a first start at its `nth` call; gives whether it came to that.
fn killed_at(bench: &Bench, call: &str, nth: usize) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let wrapper = ["strace", "-f", "-qq", "-e", &inject, "-o", "/dev/null"];
    let mut server = Server::spawn(bench, bench.standalone(&wrapper, &arguments(bench)));
    let killed = server.wait_serving().is_err();
    server.kill();
    killed
}

fn is_whole(dir: &Path) -> bool {
    let manifest = std::fs::read_to_string(dir.join("site.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&manifest).is_ok() && !dir.join("first-start.json").exists()
}

#[test]
fn a_kill_at_any_step_is_made_good_by_the_next_start() {
    tool("strace", ["--version"]);
    let mut fired = 0;
    for call in CALLS {
        let total = count(call);
        let step = if call == SAMPLED && !soak() { SAMPLE } else { 1 };
        let first = 1 + pick() % step;
        for nth in (first..=total).step_by(step) {
            let bench = Bench::new();
            if !killed_at(&bench, call, nth) {
                continue;
            }
            fired += 1;
            let arguments = arguments(&bench);
            // The key is there already when the site is: then it is not asked for again.
            let made = bench.dir().join("site.json").exists();
            let server = bench.start(if made { &[] } else { &arguments });
            assert!(is_whole(&bench.dir()), "{call} {nth}");
            assert!(bench.path("recovery").exists(), "{call} {nth}");
            bench.create("web01", "1M");
            bench.connect("web01/disk0").write(0, b"works").unwrap();
            assert_eq!(server.stop("TERM").code(), Some(0), "{call} {nth}");
            let server = bench.start(&[]);
            assert_eq!(bench.connect("web01/disk0").read(0, 5).unwrap(), b"works", "{call} {nth}");
            server.kill();
        }
    }
    assert!(fired > 20, "only {fired} kills struck");
}
