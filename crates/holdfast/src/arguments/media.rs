//! Commands about media.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Waiting, size};

#[derive(Debug, Subcommand)]
pub(crate) enum MediaCommand {
    /// List the media with their states, in the site's order
    #[command(after_help = "Example:\n  holdfast media list")]
    List,
    /// Take a medium into the site while it runs; what is stored spreads to it where that allows a better geometry
    #[command(after_help = "Examples:\n  holdfast media add /dev/sdx\n  \
                            holdfast media add /mnt/disk7/holdfast.img --file 64G")]
    Add(NewMediumArguments),
    /// Move everything off a medium, and then let go of it; `task cancel` keeps it
    #[command(after_help = "Examples:\n  holdfast media drain /dev/sdb --yes\n  \
                            holdfast media drain 03.img --yes --no-wait")]
    Drain {
        /// The medium: its path, the last part of it, or its id
        medium: String,
        /// Really
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Put another medium in the place of one, which leaves as by `drain`; one that is lost is rebuilt at once
    #[command(after_help = "Examples:\n  holdfast media replace /dev/sdb /dev/sdx --yes\n  \
                            holdfast media replace 03.img /mnt/disk7/holdfast.img --file 64G --yes")]
    Replace {
        /// The medium that goes: its path, the last part of it, or its id
        old: String,
        #[command(flatten)]
        new: NewMediumArguments,
        /// Really
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewMediumArguments {
    /// A file or block device that is there and empty, of 1 GiB or more
    pub(crate) path: PathBuf,
    /// Make it first: a sparse file of this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) file: Option<u64>,
}
