//! Routes of media.

use api::types::{List, Medium, NewMedium, Task};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::{App, Body, Names};
use crate::refused::Refused;

/// The media, in the site's order.
#[utoipa::path(
    get, path = "/api/v1/media", operation_id = "media", tag = "site",
    responses((status = 200, body = List<Medium>), (status = "default", response = crate::description::Refused)),
)]
pub(super) async fn list(State(app): State<App>) -> Result<Json<List<Medium>>, Refused> {
    Ok(Json(List { items: app.backend.status().await?.media }))
}

/// Formats a medium and takes it into the site. What is stored uses it by itself where that allows more redundancy or
/// less parity.
#[utoipa::path(
    post, path = "/api/v1/media", operation_id = "add_medium", tag = "site",
    request_body = NewMedium,
    responses((status = 201, body = Medium), (status = "default", response = crate::description::Refused)),
)]
pub(super) async fn add(
    State(app): State<App>,
    Body(new): Body<NewMedium>,
) -> Result<(StatusCode, Json<Medium>), Refused> {
    let medium = app.change(|backend| Box::pin(async move { backend.add_medium(new).await })).await?;
    Ok((StatusCode::CREATED, Json(medium)))
}

/// Has everything moved off a medium, which then is none of the site's any more. Cancelling the task keeps it.
#[utoipa::path(
    post, path = "/api/v1/media/{id}/drain", operation_id = "drain_medium", tag = "site",
    params(
        ("id" = String, Path, description = "The medium: 32 hex digits.", example = "00000000000000000000000000000000"),
    ),
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
pub(super) async fn drain(
    State(app): State<App>,
    Names(id): Names<String>,
) -> Result<(StatusCode, Json<Task>), Refused> {
    let task = app.change(|backend| Box::pin(async move { backend.drain_medium(&id).await })).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// Takes a medium into the site in the place of another, which leaves as by a drain; one that is down is rebuilt at once.
#[utoipa::path(
    post, path = "/api/v1/media/{id}/replace", operation_id = "replace_medium", tag = "site",
    params(
        ("id" = String, Path, description = "The medium: 32 hex digits.", example = "00000000000000000000000000000000"),
    ),
    request_body = NewMedium,
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
pub(super) async fn replace(
    State(app): State<App>,
    Names(id): Names<String>,
    Body(new): Body<NewMedium>,
) -> Result<(StatusCode, Json<Task>), Refused> {
    let task = app.change(|backend| Box::pin(async move { backend.replace_medium(&id, new).await })).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}
