//! Routes of points, and of restores from them.

use api::types::{Deleted, ListPoints, NewHold, NewRestore, Point, Points, RestoredVms};
use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Body, Names, Question};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(hold))
        .routes(routes!(restore))
}

/// The path of a point.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfPoint {
    /// Its number.
    #[param(example = 17)]
    id: u64,
}

/// Points, newest first.
#[utoipa::path(
    get, path = "/api/v1/points", operation_id = "list_points", tag = "protection",
    params(ListPoints),
    responses((status = 200, body = Points), (status = "default", response = crate::description::Refused)),
)]
async fn list(
    State(app): State<App>,
    Question(which): Question<ListPoints>,
) -> Result<Json<Points>, Refused> {
    Ok(Json(app.site.points(&which).await?))
}

/// A point with its members.
#[utoipa::path(
    get, path = "/api/v1/points/{id}", operation_id = "show_point", tag = "protection",
    params(OfPoint),
    responses((status = 200, body = Point), (status = "default", response = crate::description::Refused)),
)]
async fn show(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Point>, Refused> {
    Ok(Json(app.site.point(id).await?))
}

/// Deletes a point with the snapshots of its members, for good. Refused while it is locked, and while a client reads it.
#[utoipa::path(
    delete, path = "/api/v1/points/{id}", operation_id = "delete_point", tag = "protection",
    params(OfPoint),
    responses((status = 200, body = Deleted), (status = "default", response = crate::description::Refused)),
)]
async fn delete(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Deleted>, Refused> {
    let work = app.change(move |site| async move { Ok(site.delete_point(id).await?) });
    Ok(Json(Deleted { deleted: work.await?, trash: None }))
}

/// Locks a point: nobody deletes it, its snapshots or its VMs before that time. A lock is made longer, never shorter.
#[utoipa::path(
    post, path = "/api/v1/points/{id}/hold", operation_id = "hold_point", tag = "protection",
    params(OfPoint),
    request_body = NewHold,
    responses((status = 200, body = Point), (status = "default", response = crate::description::Refused)),
)]
async fn hold(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(hold): Body<NewHold>,
) -> Result<Json<Point>, Refused> {
    Ok(Json(app.change(move |site| async move { Ok(site.hold_point(id, &hold.until).await?) }).await?))
}

/// Restores a VM as it was at a point, or all VMs of a group. No data is copied.
#[utoipa::path(
    post, path = "/api/v1/restores", operation_id = "restore", tag = "protection",
    request_body = NewRestore,
    responses((status = 200, body = RestoredVms), (status = "default", response = crate::description::Refused)),
)]
async fn restore(
    State(app): State<App>,
    Body(asked): Body<NewRestore>,
) -> Result<Json<RestoredVms>, Refused> {
    Ok(Json(app.change(|site| async move { Ok(site.restore_points(&asked).await?) }).await?))
}
