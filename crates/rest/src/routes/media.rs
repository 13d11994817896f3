//! Routes of media.

use std::path::Path;

use api::types::{List, Medium, NewMedium, Task};
use api::{Problem, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Body, Names};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(drain)).routes(routes!(replace))
}

/// The media, in the site's order.
#[utoipa::path(
    get, path = "/api/v1/media", operation_id = "media", tag = "site",
    responses((status = 200, body = List<Medium>), (status = "default", response = crate::description::Refused)),
)]
async fn list(State(app): State<App>) -> Result<Json<List<Medium>>, Refused> {
    Ok(Json(List { items: app.site.status().await?.media }))
}

/// Formats a medium and takes it into the site. What is stored uses it by itself where that allows more redundancy or
/// less parity.
#[utoipa::path(
    post, path = "/api/v1/media", operation_id = "add_medium", tag = "site",
    request_body = NewMedium,
    responses((status = 201, body = Medium), (status = "default", response = crate::description::Refused)),
)]
async fn add(
    State(app): State<App>,
    Body(new): Body<NewMedium>,
) -> Result<(StatusCode, Json<Medium>), Refused> {
    let work = app.change(|site| async move {
        let id = site.add_medium(path(&new)?, new.file_bytes).await?.to_string();
        let media = site.status().await?.media;
        let detail = format!("medium {id} has left again");
        let gone = || Problem::new(code::MEDIUM_NOT_FOUND, detail, "see `media list`");
        media.into_iter().find(|medium| medium.id == id).ok_or_else(gone)
    });
    Ok((StatusCode::CREATED, Json(work.await?)))
}

/// Has everything moved off a medium, which then is none of the site's any more. Cancelling the task keeps it.
#[utoipa::path(
    post, path = "/api/v1/media/{id}/drain", operation_id = "drain_medium", tag = "site",
    params(
        ("id" = String, Path, description = "The medium: 32 hex digits.", example = "00000000000000000000000000000000"),
    ),
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn drain(
    State(app): State<App>,
    Names(id): Names<String>,
) -> Result<(StatusCode, Json<Task>), Refused> {
    let work = app.change(|site| async move { Ok(site.drain_medium(site.medium_id(&id)?).await?) });
    let task = work.await?;
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
async fn replace(
    State(app): State<App>,
    Names(id): Names<String>,
    Body(new): Body<NewMedium>,
) -> Result<(StatusCode, Json<Task>), Refused> {
    let work = app.change(|site| async move {
        Ok(site.replace_medium(site.medium_id(&id)?, path(&new)?, new.file_bytes).await?)
    });
    Ok((StatusCode::ACCEPTED, Json(work.await?)))
}

fn path(new: &NewMedium) -> api::Result<&Path> {
    let path = Path::new(&new.path);
    // `NODE:PATH` is a medium of a data node.
    let of_node = new.path.split_once(':');
    let of_node = of_node.is_some_and(|(node, path)| !node.contains('/') && Path::new(path).is_absolute());
    if (path.is_absolute() || of_node) && new.path.len() <= 4096 && !new.path.contains('\0') {
        return Ok(path);
    }
    let reason = format!("{:?} is no absolute path", new.path);
    Err(api::Error::new(code::INVALID_REQUEST, reason).hint("give the path on the server, from / on"))
}
