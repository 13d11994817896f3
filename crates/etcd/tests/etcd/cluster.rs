//! Starts, stops, kills and restarts etcd servers.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use etcd_client::{Client, CompactionOptions, ConnectOptions, TlsOptions};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use seam::Rt;
use tempfile::TempDir;

use super::until;

/// What servers a test wants.
pub(super) struct Shape {
    pub(super) members: usize,
    /// Elections within half a second, leases from one second.
    pub(super) hasty: bool,
    /// More arguments for each server.
    pub(super) more: Vec<String>,
    /// How to ask the servers about themselves, when they want TLS.
    pub(super) tls: Option<TlsOptions>,
}

impl Shape {
    pub(super) fn of(members: usize) -> Self {
        Self { members, hasty: false, more: Vec::new(), tls: None }
    }

    pub(super) fn hasty(self) -> Self {
        Self { hasty: true, ..self }
    }

    pub(super) fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }
}

/// Servers that end with the test.
pub(super) struct Cluster {
    rt: Rt,
    shape: Shape,
    /// Of clients and of peers, for each member.
    ports: Vec<(u16, u16)>,
    servers: Vec<Option<Child>>,
    temp: TempDir,
}

/// A folder in RAM where there is one: etcd syncs every write.
fn folder() -> TempDir {
    let ram = Path::new("/dev/shm");
    let place = if ram.is_dir() { ram.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("holdfast-etcd-").tempdir_in(place).unwrap()
}

/// Ports of servers: below those that the kernel gives to connections, so that none takes the port of a server that is down.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// Ports that nobody listens at now, all different, and none of a cluster before.
fn free_ports(count: usize) -> Vec<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let many = PORTS.end - PORTS.start;
    // Tests of other processes begin elsewhere.
    let first = (std::process::id().wrapping_mul(97) % u32::from(many)) as u16;
    let ports = std::iter::from_fn(|| {
        let turn = TAKEN.fetch_add(1, Ordering::Relaxed);
        Some(PORTS.start + (first + turn % many) % many)
    });
    ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect()
}

impl Cluster {
    /// Starts servers and waits until they have a leader.
    pub(super) async fn start(rt: &Rt, shape: Shape) -> Self {
        let found = Command::new("etcd").arg("--version").output();
        assert!(found.is_ok(), "etcd is not installed: run `cargo x setup` first");
        let ports = free_ports(2 * shape.members);
        let mut cluster = Self {
            rt: rt.clone(),
            ports: ports.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
            servers: (0..shape.members).map(|_| None).collect(),
            shape,
            temp: folder(),
        };
        for member in 0..cluster.servers.len() {
            cluster.spawn(member);
        }
        cluster.ready().await;
        cluster
    }

    fn scheme(&self) -> &'static str {
        if self.shape.tls.is_some() { "https" } else { "http" }
    }

    /// The address of a member.
    pub(super) fn endpoint(&self, member: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.ports[member].0)
    }

    /// The addresses of all, from one on.
    pub(super) fn endpoints_from(&self, first: usize) -> Vec<String> {
        let count = self.ports.len();
        (0..count).map(|offset| self.endpoint((first + offset) % count)).collect()
    }

    fn log(&self, member: usize) -> PathBuf {
        self.temp.path().join(format!("{member}.log"))
    }

    /// Starts a member that does not run, with the data it had.
    pub(super) fn spawn(&mut self, member: usize) {
        assert!(self.servers[member].is_none(), "member {member} runs");
        let peer = |member: usize| format!("http://127.0.0.1:{}", self.ports[member].1);
        let initial: Vec<String> =
            (0..self.ports.len()).map(|member| format!("m{member}={}", peer(member))).collect();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "etcd", "--log-outputs", "stderr", "--logger", "zap"]);
        command.arg("--name").arg(format!("m{member}"));
        command.arg("--data-dir").arg(self.temp.path().join(format!("m{member}")));
        command.args(["--listen-client-urls", &self.endpoint(member)]);
        command.args(["--advertise-client-urls", &self.endpoint(member)]);
        command.args(["--listen-peer-urls", &peer(member)]);
        command.args(["--initial-advertise-peer-urls", &peer(member)]);
        command.args(["--initial-cluster", &initial.join(","), "--initial-cluster-state", "new"]);
        command.args(["--initial-cluster-token", &self.temp.path().display().to_string()]);
        command.args(["--enable-grpc-gateway=false", "--pre-vote"]);
        command.args(["--max-txn-ops", &meta::TXN_OPS_MAX.to_string()]);
        if self.shape.hasty {
            command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        }
        let log = File::options().create(true).append(true).open(self.log(member)).unwrap();
        command.args(&self.shape.more).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.servers[member] = Some(command.spawn().expect("setpriv is here"));
    }

    /// Waits until the members that run have a leader.
    pub(super) async fn ready(&mut self) {
        for member in 0..self.servers.len() {
            let Some(server) = &mut self.servers[member] else { continue };
            let ended = server.try_wait().unwrap();
            assert!(ended.is_none(), "{}", std::fs::read_to_string(self.log(member)).unwrap());
        }
        let this = &*self;
        for member in this.up() {
            until(&this.rt, "a leader", async || match this.client(member).await.status().await {
                Ok(status) => status.leader() != 0,
                Err(_) => false,
            })
            .await;
        }
    }

    fn up(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|member| self.servers[*member].is_some()).collect()
    }

    /// Speaks to one member as an administrator does.
    pub(super) async fn client(&self, member: usize) -> Client {
        let mut options = ConnectOptions::new().with_timeout(super::PATIENCE / 10);
        if let Some(tls) = &self.shape.tls {
            options = options.with_tls(tls.clone());
        }
        Client::connect([self.endpoint(member)], Some(options)).await.unwrap()
    }

    /// The member that leads.
    pub(super) async fn leader(&self) -> usize {
        for member in self.up() {
            let status = self.client(member).await.status().await.unwrap();
            if status.leader() == status.header().unwrap().member_id() {
                return member;
            }
        }
        panic!("nobody leads");
    }

    /// Kills a member at once and for good, or until it is started again.
    pub(super) fn kill(&mut self, member: usize) {
        let mut server = self.servers[member].take().expect("it runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    fn signal(&self, member: usize, signal: Signal) {
        let server = self.servers[member].as_ref().expect("it runs");
        kill_process(Pid::from_child(server), signal).unwrap();
    }

    /// A member does nothing more, but its connections stay.
    pub(super) fn freeze(&self, member: usize) {
        self.signal(member, Signal::STOP);
        // Its threads stop one after the other; that all have is told then.
        let server = self.servers[member].as_ref().expect("it runs");
        let stopped = waitpid(Some(Pid::from_child(server)), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "it ended instead");
    }

    /// It goes on.
    pub(super) fn thaw(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    /// Forgets the history before a revision, on every member.
    pub(super) async fn compact(&self, revision: u64) {
        let revision = i64::try_from(revision).unwrap();
        let first = self.up()[0];
        let options = CompactionOptions::new().with_physical();
        self.client(first).await.compact(revision, Some(options)).await.unwrap();
        for member in self.up() {
            // A read waits until its member has done all that was done before.
            self.client(member).await.get("x", None).await.unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
