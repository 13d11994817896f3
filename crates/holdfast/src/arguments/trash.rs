//! Commands about the trash.

use std::time::Duration;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TrashCommand {
    /// List what was deleted and can be restored, with when it goes for good
    #[command(
        after_help = "Examples:\n  holdfast trash list\n  holdfast trash list -o json | jq -r '.items[].name'"
    )]
    List,
    /// Take a VM with its snapshots, or a snapshot, out of the trash again
    #[command(
        after_help = "Examples:\n  holdfast trash restore web01\n  holdfast trash restore web01 --as web01-old\n  \
                            holdfast trash restore web01@s1"
    )]
    Restore {
        /// What it was called, or its number in the list where several were called so
        name: String,
        /// Its new name; for a snapshot without the VM
        #[arg(long = "as", value_name = "NEW")]
        new: Option<String>,
    },
    /// Empty the trash, or some of it, for good; this works on a full pool
    #[command(
        after_help = "Examples:\n  holdfast trash empty --yes\n  holdfast trash empty web01 web02@s1 --yes\n  \
                            holdfast trash empty --dry-run"
    )]
    Empty {
        /// What it was called, or its number in the list; else everything
        names: Vec<String>,
        /// Really
        #[arg(long)]
        yes: bool,
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// Set how long what is deleted from now on stays in the trash, 24h at first; 0 for no trash
    #[command(after_help = "Examples:\n  holdfast trash keep 7d\n  holdfast trash keep 0")]
    Keep {
        /// A span of time: 12h, 7d; at most 366d
        #[arg(value_name = "SPAN", value_parser = span)]
        span: Duration,
    },
}

fn span(text: &str) -> Result<Duration, String> {
    api::parse_span(text).map_err(|error| format!("{error}; write 12h, 7d, or 0"))
}
