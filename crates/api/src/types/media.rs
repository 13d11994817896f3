//! Media that join and leave.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far what a medium held has moved to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moving {
    /// Bytes that have moved.
    pub done_bytes: u64,
    /// Bytes that are to move.
    pub left_bytes: u64,
}

/// A medium that is to join the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMedium {
    /// A file or block device on the server, empty.
    #[schema(min_length = 1, max_length = 4096, example = "/dev/sdx")]
    pub path: String,
    /// Makes it first, a sparse file of this size.
    #[schema(minimum = 4096, maximum = 70_368_744_177_664_u64, multiple_of = 4096)]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::count::whole_if_any"
    )]
    pub file_bytes: Option<u64>,
}
