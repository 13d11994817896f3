//! Files of a VM.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A file to be stored with a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFile {
    /// Its name.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,126}$",
        min_length = 1,
        max_length = 127,
        example = "debian.iso"
    )]
    pub name: String,
    /// Where from, for people.
    pub source: String,
    /// Takes the place of a file of this name, once it is whole.
    #[serde(default)]
    pub replace: bool,
}

/// What changes of a file that is being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeFile {
    /// Its length, never less than it was.
    #[schema(minimum = 0, maximum = 70_368_744_177_664_u64, example = 1_048_576)]
    #[serde(deserialize_with = "crate::count::whole")]
    pub bytes: u64,
}
