//! Commands about files of a VM.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Store a file with a VM, such as an ISO image; an error, a cancel or Ctrl-C leaves nothing of it
    #[command(after_help = "Examples:\n  holdfast file put web01 debian.iso\n  \
                            holdfast file put web01 debian.iso --replace\n  \
                            zstdcat notes.txt.zst | holdfast file put web01 - --as notes.txt")]
    Put {
        /// The VM
        vm: String,
        /// The file; - for standard input
        file: PathBuf,
        /// What it is called with the VM: 1 to 127 of letters, digits, '.', '_', '+' and '-'; else as the file
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
        /// In the place of a file of this name, once it is whole
        #[arg(long)]
        replace: bool,
    },
    /// Write a file of a VM or snapshot to a new file
    #[command(after_help = "Examples:\n  holdfast file get web01/debian.iso debian.iso\n  \
                            holdfast file get web01@s1/notes.txt -")]
    Get {
        /// The file
        #[arg(value_name = "VM[@SNAPSHOT]/FILE")]
        from: String,
        /// The new file; - for standard output
        file: PathBuf,
    },
    /// List the files of a VM or snapshot
    #[command(after_help = "Examples:\n  holdfast file list web01\n  \
                            holdfast file list web01@s1 -o json | jq -r '.items[].name'")]
    List {
        /// The VM or snapshot
        #[arg(value_name = "VM[@SNAPSHOT]")]
        from: String,
    },
    /// Give a VM a file that another has now, or had at a snapshot; no data is copied
    #[command(after_help = "Examples:\n  holdfast file clone web01/debian.iso web02\n  \
                            holdfast file clone web01@s1/notes.txt web01")]
    Clone {
        /// The file
        #[arg(value_name = "VM[@SNAPSHOT]/FILE")]
        from: String,
        /// The VM that gets it
        vm: String,
    },
    /// Delete a file for good; snapshots and clones that have it keep it. Refused while a client has it open
    #[command(after_help = "Example:\n  holdfast file delete web01/debian.iso --yes")]
    Delete {
        /// The file
        #[arg(value_name = "VM/FILE")]
        file: String,
        /// The file, where the first word is its VM
        #[arg(hide = true)]
        apart: Option<String>,
        /// Really
        #[arg(long)]
        yes: bool,
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the lines that give a guest a file as a CD-ROM: QEMU's arguments and libvirt's XML
    #[command(after_help = "Example:\n  holdfast file attach-info web01/debian.iso")]
    AttachInfo {
        /// The file
        #[arg(value_name = "VM/FILE")]
        file: String,
        /// The file, where the first word is its VM
        #[arg(hide = true)]
        apart: Option<String>,
    },
}
