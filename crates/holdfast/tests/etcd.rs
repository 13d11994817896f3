//! Goal: a site of many nodes is founded, joined and left by hand as its administrator would, with real etcd servers; what
//! each command says is as published, in every form.
//! Model: the answers' types from the interface's description; the roles are the real program, ended with the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ran, program};
use crate::walk::{Types, parse};

/// Starting etcd on a busy machine takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Lines of each log that a failed test prints.
const TOLD_LINES: usize = 25;
/// Ports that tests take. Below those that the kernel gives to connections: one that is made while a process is down could
/// have its port, and one to a port where nobody listens could even meet itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that was free a moment ago, and so was the next: etcd takes two. No test of this program gets it again.
pub(crate) fn free_port() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Tests of other processes begin elsewhere.
    let first = (std::process::id().wrapping_mul(97) % u32::from(count)) as u16;
    loop {
        let turn = TAKEN.fetch_add(2, Ordering::Relaxed);
        let port = PORTS.start + (first + turn % count) % (count - 1);
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 1) {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
}

/// Processes that end with the test.
pub(crate) struct Site {
    temp: TempDir,
    pub(crate) children: BTreeMap<String, Child>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Site {
    /// Prints the end of what each of the product's processes logged.
    fn tell(&self) {
        for name in self.children.keys().filter(|name| !name.starts_with('e')) {
            let log = std::fs::read_to_string(self.path(&format!("{name}.err"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
            println!("{name}:\n{}", lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n"));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn dir(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program());
        Ran::new(command.env_remove("HOLDFAST_SITE").args(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.ask(&[arguments, &["-o", "json"]].concat()).json()
    }

    pub(crate) fn begin(&mut self, name: &str, program: &str, arguments: &[&str]) {
        let (out, err) = (self.path(&format!("{name}.out")), self.path(&format!("{name}.err")));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments).stdin(Stdio::null());
        let child = command.stdout(File::create(out).unwrap()).stderr(File::create(err).unwrap()).spawn();
        self.children.insert(name.to_owned(), child.unwrap());
    }

    /// Ends a process as an administrator would; gives its exit code.
    pub(crate) fn end(&mut self, name: &str) -> Option<i32> {
        let mut child = self.children.remove(name).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        child.wait().unwrap().code()
    }

    /// What a process said when it began to serve.
    pub(crate) fn said(&self, name: &str) -> String {
        let (start, out) = (Instant::now(), self.path(&format!("{name}.out")));
        loop {
            let text = std::fs::read_to_string(&out).unwrap();
            if text.ends_with('\n') {
                return text;
            }
            let log = || std::fs::read_to_string(self.path(&format!("{name}.err"))).unwrap();
            assert!(start.elapsed() < PATIENCE, "{name} does not serve: {}", log());
            std::thread::sleep(POLL);
        }
    }

    /// A founded site, its etcd and its manager.
    pub(crate) fn found(form: &str, types: &Types) -> Self {
        let mut site = Self { temp: TempDir::new().unwrap(), children: BTreeMap::new() };
        let manager = site.dir("m");
        let ports: Vec<SocketAddr> = (0..4).map(|_| free_port()).collect();
        let etcd: Vec<String> = (1..4).map(|number| format!("e{number}={}", ports[number])).collect();
        let listen = ports[0].to_string();
        let mut found = vec!["site", "found", "--dir", &manager, "--name", "m1", "--listen", &listen];
        etcd.iter().for_each(|member| found.extend(["--etcd", member]));
        let founded = site.checked(types, "Founded", &found, form);
        for number in 1..4 {
            let settings = format!("{manager}/etcd/e{number}/etcd.yaml");
            assert!(founded.contains(&settings), "{founded}");
            site.begin(&format!("e{number}"), "etcd", &["--config-file", &settings]);
        }
        site.begin("m", program(), &["manager", "--dir", &manager, "-o", form]);
        check(types, "NodeServing", &site.said("m"), form, "manager");
        // Twice is refused, and changes nothing.
        let refused = site.refused(types, &found, form);
        assert!(refused.contains("already_joined") || refused.contains("a node's already"), "{refused}");
        site
    }

    /// What a command that does its work says, in the published form.
    fn checked(&self, types: &Types, answer: &str, arguments: &[&str], form: &str) -> String {
        let ran = self.ask(&[arguments, &["-o", form]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        check(types, answer, &ran.stdout, form, arguments[0]);
        ran.stdout
    }

    /// What a command that is refused says.
    fn refused(&self, types: &Types, arguments: &[&str], form: &str) -> String {
        let ran = self.ask(&[arguments, &["-o", form]].concat());
        assert!(ran.code != 0 && ran.stdout.is_empty(), "{arguments:?}: {ran:?}");
        if form == "table" {
            assert!(ran.stderr.starts_with("error: "), "{ran:?}");
        } else {
            types.check("Failure", &parse(&ran.stderr, form), arguments[0]);
        }
        ran.stderr
    }
}

fn check(types: &Types, answer: &str, said: &str, form: &str, what: &str) {
    if form == "table" {
        assert!(!said.trim().is_empty() && !said.starts_with('{'), "{what}: {said}");
    } else {
        types.check(answer, &parse(said, form), what);
    }
}

#[test]
fn a_site_of_many_nodes_from_its_founding_on() {
    let types = Types::published();
    for form in ["table", "json", "yaml"] {
        let mut site = Site::found(form, &types);
        let (manager, node) = (site.dir("m"), site.dir("d1"));
        let listen = free_port().to_string();
        site.checked(&types, "Token", &["node", "add", "compute", "--dir", &manager], form);
        site.refused(&types, &["node", "add", "data", "--dir", &manager, "--life", "8d"], form);
        let token =
            site.json(&["node", "add", "data", "--dir", &manager])["token"].as_str().unwrap().to_owned();
        let join = ["join", &token, "--dir", &node, "--name", "d1", "--listen", &listen];
        site.checked(&types, "Joined", &join, form);
        let again = site.dir("d2");
        site.refused(&types, &["join", &token, "--dir", &again, "--name", "d2"], form);
        assert!(!site.path("d2/node.crt").exists(), "nothing is joined by half");

        let medium = site.dir("medium.img");
        File::create(&medium).unwrap().set_len(1 << 30).unwrap();
        site.refused(&types, &["data", "--dir", &again], form);
        // The settings name what is not typed.
        std::fs::write(site.path("d1/config.toml"), format!("media = [{medium:?}]\nio = \"sync\"\n"))
            .unwrap();
        site.begin("d1", program(), &["data", "--dir", &node, "-o", form]);
        check(&types, "NodeServing", &site.said("d1"), form, "data");
        TcpStream::connect(&listen).unwrap();
        site.checked(&types, "List_Node", &["node", "list", "--dir", &manager], form);
        site.checked(&types, "Node", &["node", "drain", "d1", "--dir", &manager], form);
        site.checked(&types, "Node", &["node", "drain", "d1", "--cancel", "--dir", &manager], form);
        let out = site.dir("backup1");
        let client = ["node", "add-client", "backup1", "--dir", &manager, "--out", &out];
        site.checked(&types, "NewClient", &client, form);
        site.refused(&types, &client, form);
        site.checked(&types, "Deleted", &["node", "remove", "backup1", "--dir", &manager, "--yes"], form);
        site.refused(&types, &["node", "drain", "m1", "--dir", &manager], form);
        site.refused(&types, &["node", "list", "--dir", &node], form);

        site.refused(&types, &["node", "remove", "d1", "--dir", &manager], form);
        site.refused(&types, &["node", "remove", "m1", "--dir", &manager, "--yes"], form);
        // Another node hears of it, and the one that is out is let into etcd no more.
        let (other, listen) = (site.dir("d3"), free_port().to_string());
        let token =
            site.json(&["node", "add", "data", "--dir", &manager])["token"].as_str().unwrap().to_owned();
        site.checked(
            &types,
            "Joined",
            &["join", &token, "--dir", &other, "--name", "d3", "--listen", &listen],
            form,
        );
        site.begin("d3", program(), &["data", "--dir", &other]);
        site.said("d3");
        site.checked(&types, "Deleted", &["node", "remove", "d1", "--dir", &manager, "--yes"], form);
        let (begun, list) = (Instant::now(), site.path("d3/revoked.crl"));
        while !list.exists() {
            assert!(begun.elapsed() < PATIENCE, "no node hears of what was revoked");
            std::thread::sleep(POLL);
        }
        assert_eq!(site.end("d1"), Some(0));
        site.begin("d1", program(), &["data", "--dir", &node]);
        let log = site.path("d1.err");
        while !std::fs::read_to_string(&log).unwrap().contains("permission denied") {
            assert!(begun.elapsed() < PATIENCE, "a removed node is let into etcd");
            std::thread::sleep(POLL);
        }
        let names = site.json(&["node", "list", "--dir", &manager]);
        assert_eq!(names["items"].as_array().unwrap().len(), 2);
        assert_eq!((site.end("d1"), site.end("m")), (Some(0), Some(0)));
        site.refused(&types, &["manager", "--dir", &node], form);
        site.refused(&types, &["site", "found", "--dir", &again, "--name", "M 1"], form);
    }
}
