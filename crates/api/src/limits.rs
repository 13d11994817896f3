//! How much there may be of what, and how much an answer holds.

use std::time::Duration;

/// Smallest disk: one block.
pub const DISK_BYTES_MIN: u64 = 4096;
/// Largest disk: 64 TiB, what ext4 and xfs guests can use and the block map's tests cover.
pub const DISK_BYTES_MAX: u64 = 64 << 40;
/// Most disks of a VM: what a SCSI bus or a few dozen PCI slots take.
pub const DISKS_MAX: usize = 32;
/// Most VMs of a site: all fit one answer and one NBD listing.
pub const VMS_MAX: usize = 10_000;
/// Most files of a VM: its record, which has them all, stays a few KiB.
pub const FILES_MAX: usize = 64;
/// Most tags, and most labels, of a VM: its record has them all.
pub const TAGS_MAX: usize = 32;
/// Longest value of a label, characters.
pub const LABEL_CHARS_MAX: usize = 255;
/// Longest folder, bytes.
pub const FOLDER_BYTES_MAX: usize = 255;
/// Longest definition, bytes. A libvirt XML has some 10 KiB; a metadata record must fit a sealed unit of 1 MiB.
pub const DEFINITION_BYTES_MAX: usize = 512 << 10;
/// Most snapshots in one answer.
pub const SNAPSHOTS_AT_ONCE: usize = 1000;
/// Most points in one answer.
pub const POINTS_AT_ONCE: usize = 1000;
/// Most stretches of a disk that differ in one answer: some 5 MB of JSON.
pub const CHANGES_AT_ONCE: usize = 1 << 16;
/// How long what is deleted stays when nothing is said.
pub const TRASH_KEEP: Duration = Duration::from_secs(24 * 3600);
/// The longest it can be told to stay: what is wanted for longer is no trash.
pub const TRASH_KEEP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most items in one answer.
pub const TRASH_AT_ONCE: usize = 1000;
/// Tasks remembered: some weeks of a busy site, and one answer.
pub const HISTORY_MAX: usize = 200;
/// Tasks at once: each is a client that reads or writes as fast as it can.
pub const RUNNING_MAX: usize = 32;
/// Shortest and longest pause that can be set: an hour and a year.
pub const SCRUB_EVERY_S_MIN: u64 = 3_600;
/// See [`SCRUB_EVERY_S_MIN`].
pub const SCRUB_EVERY_S_MAX: u64 = 366 * 86_400;
/// Most rows of a space report in one answer.
pub const SPACE_ROWS_AT_ONCE: usize = 1000;
/// Disks that `status` names when something of them cannot be read.
pub const AFFECTED_NAMED: usize = 100;
/// Longest passphrase, bytes: a page of a book, and a bound for what a request may hold.
pub const PASSPHRASE_BYTES_MAX: usize = 4096;
/// Most media of a site on one machine: more than a chassis holds, and each has threads of its own.
pub const MEDIA_MAX: usize = 64;
