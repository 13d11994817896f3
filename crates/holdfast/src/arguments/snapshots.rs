//! Commands about snapshots.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List snapshots, by VM and name
    #[command(after_help = "Examples:\n  holdfast snapshot list --vm web01\n  \
                            holdfast snapshot list -o json | jq -r '.items[].name'")]
    List {
        /// Those of this VM; else all
        #[arg(long)]
        vm: Option<String>,
    },
    /// Show a snapshot with its disks
    #[command(after_help = "Example:\n  holdfast snapshot show web01@s1")]
    Show {
        /// The snapshot
        #[arg(value_name = "VM@SNAPSHOT")]
        snapshot: String,
    },
    /// Give a snapshot another name; refused while a client reads it
    #[command(after_help = "Example:\n  holdfast snapshot rename web01@s1 before-upgrade")]
    Rename {
        /// The snapshot
        #[arg(value_name = "VM@SNAPSHOT")]
        snapshot: String,
        /// Its new name, without the VM
        new: String,
    },
    /// Hold a snapshot: nobody deletes it, or its VM, before that time. A hold is made longer, never shorter
    #[command(after_help = "Examples:\n  holdfast snapshot hold web01@s1 --until 30d\n  \
                            holdfast snapshot hold web01@s1 --until 2030-01-01T00:00:00Z")]
    Hold {
        /// The snapshot
        #[arg(value_name = "VM@SNAPSHOT")]
        snapshot: String,
        /// Until when: a time as RFC 3339 has it, or a span from now on, as 12h, 30d, 1y
        #[arg(long, value_name = "TIME")]
        until: String,
    },
    /// Delete a snapshot; VMs and disks that began as it stay. Refused while a client reads it or it is held
    #[command(
        after_help = "Examples:\n  holdfast snapshot delete web01@s1 --dry-run\n  holdfast snapshot delete web01@s1 --yes\n  \
                            holdfast snapshot delete web01@s1 --now --yes"
    )]
    Delete {
        /// The snapshot
        #[arg(value_name = "VM@SNAPSHOT")]
        snapshot: String,
        /// For good, past the trash
        #[arg(long)]
        now: bool,
        /// Really
        #[arg(long)]
        yes: bool,
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// List what changed from a snapshot to another, or to the VM as it is now, in whole blocks of 4 KiB
    #[command(after_help = "Examples:\n  holdfast snapshot diff web01@s1 web01@s2\n  \
                            holdfast snapshot diff web01@s1 web01 --disk disk0 -o json | jq .bytes")]
    Diff {
        /// The older version
        #[arg(value_name = "VM@SNAPSHOT")]
        from: String,
        /// The newer one, of the same VM; a disk that only this one has counts as changed with all it holds
        #[arg(value_name = "VM[@SNAPSHOT]")]
        to: String,
        /// This disk alone; else every disk of the newer version
        #[arg(long)]
        disk: Option<String>,
    },
}
