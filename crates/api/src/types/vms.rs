//! VMs, their disks and definitions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Attributes, Protection};

/// A VM in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
    /// How many disks it has.
    pub disks: usize,
    /// Size of all its disks together.
    pub bytes: u64,
    /// Its folder, tags and labels.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// How well it is protected; absent where that is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
}

/// Whether a VM is there for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// It is.
    Ready,
    /// Its disks are being filled; lists leave it out.
    Importing,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Whether it is there for guests.
    pub state: VmState,
    /// When it was made.
    pub created_ms: u64,
    /// Whether a definition is stored with it.
    pub has_definition: bool,
    /// Its folder, tags and labels.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// How well it is protected; absent where that is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its files, each exported to read: `bytes` is the length, and the export is filled up with zeros to whole sectors.
    pub files: Vec<Disk>,
}

/// A disk or file of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Name within the VM.
    pub name: String,
    /// What an NBD client opens: `VM/DISK`.
    pub export: String,
    /// Its size.
    pub bytes: u64,
    /// What of it holds data as the guest sees it, duplicates counted each time; absent in the answer to a clone or revert,
    /// which waits for no counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Handles NBD clients have on it.
    pub clients: usize,
}

/// A VM to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// Its name.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    pub name: String,
    /// Its disks: `disk0`, `disk1`, and so on.
    #[schema(min_items = 1, max_items = 32)]
    pub disks: Vec<NewDisk>,
}

/// A disk to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// Its size.
    #[schema(minimum = 4096, maximum = 70_368_744_177_664_u64, multiple_of = 512, example = 1_048_576)]
    #[serde(deserialize_with = "crate::count::whole")]
    pub bytes: u64,
}

/// What changes of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeVm {
    /// Its new name.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "www1"
    )]
    pub name: String,
}

/// What changes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDisk {
    /// Its new size.
    #[schema(minimum = 4096, maximum = 70_368_744_177_664_u64, multiple_of = 512, example = 1_048_576)]
    #[serde(deserialize_with = "crate::count::whole")]
    pub bytes: u64,
    /// Says that a smaller size is meant: what lies behind it is lost.
    #[serde(default)]
    pub shrink: bool,
}

/// A text stored with a VM: most likely its libvirt XML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The text; an empty one removes what was stored.
    pub text: String,
}

/// How a guest gets a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachInfo {
    /// What an NBD client opens: `VM/DISK`.
    pub export: String,
    /// The NBD socket.
    pub socket: String,
    /// Both as an NBD URI.
    pub uri: String,
    /// Arguments of QEMU, each quoted for a shell.
    pub qemu: Vec<String>,
    /// The `<disk>` element of libvirt.
    pub libvirt: String,
}

impl AttachInfo {
    /// The same for another host's socket: whoever answers may serve a site from elsewhere. As long as neither path has
    /// characters that are escaped.
    #[must_use]
    pub fn at(self, socket: &str) -> Self {
        let here = |text: String| text.replace(&self.socket, socket);
        Self {
            uri: here(self.uri),
            qemu: self.qemu.into_iter().map(here).collect(),
            libvirt: here(self.libvirt),
            export: self.export,
            socket: socket.to_owned(),
        }
    }
}
