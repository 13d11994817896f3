//! What goes over the wire, for server and client alike. Sizes are bytes, times milliseconds since the Unix epoch.

use serde::{Deserialize, Serialize};

/// How the site is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is as it should be.
    Ok,
    /// It serves, and something wants attention.
    Degraded,
    /// It cannot take writes.
    Failed,
}

/// What a medium does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediumState {
    /// Takes part.
    Up,
    /// Takes part, and had no room for the last write.
    Full,
    /// Failed, or is not there.
    Down,
}

/// A medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Its id: 32 hex digits.
    pub id: String,
    /// Where it is or was.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What it does.
    pub state: MediumState,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Fragments of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Fragments of data.
    pub data: usize,
    /// Fragments of parity.
    pub parity: usize,
}

/// How the site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The site: 32 hex digits.
    pub site: String,
    /// The judgement.
    pub health: Health,
    /// Why it is not `ok`.
    pub reasons: Vec<String>,
    /// What is worth knowing and no fault.
    pub notices: Vec<String>,
    /// Whether writes are taken; else the site serves reads only.
    pub writable: bool,
    /// Media that may fail now without loss.
    pub can_lose_now: usize,
    /// Fragments of a new container; absent when there can be none now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
    /// How many VMs there are.
    pub vms: usize,
    /// Written by guests and not overwritten or trimmed, duplicates counted each time.
    pub logical_bytes: u64,
    /// Of these, without zeros and duplicates.
    pub unique_bytes: u64,
    /// What they take compressed and sealed, before parity.
    pub stored_bytes: u64,
    /// What that takes on media, parity included.
    pub raw_bytes: u64,
    /// Room of the media that are up.
    pub raw_capacity_bytes: u64,
    /// What guests can write now, duplicates and compression not counted on; 0 when writes are refused.
    pub usable_bytes: u64,
    /// Acknowledged and in the journal, not yet in a container.
    pub buffered_bytes: u64,
    /// How much of the journal's bound is used.
    pub journal_used_percent: usize,
    /// Fragments found missing or damaged since the start.
    pub faults: u64,
    /// Fragments repaired since the start.
    pub repaired: u64,
    /// The media, in the site's order.
    pub media: Vec<Medium>,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<T> {
    /// What it lists.
    pub items: Vec<T>,
}

/// A VM in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
    /// How many disks it has.
    pub disks: usize,
    /// Size of all its disks together.
    pub bytes: u64,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
    /// Its disks.
    pub disks: Vec<Disk>,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Name within the VM.
    pub name: String,
    /// What an NBD client opens: `VM/DISK`.
    pub export: String,
    /// Its size.
    pub bytes: u64,
    /// What of it holds data as the guest sees it, duplicates counted each time.
    pub used_bytes: u64,
    /// Handles NBD clients have on it.
    pub clients: usize,
}

/// A VM to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// Its name: `[a-z0-9][a-z0-9._-]{0,62}`.
    pub name: String,
    /// Its disks: `disk0`, `disk1`, and so on.
    pub disks: Vec<NewDisk>,
}

/// A disk to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// Its size: at least 4096, a multiple of 512.
    pub bytes: u64,
}
