//! Routes of the trash and of holds.

use std::time::Duration;

use api::types::{EmptyTrash, ListTrash, NewHold, Restore, Restored, Snapshot, Trash, TrashSetting};
use api::{VmName, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::snapshots::{OfSnapshot, snapshot_name};
use super::{App, Body, Names, Question};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, change))
        .routes(routes!(condemn))
        .routes(routes!(empty))
        .routes(routes!(restore))
        .routes(routes!(hold))
}

/// What is in the trash, by number, and how long it stays there.
#[utoipa::path(
    get, path = "/api/v1/trash", operation_id = "list_trash", tag = "trash",
    params(ListTrash),
    responses((status = 200, body = Trash), (status = "default", response = crate::description::Refused)),
)]
async fn list(State(app): State<App>, Question(which): Question<ListTrash>) -> Result<Json<Trash>, Refused> {
    let limit = which.limit as usize;
    let items = app.site.catalog().trash(which.after, limit).await?;
    let next = items.last().filter(|_| items.len() >= limit).map(|last| last.id);
    Ok(Json(Trash { items, next, keep_seconds: app.site.catalog().trash_keep().await?.as_secs() }))
}

/// Sets how long what is deleted from now on stays in the trash.
#[utoipa::path(
    patch, path = "/api/v1/trash", operation_id = "change_trash", tag = "trash",
    request_body = TrashSetting,
    responses((status = 200, body = TrashSetting), (status = "default", response = crate::description::Refused)),
)]
async fn change(
    State(app): State<App>,
    Body(setting): Body<TrashSetting>,
) -> Result<Json<TrashSetting>, Refused> {
    let work = app.change(move |site| async move {
        site.catalog().set_trash_keep(Duration::from_secs(setting.keep_seconds)).await?;
        Ok(setting)
    });
    Ok(Json(work.await?))
}

/// Decides that things go from the trash for good. Once that is answered none of them can be restored, and all go within
/// seconds, over a restart of the server too; where a pool has no room for the note of it, those go that are deleted one by
/// one or have expired.
#[utoipa::path(
    post, path = "/api/v1/trash/empty", operation_id = "condemn_trash", tag = "trash",
    request_body = EmptyTrash,
    responses((status = 204, description = "Decided."), (status = "default", response = crate::description::Refused)),
)]
async fn condemn(State(app): State<App>, Body(which): Body<EmptyTrash>) -> Result<StatusCode, Refused> {
    which.check().map_err(|detail| {
        Refused::new(
            code::INVALID_REQUEST,
            detail,
            "compare it with the interface's types: /api/v1/openapi.json",
        )
    })?;
    app.change(|site| async move { Ok(site.catalog().condemn_trash(&which.items).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Empties something from the trash, for good.
#[utoipa::path(
    delete, path = "/api/v1/trash/{id}", operation_id = "empty_trash", tag = "trash",
    params(
        ("id" = u64, Path, description = "Its number.", example = 1),
    ),
    responses((status = 204, description = "Done."), (status = "default", response = crate::description::Refused)),
)]
async fn empty(State(app): State<App>, Names(id): Names<u64>) -> Result<StatusCode, Refused> {
    app.change(move |site| async move { Ok(site.catalog().empty_trash(id).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes something out of the trash again, with all that went with it.
#[utoipa::path(
    post, path = "/api/v1/trash/{id}/restore", operation_id = "restore", tag = "trash",
    params(
        ("id" = u64, Path, description = "Its number.", example = 1),
    ),
    request_body = Restore,
    responses((status = 200, body = Restored), (status = "default", response = crate::description::Refused)),
)]
async fn restore(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(new): Body<Restore>,
) -> Result<Json<Restored>, Refused> {
    let work = app.change(move |site| async move {
        let new = new.new_name.as_deref().map(VmName::parse).transpose()?;
        Ok(Restored { restored: site.catalog().restore(id, new.as_ref()).await? })
    });
    Ok(Json(work.await?))
}

/// Holds a snapshot: nobody deletes it, or its VM, before that time. A hold is made longer, never shorter.
#[utoipa::path(
    put, path = "/api/v1/vms/{name}/snapshots/{snapshot}/hold", operation_id = "hold_snapshot", tag = "snapshots",
    params(OfSnapshot),
    request_body = NewHold,
    responses((status = 200, body = Snapshot), (status = "default", response = crate::description::Refused)),
)]
async fn hold(
    State(app): State<App>,
    Names((name, snapshot)): Names<(String, String)>,
    Body(new): Body<NewHold>,
) -> Result<Json<Snapshot>, Refused> {
    let work = app.change(|site| async move {
        Ok(site
            .catalog()
            .hold_snapshot(&VmName::parse(&name)?, &snapshot_name(&snapshot)?, &new.until)
            .await?)
    });
    Ok(Json(work.await?))
}
