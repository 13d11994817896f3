//! The command line as it is typed.

mod attributes;
mod client;
mod files;
mod groups;
mod media;
mod roles;
mod snapshots;
mod trash;
mod upkeep;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use api::{MEDIA_MAX, code, parse_size};
use clap::{Args, Parser, Subcommand, ValueEnum};
use machine::{CLIENT_MEMORY_MIN, FileMedia};

use crate::failure::Failure;
use crate::output::Format as Output;
pub(crate) use attributes::{LabelAct, TagAct, WhichVms};
pub(crate) use client::{ClientCommand, DiskCommand, ExportFormat, ImageFormat, TaskCommand, VmCommand};
pub(crate) use files::FileCommand;
pub(crate) use groups::{
    GroupCommand, PointCommand, RestoreArguments, RuleArguments, ScheduleArguments, ScheduleCommand,
};
pub(crate) use media::{MediaCommand, NewMediumArguments};
pub(crate) use roles::{
    ComputeArguments, DataArguments, Found, JoinArguments, ManagerArguments, NodeCommand, Role,
};
pub(crate) use snapshots::SnapshotCommand;
pub(crate) use trash::TrashCommand;
pub(crate) use upkeep::{
    CleanArguments, ClockCommand, KeyCommand, PassphraseCommand, ScrubCommand, SpaceArguments, Waiting,
};

/// Longest wait for an answer that may be asked for: a day.
const TIMEOUT_SECONDS_MAX: u64 = 86_400;

/// What every help page ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line makes no sense
  4    there is no such thing
  5    not allowed
  6    there already, changed meanwhile, or in use
  7    no answer in time; it may still be done
  130  interrupted

`holdfast explain CODE` says what an error's code means. Sizes are in powers of 1024: 512M, 20G, 1T.
Examples:
  holdfast standalone --dir /srv/holdfast --file-media 6x64G
  holdfast --site /srv/holdfast status
  holdfast --site /srv/holdfast vm import web01 debian.qcow2";

/// Storage for virtual machines that does not lose a write.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The site's directory, for every command that asks a running site
    #[arg(long, global = true, env = "HOLDFAST_SITE", value_name = "DIR")]
    pub(crate) site: Option<PathBuf>,
    /// How results are printed on standard output, and errors on standard error
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Seconds to wait for an answer
    #[arg(long, global = true, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a site: all roles in one process. The first start makes it
    #[command(
        after_help = "Examples:\n  holdfast standalone --dir /srv/holdfast --media /dev/sdb --media /dev/sdc\n  \
                      holdfast standalone --dir /srv/holdfast --file-media 6x64G"
    )]
    Standalone(Standalone),
    /// Serve as a data node of a site of many nodes: it holds media, and nothing opens what is on them
    #[command(
        after_help = "Examples:\n  holdfast data --dir /srv/data --media /dev/sdb --media /dev/sdc\n  \
                      holdfast data --dir /srv/data"
    )]
    Data(DataArguments),
    /// Serve as a compute node of a site of many nodes: disks for this host, by itself or from the node that serves the site
    #[command(
        after_help = "Examples:\n  holdfast compute --dir /srv/holdfast\n  holdfast --site /srv/holdfast status"
    )]
    Compute(ComputeArguments),
    /// Serve as a manager of a site of many nodes: nodes join there and get their certificates
    #[command(after_help = "Example:\n  holdfast manager --dir /srv/manager")]
    Manager(ManagerArguments),
    /// Join a site of many nodes with a token of `node add`
    #[command(
        after_help = "Examples:\n  holdfast join hfjoin-... --dir /srv/data --name d1 --listen 10.0.0.7:7420\n  \
                      holdfast join - --dir /srv/data --name d1 --listen 10.0.0.7:7420 < token"
    )]
    Join(JoinArguments),
    /// Nodes of a site of many nodes, from the directory of a manager
    #[command(subcommand, after_help = "Example:\n  holdfast node list --dir /srv/manager")]
    Node(NodeCommand),
    /// Sites as a whole: found one of many nodes, recover one whose directory is lost
    #[command(
        subcommand,
        after_help = "Example:\n  holdfast site recover --dir /srv/holdfast --from-media --recovery-key-file key"
    )]
    Site(SiteCommand),
    #[command(flatten)]
    Client(ClientCommand),
    /// Say what an error's code means, or list all codes
    #[command(after_help = "Examples:\n  holdfast explain vm_in_use\n  holdfast explain")]
    Explain {
        /// The code; without it, all of them
        code: Option<String>,
    },
    /// Print a shell's script that completes command lines
    #[command(after_help = "Example:\n  holdfast completion bash > /etc/bash_completion.d/holdfast")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a folder
    #[command(hide = true, after_help = "Example:\n  holdfast man /usr/local/share/man/man1")]
    Man {
        /// The folder
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Make a site's directory anew from its media and the recovery key; start the site with `standalone` then
    #[command(
        after_help = "Examples:\n  holdfast site recover --dir /srv/holdfast --from-media --recovery-key-file \
                      /root/recovery-key\n  holdfast site recover --dir /srv/holdfast --from-media /dev/sdb /dev/sdc \
                      --recovery-key-file /root/recovery-key\n  holdfast site recover --dir /srv/holdfast --accept-loss"
    )]
    Recover(Recover),
    /// Found a site of many nodes: its authority, its first manager, and certificates for its etcd
    #[command(
        after_help = "Example:\n  holdfast site found --dir /srv/manager --name m1 --listen 10.0.0.1:7400 \
                      --etcd e1=10.0.0.1:2379 --etcd e2=10.0.0.2:2379 --etcd e3=10.0.0.3:2379"
    )]
    Found(Found),
    /// Make the metadata store of a site of many nodes anew, when all of etcd was lost
    ///
    /// Start an etcd without data with the settings of `site found`, then the manager, then this; then the nodes. All media
    /// must be there when the first compute node serves.
    #[command(after_help = "Example:\n  holdfast site restore --dir /srv/manager")]
    Restore {
        /// The directory of a manager, with its copy of the metadata store
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// So many media are lost for good: 1 or 2
        #[arg(long, value_name = "N", value_parser = missing)]
        missing: Option<usize>,
    },
}

/// Options of `site recover`.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The new directory; no site may be in it, unless losses are accepted
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// All media of the site; without a path, the files in DIR/media
    #[arg(long, value_name = "PATH", num_args = 0.., required_unless_present = "accept_loss")]
    pub(crate) from_media: Vec<PathBuf>,
    /// File with the recovery key
    #[arg(long, value_name = "FILE", required_unless_present = "accept_loss")]
    pub(crate) recovery_key_file: Option<PathBuf>,
    /// File with the passphrase that opens the site from now on, instead of a new key file in DIR
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// How many media are lost for good, where some are: 1 or 2, and no more than the site bears
    #[arg(long, value_name = "NUMBER", value_parser = missing)]
    pub(crate) missing: Option<usize>,
    /// Give up what is on none of the media that are there, and go on from what is left. The site in DIR is opened with its
    /// own key, or made anew first when none is there
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// How media are read and written
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) io: Io,
}

/// Options of `standalone`.
#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// The site's directory; made at the first start
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A file or block device of 1 GiB or more for a new site, once for each; nothing may be on it
    #[arg(long, value_name = "PATH", conflicts_with = "file_media")]
    pub(crate) media: Vec<PathBuf>,
    /// Media of a new site as sparse files in DIR/media: how many, how large, 1G or more [default: 6x64G]
    #[arg(long, value_name = "NxSIZE", value_parser = file_media)]
    pub(crate) file_media: Option<FileMedia>,
    /// File with the passphrase that opens the site, instead of a key file in DIR
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// New file for the recovery key, which opens the site when all else is lost. An existing site gets a new one
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_key_file: Option<PathBuf>,
    /// For a new site: its built-in group has no schedule, so no points are made of VMs that are in no other group
    #[arg(long)]
    pub(crate) no_default_points: bool,
    /// Group, by name or number, whose members may open the disks, such as that of QEMU's user; else the owner alone
    #[arg(long, value_name = "GROUP")]
    pub(crate) nbd_group: Option<String>,
    /// Memory for what clients send and are sent; beyond it they wait [default: an eighth of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = client_memory)]
    pub(crate) client_memory: Option<u64>,
    /// How long a medium may be away before what it held is made again on others: 30s, 10m, or 0 for at once
    #[arg(long, default_value = "10m", value_name = "SPAN", value_parser = span)]
    pub(crate) rebuild_after: Duration,
    /// Serve all disks, to read, of a site that has lost more than it bears: the newest writes may not be there
    #[arg(long)]
    pub(crate) salvage: bool,
    /// How media are read and written
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) io: Io,
    /// What is logged to standard error
    #[arg(long, value_enum, default_value = "info", env = "HOLDFAST_LOG", value_name = "LEVEL")]
    pub(crate) log: Level,
    /// Sizes of containers and segments of a new site, for tests
    #[arg(long, value_enum, default_value = "normal", hide = true)]
    pub(crate) layout: Layout,
    /// Seconds that writes wait while nothing can be flushed before they are refused, for tests
    #[arg(long, value_parser = seconds, hide = true)]
    pub(crate) write_patience: Option<Duration>,
    /// Seconds that the client of a task may be silent, for tests
    #[arg(long, value_parser = seconds, hide = true)]
    pub(crate) task_patience: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Io {
    /// io_uring where the system has it, else system calls
    Auto,
    /// io_uring
    Ring,
    /// Plain system calls
    Sync,
}

impl Io {
    pub(crate) fn backend(self) -> ::media::Backend {
        match self {
            Self::Auto => ::media::Backend::Auto,
            Self::Ring => ::media::Backend::Ring,
            Self::Sync => ::media::Backend::Sync,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Layout {
    Normal,
    Tiny,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| format!("{error}; {}", error.hint))
}

/// Memory for clients: the largest requests fit in it.
fn client_memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes >= CLIENT_MEMORY_MIN as u64 { Ok(bytes) } else { Err("it is 256M at least".to_owned()) }
}

fn span(text: &str) -> Result<Duration, String> {
    api::parse_span(text).map_err(|error| format!("{error}; write 30s, 10m, or 0"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (1..=TIMEOUT_SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("a number of seconds from 1 to {TIMEOUT_SECONDS_MAX}")),
    }
}

/// How many media are lost for good: no site bears more than two.
fn missing(text: &str) -> Result<usize, String> {
    let bearable = text.parse().ok().filter(|count| (1..=2).contains(count));
    bearable.ok_or_else(|| {
        "a site bears the loss of 1 or 2 media; leave it out when none is lost; `site recover --accept-loss` is for more"
            .to_owned()
    })
}

fn file_media(text: &str) -> Result<FileMedia, String> {
    let (count, bytes) = text.split_once('x').ok_or("write how many, x, and a size, as in 6x64G")?;
    let count = count.parse().ok().filter(|count| (1..=MEDIA_MAX).contains(count));
    let count = count.ok_or_else(|| format!("a site has 1 to {MEDIA_MAX} media"))?;
    Ok(FileMedia { count, bytes: size(bytes)? })
}

/// Says what was typed wrong, or prints the help that was asked for.
pub(crate) fn refuse(error: &clap::Error, given: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Help or version: nothing can be done where it cannot be printed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let format = wanted(given);
    if format == Output::Table {
        let _ = error.print();
        return ExitCode::from(code::USAGE.exit);
    }
    let text = error.render().to_string();
    let said = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let message = said.collect::<Vec<_>>().join(" ").trim().trim_start_matches("error: ").to_owned();
    Failure::usage(message, "see --help").report(format)
}

/// The form that was asked for, as far as can be told from arguments that make no sense as a whole.
fn wanted(given: &[OsString]) -> Output {
    let given: Vec<_> = given.iter().map(|argument| argument.to_string_lossy()).collect();
    let asks = |format: &str| {
        let apart = given.windows(2).any(|pair| matches!(&*pair[0], "-o" | "--output") && pair[1] == *format);
        let forms = [format!("-o{format}"), format!("-o={format}"), format!("--output={format}")];
        apart || given.iter().any(|argument| forms.iter().any(|form| *argument == *form))
    };
    if asks("json") {
        Output::Json
    } else if asks("yaml") {
        Output::Yaml
    } else {
        Output::Table
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod pages;
