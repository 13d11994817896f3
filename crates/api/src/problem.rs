//! Errors as RFC 9457 has them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codes::Code;
use crate::error::Error;

/// An error on the wire, with media type `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// A URI for the kind of problem: `urn:holdfast:problem:CODE`.
    pub r#type: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What it is, for programs: stable, lower case with underscores.
    pub code: String,
    /// What happened, to what.
    pub detail: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem with this code; status and title are those of the table of codes.
    pub fn new(code: &'static Code, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        debug_assert!(code.status != 0, "{code} is no code of the interface");
        Self {
            r#type: format!("urn:holdfast:problem:{code}"),
            title: code.title.to_owned(),
            status: code.status,
            code: code.name.to_owned(),
            detail: detail.into(),
            hint: hint.into(),
        }
    }

    /// It as the body of an answer: JSON.
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain text always encodes")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(error.code, error.reason, error.hint)
    }
}
