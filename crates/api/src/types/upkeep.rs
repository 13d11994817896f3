//! Work the site does for itself: cleaning, scrubbing, verifying, accounting for space.

use crate::limits::{SCRUB_EVERY_S_MAX, SCRUB_EVERY_S_MIN, SPACE_ROWS_AT_ONCE};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;

/// Least garbage of a container that is worth moving the rest, where nobody says otherwise.
pub const GARBAGE_PERCENT: u64 = 20;
/// Most names in one request for space.
const NAMES_MAX: usize = 1000;

/// What is to be cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClean {
    /// Containers of which at least so much is garbage are emptied, percent; 0: all that hold any.
    #[schema(minimum = 0, maximum = 100, default = 20, example = 20)]
    #[serde(default = "garbage_percent", deserialize_with = "crate::count::whole")]
    pub garbage_percent: u64,
}

fn garbage_percent() -> u64 {
    GARBAGE_PERCENT
}

/// A passphrase in place of another.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassphrase {
    /// The one that opens the site now.
    #[schema(min_length = 1, max_length = 4096)]
    pub current: String,
    /// The one that is to open it from then on.
    #[schema(min_length = 1, max_length = 4096)]
    pub new: String,
}

impl std::fmt::Debug for NewPassphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewPassphrase(..)")
    }
}

/// What space is computed for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSpace {
    /// VMs, snapshots (`VM@SNAPSHOT`), disks of both (`.../DISK`), VMs with all their snapshots (`VM@*`) and what is in the
    /// trash (`#NUMBER`), taken together: what is freed when all of them are gone. Empty: each by itself.
    #[schema(max_items = 1000, example = json!(["web01@s1"]))]
    #[serde(default)]
    pub of: Vec<String>,
}

impl NewSpace {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match self.of.len() {
            0..=NAMES_MAX => Ok(()),
            many => Err(format!("{many} names; there can be {NAMES_MAX}")),
        }
    }
}

/// What a VM or snapshot takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpaceRow {
    /// `VM` or `VM@SNAPSHOT`; `VM:TASK` is what a running export reads; in the trash `#NUMBER`, and `#NUMBER@SNAPSHOT` for the snapshots of a VM there.
    pub name: String,
    /// Of its disks, what holds data as the guest sees it.
    pub logical_bytes: u64,
    /// What goes when it is deleted and the cleaner has been there, before parity.
    pub unique_bytes: u64,
    /// What others have too, as often as it is referred to, before parity.
    pub shared_bytes: u64,
}

/// What all VMs and snapshots take, as last computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Space {
    /// When it was computed.
    pub taken_ms: u64,
    /// What anything reaches, each block and map page once, before parity.
    pub live_bytes: u64,
    /// All containers: with what the cleaner has not freed yet, and their directories.
    pub stored_bytes: u64,
    /// The VMs and snapshots, by name.
    pub items: Vec<SpaceRow>,
    /// The last of them: `after` for what may come behind. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which rows of the last space report are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListSpace {
    /// Those of this VM; else all.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Those behind this name.
    #[param(nullable = false, min_length = 1, max_length = 127, example = "web01@s1")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    #[serde(default = "most")]
    pub limit: u64,
}

fn most() -> u64 {
    SPACE_ROWS_AT_ONCE as u64
}

impl Asked for ListSpace {
    fn check(&self) -> Result<(), String> {
        if self.after.as_ref().is_some_and(|after| !(1..=127).contains(&after.chars().count())) {
            return Err("after: a name of 1 to 127 characters".to_owned());
        }
        match self.limit {
            1..=1000 => Ok(()),
            limit => Err(format!("limit: 1 to 1000, not {limit}")),
        }
    }
}

/// Site time and the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Clock {
    /// What holds, the trash and schedules go by, milliseconds since the Unix epoch.
    pub site_ms: u64,
    /// What the host's clock says.
    pub host_ms: u64,
}

/// The site's data keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The key epoch of what is written now; 1 is the site's first.
    pub current_epoch: u16,
    /// The oldest that something may still be sealed under.
    pub oldest_epoch: u16,
    /// Until when the earlier ones stay for held data, site time in milliseconds since the Unix epoch; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until_ms: Option<u64>,
}

/// How often the site is scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubEvery {
    /// Seconds between the beginnings of two scrubs, an hour to a year; absent: only when asked for.
    #[schema(minimum = 3600, maximum = 31_622_400, example = 604_800)]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::count::whole_if_any"
    )]
    pub every_s: Option<u64>,
}

const _: () = assert!(SCRUB_EVERY_S_MIN == 3600 && SCRUB_EVERY_S_MAX == 31_622_400);

/// How often the site is scrubbed, and how the last time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scrubbing {
    /// Seconds between the beginnings of two scrubs; absent: only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_s: Option<u64>,
    /// When the last one began; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_ms: Option<u64>,
    /// When one last came to its end; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_ms: Option<u64>,
    /// When the next one is due; absent when it waits to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
    /// Containers that could not be mended, as that one found.
    pub damaged: u64,
    /// Its task; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
}
