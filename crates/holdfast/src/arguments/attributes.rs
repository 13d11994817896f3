//! Arguments about folders, tags and labels.

use clap::{Args, ValueEnum};

/// Which VMs.
#[derive(Debug, Args)]
pub(crate) struct WhichVms {
    /// Those whose names are like this: * for any characters, ? for one
    #[arg(value_name = "PATTERN")]
    pub(crate) like: Option<String>,
    /// Those that have this tag; given more than once, those that have all
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Those in this folder or below it
    #[arg(long)]
    pub(crate) folder: Option<String>,
    /// Those with this label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Option<String>,
}

/// What becomes of tags.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TagAct {
    /// They are added
    Add,
    /// They are removed
    Remove,
}

/// What becomes of labels.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LabelAct {
    /// They are set
    Set,
    /// They are removed
    Remove,
}
