//! Commands about what the site does for itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Whether a command stays until its task has ended.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Return as soon as the task has begun; `task show` tells how far it is
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArguments {
    /// Containers of which at least so much is garbage are emptied; 0: all that hold any
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) garbage: u64,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct SpaceArguments {
    /// VMs, snapshots and disks, taken together: what is freed when all of them are deleted. Without: each VM and snapshot
    #[arg(value_name = "VM[@SNAPSHOT][/DISK]")]
    pub(crate) of: Vec<String>,
    /// What was last computed, of this VM alone
    #[arg(long, conflicts_with = "of")]
    pub(crate) vm: Option<String>,
    /// What was last computed
    #[arg(long, conflicts_with = "of")]
    pub(crate) last: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScrubCommand {
    /// Read every fragment now, check it, and repair what is wrong; fails when something cannot be repaired
    #[command(after_help = "Examples:\n  holdfast scrub start\n  holdfast scrub start --no-wait")]
    Start {
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Show how often the site is scrubbed, and how the last time went
    #[command(after_help = "Example:\n  holdfast scrub show")]
    Show,
    /// Set how often the site is scrubbed
    #[command(after_help = "Examples:\n  holdfast scrub every 7d\n  holdfast scrub every never")]
    Every {
        /// 12h, 7d, at least an hour and at most a year; or `never`: only when asked for
        #[arg(value_name = "SPAN", value_parser = span)]
        span: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Show the epochs of the data keys
    #[command(after_help = "Example:\n  holdfast key show")]
    Show,
    /// Seal what is written from now on under a new data key, and all the rest anew; the old key is then gone from the media
    #[command(after_help = "Examples:\n  holdfast key rotate\n  holdfast key rotate --no-wait")]
    Rotate {
        #[command(flatten)]
        waiting: Waiting,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Show site time and the host's clock
    #[command(after_help = "Example:\n  holdfast clock show")]
    Show,
    /// Say that the host's clock is right: site time goes on from it, after a rest of more than a day
    #[command(after_help = "Example:\n  holdfast clock accept --yes")]
    Accept {
        /// Really: holds, and what is in the trash, that end before the host's time end now
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PassphraseCommand {
    /// Have another passphrase open the site from now on; the one before opens nothing any more
    #[command(
        after_help = "Example:\n  holdfast passphrase change --current-file /root/phrase --new-file /root/next"
    )]
    Change {
        /// File with the passphrase that opens the site now
        #[arg(long, value_name = "FILE")]
        current_file: PathBuf,
        /// File with the passphrase that is to open it; the server's --passphrase-file needs it at the next start
        #[arg(long, value_name = "FILE")]
        new_file: PathBuf,
    },
}

/// Seconds of a span of time such as `12h` or `7d`; 0 for `never`.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    if text == "never" {
        return Ok(0);
    }
    let wrong = || format!("{text}: give hours or days, such as 12h or 7d, or `never`");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit {
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans_are_read_and_nonsense_is_not() {
        assert_eq!(super::span("12h"), Ok(43_200));
        assert_eq!(super::span("7d"), Ok(604_800));
        assert_eq!(super::span("2w"), Ok(1_209_600));
        assert_eq!(super::span("never"), Ok(0));
        for wrong in ["", "d", "7", "0d", "-1d", "7é", "99999999999999999999d", "9999999999999999d"] {
            assert!(super::span(wrong).is_err(), "{wrong}");
        }
    }
}
