//! The contract of the management interface: names, sizes, times, limits, codes of errors, problems, and the types of what is
//! asked and answered. Server, clients and whatever stands behind the server have it in common.
//!
//! Vocabulary: a **code** is the stable name of an error, with its HTTP status, exit code, cause and next step. A **problem** is an
//! error on the wire as RFC 9457 has it. A **version** is a VM as it is now, or at one of its snapshots.
//!
//! Invariants: a code is never given another meaning. Every error has one.
//!
//! What it does not do: no input or output, nothing of the engine.
#![forbid(unsafe_code)]

mod codes;
mod count;
mod error;
mod limits;
mod names;
mod problem;
mod size;
mod time;
pub mod types;
mod version;

pub use codes::{Code, code};
pub use error::{Error, ErrorKind, Result};
pub use limits::{
    AFFECTED_NAMED, CHANGES_AT_ONCE, DEFINITION_BYTES_MAX, DISK_BYTES_MAX, DISK_BYTES_MIN, DISKS_MAX,
    FILES_MAX, FOLDER_BYTES_MAX, HISTORY_MAX, LABEL_CHARS_MAX, MEDIA_MAX, PASSPHRASE_BYTES_MAX,
    POINTS_AT_ONCE, RUNNING_MAX, SCRUB_EVERY_S_MAX, SCRUB_EVERY_S_MIN, SNAPSHOTS_AT_ONCE, SPACE_ROWS_AT_ONCE,
    TAGS_MAX, TRASH_AT_ONCE, TRASH_KEEP, TRASH_KEEP_MAX, VMS_MAX,
};
pub use names::{FileName, VmName, check_disk_bytes, disk_bytes_for, fold, parse_folder, parse_label_value};
pub use problem::Problem;
pub use size::{format_size, parse_size};
pub use time::{format_time, held, parse_span, parse_until};
pub use version::Version;
