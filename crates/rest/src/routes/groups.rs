//! Routes of protection groups.

use api::types::{
    Deleted, Group, GroupChange, GroupSpec, HowFar, HowToSet, List, Membership, NewRun, Outlook, Point,
};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::vms::made;
use super::{App, Body, Names, Question};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(preview_new))
        .routes(routes!(show, set, delete))
        .routes(routes!(preview))
        .routes(routes!(simulate))
        .routes(routes!(run))
}

/// The path of a group.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfGroup {
    /// The group.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", min_length = 1, max_length = 63, example = "web")]
    name: String,
}

/// The protection groups, by name.
#[utoipa::path(
    get, path = "/api/v1/groups", operation_id = "list_groups", tag = "protection",
    responses((status = 200, body = List<Group>), (status = "default", response = crate::description::Refused)),
)]
async fn list(State(app): State<App>) -> Result<Json<List<Group>>, Refused> {
    Ok(Json(List { items: app.site.groups().await? }))
}

/// Makes a group.
#[utoipa::path(
    post, path = "/api/v1/groups", operation_id = "create_group", tag = "protection",
    request_body = GroupSpec,
    responses((status = 201, body = Group), (status = "default", response = crate::description::Refused)),
)]
async fn create(State(app): State<App>, Body(spec): Body<GroupSpec>) -> Result<Response, Refused> {
    let group = app.change(|site| async move { Ok(site.create_group(&spec).await?) }).await?;
    Ok(made(&format!("/api/v1/groups/{}", group.spec.name), group))
}

/// Which VMs would be in a group that is not made yet, or if it said this.
#[utoipa::path(
    post, path = "/api/v1/group-previews", operation_id = "preview_new_group", tag = "protection",
    request_body = GroupSpec,
    responses(
        (status = 200, body = List<Membership>),
        (status = "default", response = crate::description::Refused),
    ),
)]
async fn preview_new(
    State(app): State<App>,
    Body(spec): Body<GroupSpec>,
) -> Result<Json<List<Membership>>, Refused> {
    Ok(Json(List { items: app.site.preview_group(&spec.name, Some(&spec)).await? }))
}

/// A group.
#[utoipa::path(
    get, path = "/api/v1/groups/{name}", operation_id = "show_group", tag = "protection",
    params(OfGroup),
    responses((status = 200, body = Group), (status = "default", response = crate::description::Refused)),
)]
async fn show(State(app): State<App>, Names(name): Names<String>) -> Result<Json<Group>, Refused> {
    Ok(Json(app.site.group(&name).await?))
}

/// Puts what a group says in the place of what it said, its name too. The answer says what differs, and how many points
/// go by it.
#[utoipa::path(
    put, path = "/api/v1/groups/{name}", operation_id = "set_group", tag = "protection",
    params(OfGroup, HowToSet),
    request_body = GroupSpec,
    responses((status = 200, body = GroupChange), (status = "default", response = crate::description::Refused)),
)]
async fn set(
    State(app): State<App>,
    Names(name): Names<String>,
    Question(how): Question<HowToSet>,
    Body(spec): Body<GroupSpec>,
) -> Result<Json<GroupChange>, Refused> {
    Ok(Json(app.change(|site| async move { Ok(site.set_group(&name, &spec, how).await?) }).await?))
}

/// Deletes a group; its points stay until they are deleted.
#[utoipa::path(
    delete, path = "/api/v1/groups/{name}", operation_id = "delete_group", tag = "protection",
    params(OfGroup),
    responses((status = 200, body = Deleted), (status = "default", response = crate::description::Refused)),
)]
async fn delete(State(app): State<App>, Names(name): Names<String>) -> Result<Json<Deleted>, Refused> {
    let work = app.change(|site| async move { Ok(site.delete_group(&name).await?) });
    Ok(Json(Deleted { deleted: work.await?, trash: None }))
}

/// Which VMs are in a group now, and those that it would have if it did not exclude them.
#[utoipa::path(
    get, path = "/api/v1/groups/{name}/preview", operation_id = "preview_group", tag = "protection",
    params(OfGroup),
    responses(
        (status = 200, body = List<Membership>),
        (status = "default", response = crate::description::Refused),
    ),
)]
async fn preview(
    State(app): State<App>,
    Names(name): Names<String>,
) -> Result<Json<List<Membership>>, Refused> {
    Ok(Json(List { items: app.site.preview_group(&name, None).await? }))
}

/// Which points a group's retention will keep, when every run makes a good point.
#[utoipa::path(
    get, path = "/api/v1/groups/{name}/outlook", operation_id = "simulate_group", tag = "protection",
    params(OfGroup, HowFar),
    responses((status = 200, body = List<Outlook>), (status = "default", response = crate::description::Refused)),
)]
async fn simulate(
    State(app): State<App>,
    Names(name): Names<String>,
    Question(far): Question<HowFar>,
) -> Result<Json<List<Outlook>>, Refused> {
    Ok(Json(List { items: app.site.simulate_group(&name, far.days).await? }))
}

/// Makes a point of a group now, beside those that are due.
#[utoipa::path(
    post, path = "/api/v1/groups/{name}/points", operation_id = "run_group", tag = "protection",
    params(OfGroup),
    request_body = NewRun,
    responses((status = 201, body = Point), (status = "default", response = crate::description::Refused)),
)]
async fn run(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(new): Body<NewRun>,
) -> Result<Response, Refused> {
    let work = app.change(|site| async move { Ok(site.run_group(&name, new.schedule.as_deref()).await?) });
    let point = work.await?;
    Ok(made(&format!("/api/v1/points/{}", point.id), point))
}
