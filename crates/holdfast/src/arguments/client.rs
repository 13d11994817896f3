//! Commands that ask a running site.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::attributes::{LabelAct, TagAct, WhichVms};
use super::files::FileCommand;
use super::groups::{GroupCommand, PointCommand, RestoreArguments};
use super::media::MediaCommand;
use super::size;
use super::snapshots::SnapshotCommand;
use super::trash::TrashCommand;
use super::upkeep::{
    CleanArguments, ClockCommand, KeyCommand, PassphraseCommand, ScrubCommand, SpaceArguments, Waiting,
};

/// Commands that ask a running site.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// How the site is: health with reasons and next steps, capacity, what may be lost, running tasks, media
    #[command(
        after_help = "Examples:\n  holdfast --site /srv/holdfast status\n  holdfast status -o json | jq -r .health"
    )]
    Status,
    /// Virtual machines
    #[command(subcommand, after_help = "Example:\n  holdfast vm list")]
    Vm(VmCommand),
    /// Disks of a VM
    #[command(subcommand, after_help = "Example:\n  holdfast disk add web01 100G")]
    Disk(DiskCommand),
    /// Files kept with a VM, such as ISO images: in its snapshots and clones as its disks are
    #[command(subcommand, after_help = "Example:\n  holdfast file put web01 debian.iso")]
    File(FileCommand),
    /// Snapshots of VMs: named, unchanging, each of one instant
    #[command(subcommand, after_help = "Example:\n  holdfast snapshot list --vm web01")]
    Snapshot(SnapshotCommand),
    /// Protection groups: rules that say of which VMs points are made, when, and which stay
    #[command(
        subcommand,
        after_help = "Example:\n  holdfast group create web --match 'web*' --every 1h --keep hourly=24,daily=7"
    )]
    Group(Box<GroupCommand>),
    /// Points: what groups made, each all its VMs at one instant
    #[command(subcommand, after_help = "Example:\n  holdfast point list --vm web01")]
    Point(PointCommand),
    /// Restore a VM as it was at a point: beside the one there is, or in its place
    #[command(after_help = "Examples:\n  holdfast restore web01 --at 'yesterday 18:00' --as web01-r1\n  \
                      holdfast restore web01 --point 17 --in-place --yes\n  \
                      holdfast restore --group web --at '2h ago' --suffix=-r1")]
    Restore(Box<RestoreArguments>),
    /// VMs and snapshots that were deleted and can be restored
    #[command(subcommand, after_help = "Example:\n  holdfast trash restore web01")]
    Trash(TrashCommand),
    /// The files and devices that hold the site
    #[command(subcommand, after_help = "Example:\n  holdfast media list")]
    Media(MediaCommand),
    /// Compute what each VM and snapshot takes for itself and shares, or what deleting some of them would free
    #[command(
        after_help = "Examples:\n  holdfast space\n  holdfast space web01@s1 web01@s2\n  holdfast space --last"
    )]
    Space(SpaceArguments),
    /// Free what nothing reaches any more; runs by itself when room gets low
    #[command(
        after_help = "Examples:\n  holdfast clean\n  holdfast clean --garbage 0\n  holdfast clean --no-wait"
    )]
    Clean(CleanArguments),
    /// Read, check and repair every fragment, now or on a schedule
    #[command(subcommand, after_help = "Example:\n  holdfast scrub start")]
    Scrub(ScrubCommand),
    /// Open every block that a VM or snapshot reaches: what passes can be restored. Fails when something is lost
    #[command(after_help = "Example:\n  holdfast verify")]
    Verify(Waiting),
    /// The keys that the data is sealed under
    #[command(subcommand, after_help = "Example:\n  holdfast key rotate")]
    Key(KeyCommand),
    /// Site time, which holds, the trash and schedules go by, and the host's clock
    #[command(subcommand, after_help = "Example:\n  holdfast clock show")]
    Clock(ClockCommand),
    /// The passphrase that opens the site, where one does
    #[command(
        subcommand,
        after_help = "Example:\n  holdfast passphrase change --current-file /root/phrase --new-file /root/next"
    )]
    Passphrase(PassphraseCommand),
    /// Long work: imports, exports and upkeep, running and past
    #[command(subcommand, after_help = "Example:\n  holdfast task list")]
    Task(TaskCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Make a VM with empty disks, exported as NAME/disk0, NAME/disk1, ...
    #[command(
        after_help = "Example:\n  holdfast --site /srv/holdfast vm create web01 --disk 20G --disk 100G"
    )]
    Create {
        /// Its name: 1 to 63 of letters, digits, '.', '_' and '-', the first a letter or digit; case tells no names apart
        name: String,
        /// Size of a disk: 512, 64K, 20G, 1T; units are powers of 1024; a multiple of 512, at least 4096.
        /// Once for each disk
        #[arg(long, required = true, value_name = "SIZE", value_parser = size)]
        disk: Vec<u64>,
    },
    /// List the VMs
    #[command(
        after_help = "Examples:\n  holdfast vm list\n  holdfast vm list 'web*' --tag prod --folder /dmz\n  \
                            holdfast vm list -o json | jq -r '.items[].name'"
    )]
    List(WhichVms),
    /// Put a VM into a folder; / for none
    #[command(after_help = "Example:\n  holdfast vm folder web01 /prod/web")]
    Folder {
        /// Its name
        name: String,
        /// The folder; it comes into being with the first VM in it
        folder: String,
    },
    /// Add tags to a VM, or remove some
    #[command(
        after_help = "Examples:\n  holdfast vm tag web01 add prod gold\n  holdfast vm tag web01 remove gold"
    )]
    Tag {
        /// Its name
        name: String,
        /// Whether they are added or removed
        act: TagAct,
        /// The tags: each 1 to 63 of letters, digits, '.', '_' and '-'
        #[arg(required = true)]
        tags: Vec<String>,
    },
    /// Give a VM labels, or remove some
    #[command(
        after_help = "Examples:\n  holdfast vm label web01 set owner=ops 'site=Halle 3'\n  holdfast vm label web01 remove owner"
    )]
    Label {
        /// Its name
        name: String,
        /// Whether they are set or removed
        act: LabelAct,
        /// KEY=VALUE to set, KEY to remove
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Show a VM with its disks
    #[command(after_help = "Example:\n  holdfast vm show web01")]
    Show {
        /// Its name
        name: String,
    },
    /// Give a VM another name; refused while a client has one of its disks open
    #[command(after_help = "Example:\n  holdfast vm rename web01 www1")]
    Rename {
        /// Its name
        old: String,
        /// Its new name
        new: String,
    },
    /// Delete a VM with its disks and all their data; for a day it can be taken out of the trash again
    #[command(after_help = "Examples:\n  holdfast vm delete web01 --yes\n  \
                            holdfast vm delete web01 --with-snapshots --yes\n  \
                            holdfast vm delete web01 --now --yes")]
    Delete {
        /// Its name
        name: String,
        /// With all its snapshots; else a VM that has some is not deleted
        #[arg(long)]
        with_snapshots: bool,
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
    /// Make a snapshot: all disks at one instant, and the definition; guests go on
    #[command(
        after_help = "Examples:\n  holdfast vm snapshot web01\n  holdfast vm snapshot web01 --name before-upgrade"
    )]
    Snapshot {
        /// The VM
        vm: String,
        /// Name of the snapshot; else the next of s1, s2, ...
        #[arg(long)]
        name: Option<String>,
    },
    /// Make a VM that begins as another is now, or was at a snapshot; no data is copied
    #[command(after_help = "Examples:\n  holdfast vm clone web01 web02\n  holdfast vm clone web01@s1 web02")]
    Clone {
        /// What it begins as
        #[arg(value_name = "VM[@SNAPSHOT]")]
        from: String,
        /// Name of the new VM
        new: String,
    },
    /// Put a VM back to a snapshot; what it was is kept in a new snapshot. Refused while a client has a disk open
    #[command(after_help = "Example:\n  holdfast vm revert web01@s1 --yes")]
    Revert {
        /// The snapshot
        #[arg(value_name = "VM@SNAPSHOT")]
        snapshot: String,
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Print the text that is stored with a VM
    #[command(after_help = "Example:\n  holdfast vm definition web01 > web01.xml")]
    Definition {
        /// Its name
        name: String,
    },
    /// Store a text with a VM, such as its libvirt XML, at most 512 KiB; an empty one removes it
    #[command(after_help = "Examples:\n  virsh dumpxml web01 | holdfast vm set-definition web01 -\n  \
                            holdfast vm set-definition web01 web01.xml")]
    SetDefinition {
        /// Its name
        name: String,
        /// The file with the text; - for standard input
        file: PathBuf,
    },
    /// Make a VM from an image; an error, a cancel or Ctrl-C leaves no VM
    #[command(after_help = "Examples:\n  holdfast vm import web01 debian.qcow2\n  \
                            zstdcat web01.raw.zst | holdfast vm import web01 - --size 20G")]
    Import {
        /// Name of the new VM
        name: String,
        /// The image; - for raw bytes from standard input
        image: PathBuf,
        /// Its format; else it is known by its first bytes, and what is not known is raw
        #[arg(short, long, value_enum)]
        format: Option<ImageFormat>,
        /// Size of the disk, at least that of the image; else it gets as large as what comes in
        #[arg(long, value_parser = size)]
        size: Option<u64>,
    },
    /// Write a disk of a VM, as it is now, or of a snapshot to a new file; guests go on
    #[command(after_help = "Examples:\n  holdfast vm export web01 web01.qcow2\n  \
                            holdfast vm export web01@s1 s1.raw\n  \
                            holdfast vm export web01/disk1 - | zstd > disk1.raw.zst")]
    Export {
        /// The VM or snapshot, with a disk when it has several
        #[arg(value_name = "VM[@SNAPSHOT][/DISK]")]
        disk: String,
        /// The new file; - for raw bytes to standard output
        file: PathBuf,
        /// Its format; else the one that its name ends with, and raw where that says none
        #[arg(short, long, value_enum)]
        format: Option<ExportFormat>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Add an empty disk; its name is one number above the highest of the VM's disks
    #[command(after_help = "Example:\n  holdfast disk add web01 100G")]
    Add {
        /// The VM
        vm: String,
        /// Size of the disk
        #[arg(value_parser = size)]
        size: u64,
    },
    /// Add a disk that begins as another is now, or was at a snapshot; no data is copied
    #[command(after_help = "Examples:\n  holdfast disk clone web01@s1/disk0 web02\n  \
                            holdfast disk clone web01/disk1 web01")]
    Clone {
        /// What it begins as
        #[arg(value_name = "VM[@SNAPSHOT]/DISK")]
        from: String,
        /// The VM that gets it
        vm: String,
    },
    /// Remove a disk with all its data; refused while a client has it open
    #[command(after_help = "Example:\n  holdfast disk remove web01/disk1 --yes")]
    Remove {
        /// The disk
        #[arg(value_name = "VM/DISK")]
        disk: String,
        /// The disk, where the first word is its VM
        #[arg(hide = true)]
        apart: Option<String>,
        /// Really
        #[arg(long)]
        yes: bool,
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// Change the size of a disk: larger at any time, seen by a client when it opens the disk again
    #[command(after_help = "Examples:\n  holdfast disk resize web01/disk0 40G\n  \
                            holdfast disk resize web01/disk0 10G --shrink")]
    Resize {
        /// The disk
        #[arg(value_name = "VM/DISK")]
        disk: String,
        /// Its new size
        size: String,
        /// Its new size, where the words before are its VM and its name
        #[arg(hide = true)]
        apart: Option<String>,
        /// Make it smaller: what lies behind the new end is lost; refused while a client has it open
        #[arg(long)]
        shrink: bool,
    },
    /// Print the lines that attach a disk to a guest: QEMU's arguments and libvirt's XML
    #[command(after_help = "Examples:\n  holdfast disk attach-info web01/disk0\n  \
                            holdfast disk attach-info web01/disk0 -o json | jq -r .libvirt")]
    AttachInfo {
        /// The disk
        #[arg(value_name = "VM/DISK")]
        disk: String,
        /// The disk, where the first word is its VM
        #[arg(hide = true)]
        apart: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks, the newest first: the running ones and the newest 200 in all
    #[command(after_help = "Example:\n  holdfast task list")]
    List,
    /// Show a task
    #[command(after_help = "Example:\n  holdfast task show 7")]
    Show {
        /// Its number
        id: u64,
    },
    /// End a task that is not wanted any more; the VM of an import is deleted
    #[command(after_help = "Example:\n  holdfast task cancel 7")]
    Cancel {
        /// Its number
        id: u64,
    },
}

/// Formats of images that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// Bytes as they are
    Raw,
    Qcow2,
    Vmdk,
    /// Of Hyper-V
    Vhdx,
    /// Of Virtual PC and Azure
    Vhd,
    /// Of VirtualBox
    Vdi,
    Qed,
    Parallels,
}

impl ImageFormat {
    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "VHDX",
            Self::Vhd => "VHD",
            Self::Vdi => "VDI",
            Self::Qed => "QED",
            Self::Parallels => "Parallels",
        }
    }

    /// As qemu-img calls it.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vpc",
            Self::Vdi => "vdi",
            Self::Qed => "qed",
            Self::Parallels => "parallels",
        }
    }
}

/// Formats of files that an export can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Raw,
    Qcow2,
}

impl ExportFormat {
    /// As qemu-img calls it.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}
