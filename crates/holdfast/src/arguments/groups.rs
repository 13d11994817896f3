//! Commands about protection groups, points and restores.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group: which VMs, when points of them are made, which points stay
    #[command(
        after_help = "Examples:\n  holdfast group create web --match 'web*' --every 1h --keep hourly=24,daily=7\n  \
                      holdfast group create db --tag db --cron '0 2 * * *' --tz Europe/Berlin --keep daily=30 --lock 14d"
    )]
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        rules: RuleArguments,
        #[command(flatten)]
        schedule: ScheduleArguments,
        /// What its schedule is called
        #[arg(long, value_name = "NAME", default_value = "main")]
        schedule_name: String,
    },
    /// Change which VMs a group takes. What is given takes the place of what was said in that kind; the rest stays
    #[command(
        after_help = "Examples:\n  holdfast group set web --tag prod\n  holdfast group set default --exclude 'tmp*'"
    )]
    Set {
        /// The group
        name: String,
        #[command(flatten)]
        rules: RuleArguments,
    },
    /// List the groups
    #[command(
        after_help = "Examples:\n  holdfast group list\n  holdfast group list -o json | jq -r '.items[].spec.name'"
    )]
    List,
    /// Show a group: rules, schedules, what there is of each
    #[command(after_help = "Example:\n  holdfast group show web")]
    Show {
        /// The group
        name: String,
    },
    /// Show which VMs are in a group now, and why
    #[command(after_help = "Example:\n  holdfast group preview web")]
    Preview {
        /// The group
        name: String,
    },
    /// Show which points retention will keep, when every run makes one
    #[command(after_help = "Example:\n  holdfast group simulate web --days 400")]
    Simulate {
        /// The group
        name: String,
        /// How far is looked ahead
        #[arg(long, default_value = "400", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3660))]
        days: u32,
    },
    /// Make no more points of a group; those there are stay under its retention
    #[command(after_help = "Example:\n  holdfast group pause web")]
    Pause {
        /// The group
        name: String,
    },
    /// Make points of a group again
    #[command(after_help = "Example:\n  holdfast group resume web")]
    Resume {
        /// The group
        name: String,
    },
    /// Make a point of a group now
    #[command(after_help = "Example:\n  holdfast group run web")]
    Run {
        /// The group
        name: String,
        /// As this schedule does; else its first
        #[arg(long, value_name = "NAME")]
        schedule: Option<String>,
    },
    /// Give a group another name
    #[command(after_help = "Example:\n  holdfast group rename web www")]
    Rename {
        /// The group
        old: String,
        /// Its new name
        new: String,
    },
    /// Delete a group. Its points stay until they are deleted
    #[command(after_help = "Example:\n  holdfast group delete web --yes")]
    Delete {
        /// The group
        name: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
    /// Schedules of a group
    #[command(
        subcommand,
        after_help = "Example:\n  holdfast group schedule add web --name nightly --cron '0 2 * * *' --keep daily=30"
    )]
    Schedule(ScheduleCommand),
    /// Make and change groups as a file says; what it does not name stays
    #[command(
        after_help = "Examples:\n  holdfast group apply --file groups.yaml --dry-run\n  holdfast group apply --file groups.yaml"
    )]
    Apply {
        /// YAML or JSON as `group export` prints it; - for standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Change nothing, and say what would be
        #[arg(long)]
        dry_run: bool,
        /// Also where points go by it
        #[arg(long)]
        yes: bool,
    },
    /// Print groups as `group apply` takes them
    #[command(after_help = "Example:\n  holdfast group export > groups.yaml")]
    Export {
        /// These groups; else all
        names: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Add a schedule
    #[command(
        after_help = "Example:\n  holdfast group schedule add web --name nightly --cron '0 2 * * *' --keep daily=30"
    )]
    Add {
        /// The group
        group: String,
        /// What the schedule is called
        #[arg(long)]
        name: String,
        #[command(flatten)]
        schedule: ScheduleArguments,
    },
    /// Put another schedule in the place of one
    #[command(
        after_help = "Example:\n  holdfast group schedule set web --name nightly --every 12h --keep-last 30 --yes"
    )]
    Set {
        /// The group
        group: String,
        /// The schedule
        #[arg(long)]
        name: String,
        #[command(flatten)]
        schedule: ScheduleArguments,
        /// Also where points go by it
        #[arg(long)]
        yes: bool,
    },
    /// Remove a schedule. Its points stay until they are deleted
    #[command(after_help = "Example:\n  holdfast group schedule remove web --name nightly")]
    Remove {
        /// The group
        group: String,
        /// The schedule
        #[arg(long)]
        name: String,
    },
}

/// Which VMs a group takes: all that any of these fits.
#[derive(Debug, Args, Default)]
pub(crate) struct RuleArguments {
    /// VMs whose names are like this: * for any characters, ? for one
    #[arg(long = "match", value_name = "PATTERN")]
    pub(crate) match_names: Vec<String>,
    /// VMs whose whole names match this regular expression
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Vec<String>,
    /// VMs that have this tag
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// VMs in this folder or below it
    #[arg(long)]
    pub(crate) folder: Vec<String>,
    /// This VM
    #[arg(long)]
    pub(crate) vm: Vec<String>,
    /// Not VMs whose names are like this
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Not VMs that have this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) exclude_tag: Vec<String>,
    /// Time zone of days and of cron expressions [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// Of two groups with rules of one kind the one with the higher has the VM
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
}

/// When points are made, and which stay.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArguments {
    /// A point every so often: 15s, 5m, 1h
    #[arg(long, value_name = "SPAN", conflicts_with = "cron")]
    pub(crate) every: Option<String>,
    /// A point at these times: minute, hour, day, month, day of the week
    #[arg(long, value_name = "CRON")]
    pub(crate) cron: Option<String>,
    /// Keep the newest points, so many
    #[arg(long, value_name = "NUMBER")]
    pub(crate) keep_last: Option<String>,
    /// Keep the newest point of so many hours, days, weeks, months, years: hourly=24,daily=7,weekly=4,monthly=12,yearly=3
    #[arg(long, value_name = "BUCKETS")]
    pub(crate) keep: Option<String>,
    /// Keep all points younger than this: 30d
    #[arg(long = "for", value_name = "SPAN")]
    pub(crate) young: Option<String>,
    /// For how long nobody can delete a point: 14d
    #[arg(long, value_name = "SPAN")]
    pub(crate) lock: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PointCommand {
    /// List points, newest first
    #[command(after_help = "Examples:\n  holdfast point list --group web --since '2 days ago'\n  \
                      holdfast point list --vm web01 --locked")]
    List {
        /// Those of this group
        #[arg(long)]
        group: Option<String>,
        /// Those that this VM is in
        #[arg(long)]
        vm: Option<String>,
        /// Not older than this: '2h ago', 'yesterday 18:00', or RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Not younger than this
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Time zone of times without one [default: UTC]
        #[arg(long, value_name = "ZONE")]
        tz: Option<String>,
        /// Those that nobody can delete now
        #[arg(long)]
        locked: bool,
        /// How many at most
        #[arg(long, default_value = "1000", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show a point with its members
    #[command(after_help = "Example:\n  holdfast point show 17")]
    Show {
        /// Its number
        id: u64,
    },
    /// Lock a point: nobody deletes it, its snapshots or its VMs before that time. A lock is made longer, never shorter
    #[command(after_help = "Example:\n  holdfast point hold 17 --until 30d")]
    Hold {
        /// Its number
        id: u64,
        /// Until when: a time as RFC 3339 has it, or a span from now on, as 12h, 30d, 1y
        #[arg(long, value_name = "TIME")]
        until: String,
    },
    /// Delete points with the snapshots of their members, for good
    #[command(after_help = "Example:\n  holdfast point delete 17 18 --yes")]
    Delete {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The VM
    #[arg(required_unless_present = "group", conflicts_with = "group")]
    pub(crate) vm: Option<String>,
    /// All VMs of the point of this group
    #[arg(long, requires = "suffix")]
    pub(crate) group: Option<String>,
    /// The newest point of this time or before: '2h ago', 'yesterday 18:00', or RFC 3339 [default: the newest there is]
    #[arg(long, value_name = "TIME", conflicts_with = "point")]
    pub(crate) at: Option<String>,
    /// Time zone of a time without one [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// This point
    #[arg(long, value_name = "NUMBER")]
    pub(crate) point: Option<u64>,
    /// Restore beside the VM there is, under this name
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["in_place", "disk", "group"])]
    pub(crate) new_name: Option<String>,
    /// Put the VM back; what it is now is kept in a snapshot
    #[arg(long, conflicts_with_all = ["disk", "group"])]
    pub(crate) in_place: bool,
    /// Add this disk, as it was, to the VM as another disk
    #[arg(long, conflicts_with = "group")]
    pub(crate) disk: Option<String>,
    /// Of a group: what is put behind the name of each VM, such as -r1
    #[arg(long, value_name = "TEXT", requires = "group", allow_hyphen_values = true)]
    pub(crate) suffix: Option<String>,
    /// Really put it back
    #[arg(long)]
    pub(crate) yes: bool,
}
