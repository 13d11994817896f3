//! The network of the demo: one namespace for each node, and one for the bridge that joins them.
//!
//! A network namespace has its name by a mount below `/run/netns`. This command runs in a mount namespace of its own with
//! an empty `/run/netns`, so nobody else sees these names and two runs do not meet. Once the last process has ended,
//! however it ended, the kernel takes namespaces, cables and bridge away.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::process::{bound, must};
use crate::{Failure, Result, failed, setup};

/// Says that the process is in its own mount namespace already.
const APART: &str = "--apart";
/// Where `ip` keeps the names of network namespaces.
const NAMES: &str = "/run/netns";
/// The namespace of the bridge, and the bridge in it.
const LAN: &str = "lan";
/// One command of `ip`.
const LIMIT: Duration = Duration::from_secs(10);

/// Goes on as the same command in a mount namespace of its own; gives the arguments left once it is there.
pub(super) fn apart(arguments: &[String]) -> Result<Vec<String>> {
    if !setup::is_root() {
        return Err(failed("network namespaces and the guest's image need root"));
    }
    let left: Vec<String> = arguments.iter().filter(|argument| *argument != APART).cloned().collect();
    if left.len() == arguments.len() {
        let own = std::env::current_exe().map_err(|error| failed(format!("this program: {error}")))?;
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private", "--"]).arg(own).arg("demo");
        let error = again.args(arguments).arg(APART).exec();
        return Err(failed(format!("unshare: {error}")));
    }
    std::fs::create_dir_all(NAMES).map_err(|error| failed(format!("{NAMES}: {error}")))?;
    must(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", NAMES]), LIMIT)?;
    Ok(left)
}

/// A program in a node's namespace that dies with this one.
pub(super) fn within(node: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = bound("ip");
    command.args(["netns", "exec", node]).arg(program);
    command
}

/// A bridge and what is plugged into it.
pub(super) struct Network;

impl Network {
    /// A bridge with nothing plugged in.
    pub(super) fn new() -> Result<Self> {
        ip(&["netns", "add", LAN])?;
        ip(&["-n", LAN, "link", "add", LAN, "type", "bridge"])?;
        ip(&["-n", LAN, "link", "set", LAN, "up"])?;
        Ok(Self)
    }

    /// A new namespace with this address, and a cable from it to the bridge.
    pub(super) fn plug(&self, node: &str, address: &str) -> Result {
        let mask = format!("{address}/24");
        ip(&["netns", "add", node])?;
        ip(&["-n", LAN, "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", node])?;
        ip(&["-n", LAN, "link", "set", node, "master", LAN, "up"])?;
        ip(&["-n", node, "addr", "add", &mask, "dev", "eth0"])?;
        ip(&["-n", node, "link", "set", "eth0", "up"])?;
        ip(&["-n", node, "link", "set", "lo", "up"])
    }

    /// Pulls a node's cable.
    pub(super) fn cut(&self, node: &str) -> Result {
        ip(&["-n", LAN, "link", "set", node, "down"])
    }

    /// Plugs it in again.
    pub(super) fn mend(&self, node: &str) -> Result {
        ip(&["-n", LAN, "link", "set", node, "up"])
    }
}

fn ip(arguments: &[&str]) -> Result {
    match must(Command::new("ip").args(arguments), LIMIT) {
        Err(Failure::Failed(why)) => Err(failed(format!("{why}\nnetwork namespaces are not to be had here"))),
        other => other.map(drop),
    }
}
