//! Commands of a site of many nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Io, Level, client_memory, span};

/// Options of `site found`.
#[derive(Debug, Args)]
pub(crate) struct Found {
    /// The directory of the site's first manager; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The manager's name
    #[arg(long)]
    pub(crate) name: String,
    /// Where nodes find the manager
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// A member of etcd and where it answers to clients, once for each: three bear the loss of one
    #[arg(long, value_name = "NAME=IP:PORT", required = true, value_parser = member)]
    pub(crate) etcd: Vec<(String, SocketAddr)>,
    /// So many data nodes have media before the first compute node makes the site of all that they have
    #[arg(long, default_value = "3", value_name = "NUMBER")]
    pub(crate) data_nodes: usize,
    /// New file for the recovery key, which opens the site's data when all else is lost [default: DIR/recovery-key]
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_key_file: Option<PathBuf>,
}

/// Options of `manager`.
#[derive(Debug, Args)]
pub(crate) struct ManagerArguments {
    /// The manager's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What is logged to standard error
    #[arg(long, value_enum, env = "HOLDFAST_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<Level>,
}

/// Options of `data`.
#[derive(Debug, Args)]
pub(crate) struct DataArguments {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A file or block device of 1 GiB or more for the site to use, once for each. The node remembers those it was given
    #[arg(long, value_name = "PATH")]
    pub(crate) media: Vec<PathBuf>,
    /// Where it listens [default: as it said when it joined]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// How media are read and written
    #[arg(long, value_enum)]
    pub(crate) io: Option<Io>,
    /// What is logged to standard error
    #[arg(long, value_enum, env = "HOLDFAST_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<Level>,
}

/// Options of `join`.
/// Options of `compute`.
#[derive(Debug, Args)]
pub(crate) struct ComputeArguments {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where other compute nodes find it [default: as it said when it joined]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Group, by name or number, whose members may open the disks, such as that of QEMU's user; else the owner alone
    #[arg(long, value_name = "GROUP")]
    pub(crate) nbd_group: Option<String>,
    /// Where NBD clients find it that come over the network, with TLS and a certificate of `node add-client`; without it,
    /// none do
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) nbd_listen: Option<SocketAddr>,
    /// Memory for what clients send and are sent; beyond it they wait [default: an eighth of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = client_memory)]
    pub(crate) client_memory: Option<u64>,
    /// How long a medium may be away before what it held is made again on others: 30s, 10m, or 0 for at once
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) rebuild_after: Option<Duration>,
    /// What is logged to standard error
    #[arg(long, value_enum, env = "HOLDFAST_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<Level>,
}

/// Options of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// What `node add` printed; - reads it from standard input, so that no list of processes shows it
    pub(crate) token: String,
    /// The node's directory; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The node's name
    #[arg(long)]
    pub(crate) name: String,
    /// Where other nodes find it; data nodes need one
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Holds media
    Data,
    /// Runs disks
    Compute,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes of the site
    #[command(after_help = "Example:\n  holdfast node list --dir /srv/manager")]
    List {
        /// The directory of a manager
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print a token with which one node joins, on its machine: `holdfast join`
    #[command(after_help = "Example:\n  holdfast node add data --dir /srv/manager --life 10m")]
    Add {
        /// What the node will do
        #[arg(value_enum)]
        role: Role,
        /// The directory of a manager
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How long the token is good
        #[arg(long, default_value = "1h", value_name = "SPAN", value_parser = span)]
        life: Duration,
    },
    /// Make a certificate with which an NBD client that is no node opens disks over the network
    ///
    /// The files are named as QEMU and libnbd look for them. `node remove` takes the certificate back.
    #[command(
        after_help = "Example:\n  holdfast node add-client backup1 --dir /srv/manager --out /srv/backup1"
    )]
    AddClient {
        /// The client's name
        name: String,
        /// The directory of a manager
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Folder for ca-cert.pem, client-cert.pem and client-key.pem; made when it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long the certificate is good: nothing renews it
        #[arg(long, default_value = "365d", value_name = "SPAN", value_parser = span)]
        life: Duration,
    },
    /// Have a node emptied: what a data node holds moves to the others, and a compute node serves no more
    ///
    /// `node list` shows how many media are left on it. Then `node remove` takes it out.
    #[command(after_help = "Example:\n  holdfast node drain d1 --dir /srv/manager")]
    Drain {
        /// The node, by name or id
        node: String,
        /// The directory of a manager
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// It is to stay after all
        #[arg(long)]
        cancel: bool,
    },
    /// Take a node out of the site: its certificates are revoked
    #[command(after_help = "Example:\n  holdfast node remove d1 --dir /srv/manager --yes")]
    Remove {
        /// The node, by name or id
        node: String,
        /// The directory of a manager
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Although media of the site are on it: it is lost for good
        #[arg(long)]
        lost: bool,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

fn member(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=IP:PORT, as in e1=10.0.0.1:2379")?;
    let address = address.parse().map_err(|_| format!("{address}: write IP:PORT, as in 10.0.0.1:2379"))?;
    Ok((name.to_owned(), address))
}
