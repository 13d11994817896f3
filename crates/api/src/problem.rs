//! Errors as RFC 9457 has them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use site::{Code, SiteError};
use utoipa::ToSchema;

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
    pub fn new(code: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let known = Code::find(code).filter(|known| known.status != 0);
        debug_assert!(known.is_some(), "{code} is no code of the interface");
        Self {
            r#type: format!("urn:holdfast:problem:{code}"),
            title: known.map_or("Error", |known| known.title).to_owned(),
            status: known.map_or(500, |known| known.status),
            code: code.to_owned(),
            detail: detail.into(),
            hint: hint.into(),
        }
    }
}

/// The body of an answer about an error, JSON.
pub fn problem_body(error: &SiteError) -> Vec<u8> {
    serde_json::to_vec(&Problem::from(error.clone())).expect("plain text always encodes")
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        Self::new(error.code, error.reason, error.hint)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}
