//! Goal: whatever a client sends, the interface answers as its description says, never with a 5xx, and the site is whole
//! afterwards.
//!
//! Model: Schemathesis makes requests from `docs/openapi.json`, sound and not: the examples, the bounds of every
//! value, random ones, and sequences along the links. It speaks TCP only: a forwarder in this process leads to the
//! server's socket. `tools/schemathesis.toml` says what it checks. A VM that is open stands beside it all.
//!
//! Knobs: `HOLDFAST_PICK` is the seed; a soak makes more examples.

use std::collections::BTreeSet;
use std::io::{copy, sink};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Bench, MEDIA, Ran, Random, pick, program, soak, wanted};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PINNED: &str = include_str!("../../../../tools/schemathesis.txt");
const DESCRIPTION: &str = include_str!("../../../../docs/openapi.json");
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
const PHASES: [&str; 4] = ["Examples", "Coverage", "Fuzzing", "Stateful"];
/// What the server logs of changes that a run must have come to, whatever its seed: else it only scratched the surface.
const CHANGES: [&str; 12] = [
    "VM made",
    "VM put into the trash",
    "disk added",
    "disk resized",
    "definition stored",
    "snapshot made",
    "VM cloned",
    "VM reverted",
    "import begun",
    "storing of a file begun",
    "export begun",
    "task ended",
];

/// Runs, each with the next seed, until all changes came about.
const RUNS_MAX: usize = 4;

/// The Python of the place where `cargo x setup` puts Schemathesis.
fn python() -> PathBuf {
    let version = PINNED.lines().find_map(|line| line.strip_prefix("schemathesis==")).unwrap();
    let version = version.trim_end_matches(" \\");
    let target = Path::new(program()).ancestors().nth(2).unwrap().join("tools");
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
    let tools = [cache.map(|cache| cache.join("holdfast-tools")), Some(target)];
    let pythons = tools.into_iter().flatten().map(|at| at.join(format!("schemathesis-{version}/bin/python")));
    pythons.into_iter().find(|python| python.exists()).unwrap_or_else(|| panic!("{}", wanted("Schemathesis")))
}

/// A port of this machine alone that leads to a unix socket, as long as the test runs.
fn forwarded(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, socket) = (client.unwrap(), socket.clone());
            std::thread::spawn(move || forward(&client, &socket));
        }
    });
    port
}

/// One connection, both ways. The server may answer and leave before it has read all.
fn forward(client: &TcpStream, socket: &Path) {
    let Ok(server) = UnixStream::connect(socket) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if copy(&mut &*client, &mut &server).is_err() {
                let _ = copy(&mut &*client, &mut sink());
            }
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = copy(&mut &server, &mut &*client);
        let _ = client.shutdown(Shutdown::Write);
    });
}

fn operations() -> usize {
    let description: serde_json::Value = serde_json::from_str(DESCRIPTION).unwrap();
    let paths = description["paths"].as_object().unwrap().values();
    paths.map(|path| METHODS.iter().filter(|method| path.get(**method).is_some()).count()).sum()
}

fn schemathesis(bench: &Bench, port: u16, seed: usize) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(python()).args(["-m", "schemathesis.cli"]);
    command.arg("--config-file").arg(format!("{ROOT}/tools/schemathesis.toml"));
    command.arg("run").arg(format!("{ROOT}/docs/openapi.json"));
    command.args(["--url", &format!("http://127.0.0.1:{port}"), "--seed", &seed.to_string()]);
    command.args(["--max-examples", if soak() { "500" } else { "15" }]);
    // It keeps what it found where it runs.
    command.current_dir(bench.path("")).env("PYTHONDONTWRITEBYTECODE", "1");
    Ran::new(command.output().unwrap_or_else(|error| panic!("{}: {error}", wanted("setpriv"))))
}

fn names(bench: &Bench) -> BTreeSet<String> {
    let list = bench.json(&["vm", "list"]).json();
    list["items"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_interface_keeps_to_its_description() {
    let bench = Bench::new();
    // Imports that it begins and leaves are soon given up, or they would be all the tasks there can be.
    let server = bench.start(&[MEDIA, &["--task-patience", "2"]].concat());
    bench.json(&["vm", "create", "web01", "--disk", "1M", "--disk", "1M"]).json();
    // What the examples ask for.
    bench.json(&["vm", "snapshot", "web01"]).json();
    bench.create("kept", "1M");
    let mut kept = bench.connect("kept/disk0");
    let written = Random(5).bytes(100_000);
    kept.write(4096, &written).unwrap();
    // Other disks may be added to a VM that is open, and this one may grow.
    let identity =
        |vm: &serde_json::Value| (vm["name"].clone(), vm["created_ms"].clone(), vm["state"].clone());
    let before = bench.json(&["vm", "show", "kept"]).json();

    let port = forwarded(bench.dir().join("api.sock"));
    let all = operations();
    // What one seed does not come to the next does; each must find nothing.
    for run in 0..RUNS_MAX {
        let ran = schemathesis(&bench, port, pick() + run);
        let said = &ran.stdout;
        assert!(ran.code == 0, "{said}\n{}\n{}", ran.stderr, server.log());
        assert!(all > 20 && said.contains(&format!("{all} selected / {all} total")), "{said}");
        assert!(said.contains(&format!("Tested: {all}\n")), "{said}");
        for phase in PHASES {
            assert!(said.lines().any(|line| line.trim() == format!("\u{2705} {phase}")), "{phase}: {said}");
        }
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        let missing: Vec<&&str> = CHANGES.iter().filter(|change| !log.contains(**change)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(run + 1 < RUNS_MAX, "it never came to this: {missing:?}\n{said}");
    }

    kept.flush().unwrap();
    assert!(kept.read(4096, 100_000).unwrap() == written);
    let after = bench.json(&["vm", "show", "kept"]).json();
    assert_eq!(identity(&after), identity(&before));
    assert_eq!(after["disks"][0]["name"], "disk0");
    assert!(after["disks"][0]["bytes"].as_u64() >= before["disks"][0]["bytes"].as_u64(), "{after}");
    assert_ne!(bench.json(&["status"]).json()["health"], "failed");
    drop(kept);
    let left = names(&bench);
    server.kill();
    let server = bench.start(&[]);
    assert_eq!(names(&bench), left);
    assert!(bench.connect("kept/disk0").read(4096, 100_000).unwrap() == written);
    assert_eq!(server.stop("TERM").code(), Some(0));
}
