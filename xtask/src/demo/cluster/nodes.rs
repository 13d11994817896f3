//! The nodes of the demo's site: etcd, a manager, data nodes and compute nodes, each a process in its namespace.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::network::{Network, within};
use crate::lab::Stage;
use crate::process::must;
use crate::{Result, failed};

const START_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const MEDIUM_BYTES: u64 = 4 << 30;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Etcd,
    Manager,
    Data,
    Compute,
}

/// A node: its name, which its namespace and its folder have too, and the end of its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) name: &'static str,
    role: Role,
    host: u8,
}

pub(super) const MANAGER: Node = Node { name: "m1", role: Role::Manager, host: 1 };
pub(super) const ETCD: [Node; 3] = [
    Node { name: "e1", role: Role::Etcd, host: 11 },
    Node { name: "e2", role: Role::Etcd, host: 12 },
    Node { name: "e3", role: Role::Etcd, host: 13 },
];
pub(super) const COMPUTE: [Node; 2] =
    [Node { name: "c1", role: Role::Compute, host: 21 }, Node { name: "c2", role: Role::Compute, host: 22 }];
pub(super) const DATA: [Node; 3] = [
    Node { name: "d1", role: Role::Data, host: 31 },
    Node { name: "d2", role: Role::Data, host: 32 },
    Node { name: "d3", role: Role::Data, host: 33 },
];
/// The one that joins later.
pub(super) const LATE: Node = Node { name: "d4", role: Role::Data, host: 34 };

impl Node {
    fn address(self) -> String {
        format!("10.77.0.{}", self.host)
    }

    /// Where others find it.
    fn listen(self) -> String {
        let port = match self.role {
            Role::Etcd => 2379,
            Role::Manager => 7400,
            Role::Compute => 7410,
            Role::Data => 7420,
        };
        format!("{}:{port}", self.address())
    }
}

/// The nodes and their network. Dropping them kills all that run.
pub(super) struct Nodes<'a> {
    stage: &'a Stage,
    pub(super) network: Network,
    running: BTreeMap<&'static str, Child>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Self> {
        std::fs::create_dir_all(&stage.site)
            .map_err(|error| failed(format!("{}: {error}", stage.site.display())))?;
        Ok(Self { stage, network: Network::new()?, running: BTreeMap::new() })
    }

    /// Founds the site and starts what it needs before nodes can join.
    pub(super) fn found(&mut self) -> Result {
        for node in ETCD.into_iter().chain([MANAGER]) {
            self.network.plug(node.name, &node.address())?;
        }
        let mut found = self.holdfast(MANAGER);
        found.args(["site", "found", "--name", MANAGER.name, "--listen", &MANAGER.listen()]);
        found.arg("--dir").arg(self.folder(MANAGER)).args(["--data-nodes", &DATA.len().to_string()]);
        found.arg("--recovery-key-file").arg(self.stage.logs.join("recovery-key"));
        for node in ETCD {
            found.args(["--etcd", &format!("{}={}", node.name, node.listen())]);
        }
        must(&mut found, COMMAND_LIMIT)?;
        // One member alone elects nobody: all three start before any is awaited.
        for node in ETCD {
            self.launch(node)?;
        }
        self.start(MANAGER)
    }

    /// A node joins and starts, with so many media of 4 GiB.
    pub(super) fn join(&mut self, node: Node, media: usize) -> Result {
        self.network.plug(node.name, &node.address())?;
        let role = if node.role == Role::Data { "data" } else { "compute" };
        let mut add = self.holdfast(MANAGER);
        add.args(["node", "add", role, "--dir"]).arg(self.folder(MANAGER));
        let token = must(&mut add, COMMAND_LIMIT)?.output;
        let mut join = self.holdfast(node);
        join.args(["join", token.trim(), "--name", node.name, "--listen", &node.listen(), "--dir"]);
        must(join.arg(self.folder(node)), COMMAND_LIMIT)?;
        for medium in 0..media {
            let path = self.medium(node, medium);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|file| file.set_len(MEDIUM_BYTES))
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
        }
        self.start(node)
    }

    /// A medium of a data node.
    pub(super) fn medium(&self, node: Node, number: usize) -> PathBuf {
        self.stage.site.join(medium_name(node, number))
    }

    /// Starts a node and waits until it serves.
    pub(super) fn start(&mut self, node: Node) -> Result {
        let log = self.log(node);
        let before = std::fs::metadata(&log).map_or(0, |metadata| metadata.len()) as usize;
        self.launch(node)?;
        let ready = if node.role == Role::Etcd { "ready to serve client requests" } else { " serves on " };
        let start = Instant::now();
        loop {
            let text = std::fs::read(&log).unwrap_or_default();
            let new = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
            if new.contains(ready) {
                return Ok(());
            }
            let ended =
                self.running.get_mut(node.name).is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || start.elapsed() > START_LIMIT {
                return Err(failed(format!("{} does not start:\n{new}", node.name)));
            }
            std::thread::sleep(POLL);
        }
    }

    fn launch(&mut self, node: Node) -> Result {
        let log = self.log(node);
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let fail = |error: std::io::Error| failed(format!("{}: {error}", log.display()));
        let mut command = self.server(node);
        command.stdin(Stdio::null()).stdout(open().map_err(fail)?).stderr(open().map_err(fail)?);
        let child = command.spawn().map_err(|error| failed(format!("{}: {error}", node.name)))?;
        self.running.insert(node.name, child);
        Ok(())
    }

    /// What a node runs. Its process is the one that is spawned: each program on the way becomes the next.
    fn server(&self, node: Node) -> Command {
        let folder = self.folder(node);
        match node.role {
            Role::Etcd => {
                let mut command = within(node.name, "etcd");
                command.arg("--config-file").arg(folder.join("etcd.yaml"));
                command
            }
            Role::Manager => self.role(node, "manager", &folder),
            Role::Compute => self.role(node, "compute", &folder),
            Role::Data => {
                let mut command = self.role(node, "data", &folder);
                let media = (0..).map(|number| self.medium(node, number)).take_while(|path| path.exists());
                for medium in media {
                    command.arg("--media").arg(medium);
                }
                command
            }
        }
    }

    fn role(&self, node: Node, role: &str, folder: &Path) -> Command {
        let mut command = self.holdfast(node);
        command.arg(role).arg("--dir").arg(folder);
        command
    }

    /// The program in a node's namespace.
    fn holdfast(&self, node: Node) -> Command {
        within(node.name, &self.stage.binary)
    }

    /// kill -9.
    pub(super) fn kill(&mut self, node: Node) -> Result {
        let none = || failed(format!("{} does not run", node.name));
        let mut child = self.running.remove(node.name).ok_or_else(none)?;
        child.kill().and_then(|()| child.wait()).map_err(|error| failed(format!("kill -9: {error}")))?;
        Ok(())
    }

    /// One command of the command line through a compute node; gives what it printed.
    pub(super) fn cli(&self, at: Node, arguments: &[&str], limit: Duration) -> Result<String> {
        let mut command = Command::new(&self.stage.binary);
        Ok(must(command.arg("--site").arg(self.folder(at)).args(arguments), limit)?.output)
    }

    /// Where the disks of a compute node's host are.
    pub(super) fn disks(&self, at: Node) -> PathBuf {
        self.folder(at).join("nbd.sock")
    }

    fn folder(&self, node: Node) -> PathBuf {
        match node.role {
            Role::Etcd => self.stage.site.join(MANAGER.name).join("etcd").join(node.name),
            _ => self.stage.site.join(node.name),
        }
    }

    fn log(&self, node: Node) -> PathBuf {
        self.stage.logs.join(format!("{}.log", node.name))
    }

    /// The compute node that serves the site, the one that said so with the highest epoch, and that epoch.
    pub(super) fn serving(&self) -> Result<(Node, u64)> {
        self.last_to_say(COMPUTE, "this node serves the site epoch=")
    }

    /// The leader of etcd: the one that became it in the highest term.
    pub(super) fn leader(&self) -> Result<Node> {
        Ok(self.last_to_say(ETCD, "became leader at term ")?.0)
    }

    fn last_to_say<const N: usize>(&self, nodes: [Node; N], words: &str) -> Result<(Node, u64)> {
        let said = nodes.into_iter().filter_map(|node| {
            let log = std::fs::read(self.log(node)).unwrap_or_default();
            Some((node, highest(&String::from_utf8_lossy(&log), words)?))
        });
        said.max_by_key(|(_, number)| *number).ok_or_else(|| failed(format!("no node said {words:?}")))
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last part of a medium's path, by which the site knows it too.
pub(super) fn medium_name(node: Node, number: usize) -> String {
    format!("{}-medium{number}.img", node.name)
}

/// The highest number that follows `words` in a log.
fn highest(log: &str, words: &str) -> Option<u64> {
    let numbers = log.split(words).skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    numbers.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_counts() {
        let log = "a serves epoch=2\nb\nserves epoch=11\nserves epoch=x";
        assert_eq!(highest(log, "epoch="), Some(11));
        assert_eq!(highest(log, "term "), None);
    }

    #[test]
    fn no_two_nodes_share_a_name_or_an_address() {
        let all: Vec<Node> = ETCD.into_iter().chain(COMPUTE).chain(DATA).chain([MANAGER, LATE]).collect();
        let names: std::collections::BTreeSet<&str> = all.iter().map(|node| node.name).collect();
        let addresses: std::collections::BTreeSet<String> = all.iter().map(|node| node.listen()).collect();
        assert_eq!((names.len(), addresses.len()), (all.len(), all.len()));
    }
}
