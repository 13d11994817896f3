//! Goal: clients on two hosts see one disk, whatever becomes of the processes that serve it: no error, no acknowledged write
//! gone, no read of what is no more.
//! Model: each block is a register that one client writes and all read; a read gives the last value acknowledged before it
//! began or one that was being written since, and no client sees a register go back. Real processes: three etcd, a manager,
//! three data nodes with two media each, two compute nodes.

mod crowd;
mod doors;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::{Site, free_port};
use crate::harness::program;
use crate::nbd_client::NbdClient;
use crate::walk::Types;

const BLOCK: usize = 4096;
/// Registers of each writer.
const BLOCKS: u64 = 16;
/// The longest that a request may take, takeovers included; figures are in docs/benchmarks.md.
const PAUSE_MAX: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(20);

/// A whole site, serving.
fn site() -> Site {
    let mut site = Site::found("json", &Types::published());
    let manager = site.dir("m");
    for number in 1..4 {
        data_node(&mut site, &format!("d{number}"));
    }
    for name in ["c1", "c2"] {
        join(&site, "compute", name);
        let port = format!("nbd_listen = \"{}\"\n", free_port());
        std::fs::write(site.path(&format!("{name}/config.toml")), port).unwrap();
        start(&mut site, name);
    }
    let nodes = site.json(&["node", "list", "--dir", &manager]);
    assert_eq!(nodes["items"].as_array().unwrap().len(), 6);
    let begun = Instant::now();
    let made = ["--site", &site.dir("c2"), "vm", "create", "web01", "--disk", "64M"].map(str::to_owned);
    loop {
        let ran = site.ask(&made.each_ref().map(String::as_str));
        if ran.code == 0 {
            return site;
        }
        assert!(begun.elapsed() < PAUSE_MAX && ran.stderr.contains("no compute node serves"), "{ran:?}");
        std::thread::sleep(POLL);
    }
}

/// Where NBD clients find a compute node over the network.
fn nbd_address(site: &Site, name: &str) -> String {
    let settings = std::fs::read_to_string(site.path(&format!("{name}/config.toml"))).unwrap();
    settings.split('"').nth(1).unwrap().to_owned()
}

/// A data node with two media, whose paths are told.
fn data_node(site: &mut Site, name: &str) -> Vec<String> {
    let dir = site.dir(name);
    join(site, "data", name);
    let media: Vec<String> = (0..2).map(|at| site.dir(&format!("{name}-{at}.img"))).collect();
    for medium in &media {
        File::create(medium).unwrap().set_len(1 << 30).unwrap();
    }
    let given: Vec<&str> = media.iter().flat_map(|medium| ["--media", medium]).collect();
    site.begin(name, program(), &[&["data", "--dir", &dir][..], &given].concat());
    site.said(name);
    media
}

fn join(site: &Site, role: &str, name: &str) {
    let (manager, dir, listen) = (site.dir("m"), site.dir(name), free_port().to_string());
    let token = site.json(&["node", "add", role, "--dir", &manager])["token"].as_str().unwrap().to_owned();
    let joined = site.ask(&["join", &token, "--dir", &dir, "--name", name, "--listen", &listen]);
    assert_eq!(joined.code, 0, "{joined:?}");
}

fn start(site: &mut Site, name: &str) {
    let dir = site.dir(name);
    site.begin(name, program(), &["compute", "--dir", &dir, "--log", "debug"]);
    site.said(name);
}

fn signal(site: &Site, name: &str, signal: Signal) {
    kill_process(Pid::from_child(&site.children[name]), signal).unwrap();
}

fn kill(site: &mut Site, name: &str) {
    let mut child = site.children.remove(name).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Which compute node serves.
fn serving(site: &Site) -> (&'static str, &'static str) {
    let began = |name: &str| {
        let log = std::fs::read_to_string(site.path(&format!("{name}.err"))).unwrap();
        log.lines().rfind(|line| line.contains("this node serves the site")).map(str::to_owned)
    };
    // Lines begin with the time.
    if began("c1") > began("c2") { ("c1", "c2") } else { ("c2", "c1") }
}

/// What all clients know of a writer's registers: what was begun, and what was acknowledged.
struct Registers {
    first: u64,
    begun: Vec<AtomicU64>,
    acked: Vec<AtomicU64>,
}

struct Clients {
    over: Arc<AtomicBool>,
    /// How long a request took at most since it was last asked, ms.
    pause_ms: Arc<AtomicU64>,
    /// Of each client, with its host.
    requests: Vec<(&'static str, Arc<AtomicU64>)>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection through a host's socket that is made again when it breaks.
struct Through {
    socket: PathBuf,
    client: Option<NbdClient>,
    over: Arc<AtomicBool>,
    pause_ms: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl Through {
    fn ask<T>(
        &mut self,
        what: impl Fn(&mut NbdClient) -> Result<T, crate::nbd_client::NbdError>,
    ) -> Option<T> {
        use crate::nbd_client::NbdError;
        let begun = Instant::now();
        loop {
            let client = match self.client.take() {
                Some(client) => Ok(client),
                None => NbdClient::connect(&self.socket, "web01/disk0"),
            };
            match client.and_then(|mut client| what(&mut client).map(|done| (client, done))) {
                Ok((client, done)) => {
                    self.client = Some(client);
                    self.pause_ms.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    return Some(done);
                }
                // Error numbers of requests are small; refusals of the hand-shake have their highest bit set.
                Err(NbdError::Refused(number)) if number >> 31 == 0 => panic!("an I/O error: {number}"),
                Err(_) if self.over.load(Ordering::Relaxed) => return None,
                Err(error) => {
                    assert!(begun.elapsed() < PAUSE_MAX, "no answer for {PAUSE_MAX:?}: {error:?}");
                    std::thread::sleep(POLL);
                }
            }
        }
    }
}

fn value(block: &[u8]) -> u64 {
    assert!(block.chunks_exact(8).all(|word| word == &block[..8]), "a block is of one write");
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

impl Clients {
    /// A writer and a reader on each host.
    fn begin(site: &Site) -> Self {
        let (over, pause_ms) = (Arc::default(), Arc::default());
        let mut clients = Self { over, pause_ms, requests: Vec::new(), threads: Vec::new() };
        let registers: Vec<Arc<Registers>> = (0..2)
            .map(|at| {
                let zeros = || (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
                Arc::new(Registers { first: at * BLOCKS, begun: zeros(), acked: zeros() })
            })
            .collect();
        for (host, own) in ["c1", "c2"].into_iter().zip(&registers) {
            let (mut writes, mut reads) = (clients.through(site, host), clients.through(site, host));
            let (own, all, over) = (own.clone(), registers.clone(), clients.over.clone());
            clients.threads.push(std::thread::spawn(move || write(&mut writes, &own)));
            clients.threads.push(std::thread::spawn(move || read(&mut reads, &all, &over)));
        }
        clients
    }

    fn through(&mut self, site: &Site, host: &'static str) -> Through {
        let requests = Arc::new(AtomicU64::new(0));
        self.requests.push((host, requests.clone()));
        Through {
            socket: site.path(&format!("{host}/nbd.sock")),
            client: None,
            over: self.over.clone(),
            pause_ms: self.pause_ms.clone(),
            requests,
        }
    }

    /// Waits until every client is answered again, for a while; tells how long the longest request took.
    fn settle(&self, what: &str) {
        self.settle_but(what, 100, None);
    }

    /// The same of so many requests each, without those of a host whose process cannot answer.
    fn settle_but(&self, what: &str, requests: u64, down: Option<&str>) {
        let up = self.requests.iter().filter(|(host, _)| down != Some(host)).map(|(_, done)| done);
        let done = || up.clone().map(|done| done.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (before, begun) = (done(), Instant::now());
        while done().iter().zip(&before).any(|(now, before)| *now < before + requests) {
            assert!(begun.elapsed() < PAUSE_MAX * 2, "{what}: no requests are answered");
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "{what}: a client has ended");
            std::thread::sleep(POLL);
        }
        println!("{what}: longest request {} ms", self.pause_ms.swap(0, Ordering::Relaxed));
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn write(through: &mut Through, own: &Registers) {
    for number in 1_u64.. {
        let at = (number % BLOCKS) as usize;
        if through.over.load(Ordering::Relaxed) {
            return;
        }
        own.begun[at].store(number, Ordering::SeqCst);
        let block = number.to_le_bytes().repeat(BLOCK / 8);
        let offset = (own.first + at as u64) * BLOCK as u64;
        if through.ask(|client| client.write(offset, &block)).is_none() {
            return;
        }
        own.acked[at].store(number, Ordering::SeqCst);
    }
}

fn read(through: &mut Through, all: &[Arc<Registers>], over: &AtomicBool) {
    let mut seen = vec![0; all.len() * BLOCKS as usize];
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let own = &all[(number % all.len() as u64) as usize];
        let at = (number / all.len() as u64 % BLOCKS) as usize;
        let least = own.acked[at].load(Ordering::SeqCst);
        let offset = (own.first + at as u64) * BLOCK as u64;
        let Some(block) = through.ask(|client| client.read(offset, BLOCK as u32)) else { return };
        let (got, most) = (value(&block), own.begun[at].load(Ordering::SeqCst));
        let before = &mut seen[(own.first + at as u64) as usize];
        assert!(got >= least, "block {at}: {got} was read, and {least} was acknowledged before");
        assert!(got <= most, "block {at}: {got} was read, and {most} was the last that was begun");
        assert!(got >= *before, "block {at}: {got} was read behind {before}");
        *before = got;
    }
}

#[test]
fn whoever_serves_clients_see_one_disk() {
    let mut site = site();
    let clients = Clients::begin(&site);
    clients.settle("all is well");

    let (first, _) = serving(&site);
    kill(&mut site, first);
    clients.settle_but("kill -9 of the compute node that serves", 100, Some(first));
    start(&mut site, first);
    clients.settle("it is back");

    let (second, _) = serving(&site);
    signal(&site, second, Signal::STOP);
    clients.settle_others(&site, second);
    signal(&site, second, Signal::CONT);
    clients.settle("a compute node that was stopped goes on");

    let (third, _) = serving(&site);
    assert_eq!(site.end(third), Some(0));
    clients.settle_but("an orderly stop of the compute node that serves", 100, Some(third));
    start(&mut site, third);
    clients.settle("it is back");

    // Segments are full in less: the journal goes on in the next ones without a word to anybody.
    kill(&mut site, "e2");
    kill(&mut site, "e3");
    clients.settle_but("etcd without a majority", 1_500, None);
    for name in ["e2", "e3"] {
        let settings = format!("{}/etcd/{name}/etcd.yaml", site.dir("m"));
        site.begin(name, "etcd", &["--config-file", &settings]);
    }
    // It has a leader again when it answers; how long its start takes is a matter of the machine's disk.
    let (manager, begun) = (site.dir("m"), Instant::now());
    while site.ask(&["node", "list", "--dir", &manager]).code != 0 {
        assert!(begun.elapsed() < PAUSE_MAX, "etcd has no leader");
        std::thread::sleep(POLL);
    }
    clients.settle("etcd is back");

    kill(&mut site, "d1");
    clients.settle("kill -9 of a data node");
    let dir = site.dir("d1");
    site.begin("d1", program(), &["data", "--dir", &dir]);
    site.said("d1");
    clients.settle("the data node is back");
    clients_come_over_the_network(&site);
    a_data_node_takes_the_place_of_another(&mut site, &clients);
    compute_nodes_are_emptied_in_turns(&site, &clients);
    a_lost_metadata_store_is_made_anew(&mut site, &clients);
    clients.end();

    let host = site.dir("c1");
    let verified = site.ask(&["--site", &host, "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
}

/// Other people's NBD clients with a certificate open disks over the network at any host, and without one nothing.
fn clients_come_over_the_network(site: &Site) {
    let (manager, folder) = (site.dir("m"), site.dir("backup1"));
    let added = site.json(&["node", "add-client", "backup1", "--dir", &manager, "--out", &folder]);
    assert_eq!(added["client"], "backup1");
    let run = |program: &str, arguments: &[&str]| {
        let found = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        found.unwrap_or_else(|error| panic!("{program}: {error}: run `cargo x setup` first"))
    };
    let info = |host: &str, scheme: &str, export: &str| {
        let with = if scheme == "nbds" { format!("?tls-certificates={folder}") } else { String::new() };
        let uri = format!("{scheme}://{}/{export}{with}", nbd_address(site, host));
        run("nbdinfo", &["--size", &uri])
    };
    for host in ["c1", "c2"] {
        let told = info(host, "nbds", "web01/disk0");
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "67108864", "{told:?}");
        assert!(!info(host, "nbds", "web01/disk9").status.success());
        let plain = info(host, "nbd", "web01/disk0");
        assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
        // Behind the registers of the other clients.
        let (address, port) =
            nbd_address(site, host).rsplit_once(':').map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
        let tls = format!("tls-creds-x509,id=tls,endpoint=client,dir={folder}");
        let disk = format!(
            "driver=nbd,server.type=inet,server.host={address},server.port={port},export=web01/disk0,tls-creds=tls"
        );
        let io = run(
            "qemu-io",
            &[
                "--object",
                &tls,
                "--image-opts",
                &disk,
                "-c",
                "write -P 7 1M 128k",
                "-c",
                "read -P 7 1M 128k",
                "-c",
                "flush",
            ],
        );
        let said = String::from_utf8_lossy(&io.stdout).into_owned();
        assert!(io.status.success() && said.contains("read 131072/131072"), "{said} {io:?}");
    }
    let removed = site.ask(&["node", "remove", "backup1", "--dir", &manager, "--yes"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let begun = Instant::now();
    while info("c1", "nbds", "web01/disk0").status.success() {
        assert!(begun.elapsed() < PAUSE_MAX, "a removed client is let in");
        std::thread::sleep(POLL);
    }
}

/// A data node joins, another is emptied and removed, and nobody notices.
fn a_data_node_takes_the_place_of_another(site: &mut Site, clients: &Clients) {
    let (manager, host) = (site.dir("m"), site.dir("c2"));
    let media = data_node(site, "d4");
    for medium in &media {
        let added = site.ask(&["--site", &host, "media", "add", &format!("d4:{medium}")]);
        assert_eq!(added.code, 0, "{added:?}");
    }
    clients.settle("a data node joins");
    let on = |site: &Site, name: &str| {
        let list = site.json(&["node", "list", "--dir", &manager]);
        let nodes = list["items"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap()["media"].as_u64().unwrap()
    };
    assert_eq!((on(site, "d1"), on(site, "d4")), (2, 2));
    let remove = ["node", "remove", "d1", "--dir", &manager, "--yes"];
    let refused = site.ask(&remove);
    assert!(refused.code == 6 && refused.stderr.contains("2 media of the site are on d1"), "{refused:?}");
    let drained = site.ask(&["node", "drain", "d1", "--dir", &manager]);
    assert_eq!(drained.code, 0, "{drained:?}");
    let begun = Instant::now();
    while on(site, "d1") > 0 {
        assert!(begun.elapsed() < PAUSE_MAX * 2, "what d1 holds does not move");
        std::thread::sleep(POLL);
    }
    println!("a data node is emptied within {} ms", begun.elapsed().as_millis());
    let removed = site.ask(&remove);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(site.end("d1"), Some(0));
    clients.settle("it has left");
}

/// The compute node that serves is told to serve no more, and then the other, and nobody notices.
fn compute_nodes_are_emptied_in_turns(site: &Site, clients: &Clients) {
    let manager = site.dir("m");
    let drain = |name: &str, more: &[&str]| {
        let ran = site.ask(&[&["node", "drain", name, "--dir", &manager][..], more].concat());
        (ran.code, ran.stderr)
    };
    for _ in 0..2 {
        let (serves, other) = serving(site);
        assert_eq!(drain(serves, &[]).0, 0);
        let begun = Instant::now();
        while serving(site).0 == serves {
            assert!(begun.elapsed() < PAUSE_MAX, "{serves} goes on to serve");
            std::thread::sleep(POLL);
        }
        clients.settle("the compute node that serves is told to serve no more");
        let (code, said) = drain(other, &[]);
        assert!(code == 6 && said.contains("no other compute node"), "{said}");
        assert_eq!(drain(serves, &["--cancel"]).0, 0);
    }
}

/// Waits until the manager's copy of the metadata store has that no node is to be emptied any more: it is written within a
/// second or two of such news, and what is restored is what it has.
fn wait_for_copy(site: &Site) {
    // Its values are records in JSON, in hexadecimal.
    let draining: String = b"draining".iter().map(|byte| format!("{byte:02x}")).collect();
    let begun = Instant::now();
    while std::fs::read_to_string(site.path("m/catalogue.json")).unwrap().contains(&draining) {
        assert!(begun.elapsed() < PAUSE_MAX, "the copy of the metadata store is not brought up to date");
        std::thread::sleep(POLL);
    }
}

/// All of etcd is lost, under guests that go on; a manager's copy makes it anew, and another node takes over from there.
fn a_lost_metadata_store_is_made_anew(site: &mut Site, clients: &Clients) {
    let manager = site.dir("m");
    let (_, stands_by) = serving(site);
    wait_for_copy(site);
    assert_eq!(site.end("m"), Some(0));
    for name in ["e1", "e2", "e3"] {
        kill(site, name);
        std::fs::remove_dir_all(site.path(&format!("m/etcd/{name}/data"))).unwrap();
        let settings = format!("{manager}/etcd/{name}/etcd.yaml");
        site.begin(name, "etcd", &["--config-file", &settings]);
    }
    site.begin("m", program(), &["manager", "--dir", &manager]);
    site.said("m");
    // Whom the store does not know nobody finds; clients of the host that serves go on.
    clients.settle_but("the metadata store is lost", 100, Some(stands_by));
    let restore = ["site", "restore", "--dir", &manager];
    let restored = site.json(&restore);
    assert_eq!(restored["nodes"], 6, "{restored}");
    let again = site.ask(&restore);
    assert!(again.code == 6 && again.stderr.contains("nothing is to be restored"), "{again:?}");
    let nodes = site.json(&["node", "list", "--dir", &manager]);
    assert_eq!(nodes["items"].as_array().unwrap().len(), 6);
    clients.settle("it is made anew");
    let (first, _) = serving(site);
    kill(site, first);
    clients.settle_but("kill -9 of the compute node that serves, behind that", 100, Some(first));
    start(site, first);
    clients.settle("it is back");
}

impl Clients {
    /// While a process is stopped its own clients wait for it; those of the other host go on.
    fn settle_others(&self, site: &Site, stopped: &str) {
        let begun = Instant::now();
        while serving(site).0 == stopped {
            assert!(begun.elapsed() < PAUSE_MAX, "nobody takes over from a process that is stopped");
            std::thread::sleep(POLL);
        }
        println!(
            "SIGSTOP of the compute node that serves: the other does after {} ms",
            begun.elapsed().as_millis()
        );
    }
}
