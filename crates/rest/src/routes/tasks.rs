//! Routes of tasks, and of the work whose progress they show.

use api::types::{Begun, GiveUp, List, NewExport, NewImport, Progress, Task, TaskKind};
use api::{Version, VmName};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Body, Names};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, cancel))
        .routes(routes!(begin_import))
        .routes(routes!(import_progress, cancel_import))
        .routes(routes!(finish_import))
        .routes(routes!(fail_import))
        .routes(routes!(begin_export))
        .routes(routes!(export_progress, cancel_export))
        .routes(routes!(finish_export))
        .routes(routes!(fail_export))
}

/// Running tasks and the newest of the past, the newest first.
#[utoipa::path(
    get, path = "/api/v1/tasks", operation_id = "list_tasks", tag = "tasks",
    responses((status = 200, body = List<Task>), (status = "default", response = crate::description::Refused)),
)]
async fn list(State(app): State<App>) -> Result<Json<List<Task>>, Refused> {
    Ok(Json(List { items: app.site.tasks().tasks().await? }))
}

/// A task.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}", operation_id = "show_task", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn show(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Task>, Refused> {
    Ok(Json(app.site.tasks().task(id).await?))
}

/// Ends a task that is not wanted any more; the VM of an import is deleted.
#[utoipa::path(
    delete, path = "/api/v1/tasks/{id}", operation_id = "cancel_task", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn cancel(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Task>, Refused> {
    Ok(Json(app.change(move |site| async move { Ok(site.transfers().cancel(id).await?) }).await?))
}

/// Makes a VM that is being imported: its disks are there for NBD clients, and the VM is in no list until the end.
#[utoipa::path(
    post, path = "/api/v1/imports", tag = "tasks",
    request_body = NewImport,
    responses(
        (status = 201, body = Begun, links(
            ("progress" = (operation_id = "import_progress", parameters(("id" = "$response.body#/task/id")))),
            ("finish" = (operation_id = "finish_import", parameters(("id" = "$response.body#/task/id")))),
            ("fail" = (operation_id = "fail_import", parameters(("id" = "$response.body#/task/id")))),
            ("cancel" = (operation_id = "cancel_import", parameters(("id" = "$response.body#/task/id")))),
            ("task" = (operation_id = "show_task", parameters(("id" = "$response.body#/task/id")))),
        )),
        (status = "default", response = crate::description::Refused),
    ),
)]
async fn begin_import(
    State(app): State<App>,
    Body(new): Body<NewImport>,
) -> Result<(StatusCode, Json<Begun>), Refused> {
    let work = app.change(|site| async move {
        let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
        let (task, vm) =
            site.transfers().begin_import(&VmName::parse(&new.name)?, &sizes, &new.source).await?;
        Ok(Begun { task, disks: vm.disks })
    });
    Ok((StatusCode::CREATED, Json(work.await?)))
}

/// Says that the client lives and how far it is; the answer says whether the task still runs.
#[utoipa::path(
    put, path = "/api/v1/imports/{id}", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    request_body = Progress,
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn import_progress(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(progress): Body<Progress>,
) -> Result<Json<Task>, Refused> {
    progressed(&app, TaskKind::Import, id, progress).await
}

/// Ends it, as `DELETE /api/v1/tasks/{id}` does.
#[utoipa::path(
    delete, path = "/api/v1/imports/{id}", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn cancel_import(state: State<App>, id: Names<u64>) -> Result<Json<Task>, Refused> {
    cancel(state, id).await
}

/// Ends it well; the VM is in lists from here on.
#[utoipa::path(
    post, path = "/api/v1/imports/{id}/finish", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn finish_import(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Task>, Refused> {
    finish(&app, TaskKind::Import, id).await
}

/// Ends it because its client could not do it; the VM is deleted.
#[utoipa::path(
    post, path = "/api/v1/imports/{id}/fail", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    request_body = GiveUp,
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn fail_import(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(why): Body<GiveUp>,
) -> Result<Json<Task>, Refused> {
    fail(&app, TaskKind::Import, id, why).await
}

/// Makes a task for reading the disks of a VM, all as they are at this instant, or those of a snapshot.
#[utoipa::path(
    post, path = "/api/v1/exports", tag = "tasks",
    request_body = NewExport,
    responses(
        (status = 201, body = Begun, links(
            ("progress" = (operation_id = "export_progress", parameters(("id" = "$response.body#/task/id")))),
            ("finish" = (operation_id = "finish_export", parameters(("id" = "$response.body#/task/id")))),
            ("fail" = (operation_id = "fail_export", parameters(("id" = "$response.body#/task/id")))),
            ("cancel" = (operation_id = "cancel_export", parameters(("id" = "$response.body#/task/id")))),
            ("task" = (operation_id = "show_task", parameters(("id" = "$response.body#/task/id")))),
        )),
        (status = "default", response = crate::description::Refused),
    ),
)]
async fn begin_export(
    State(app): State<App>,
    Body(new): Body<NewExport>,
) -> Result<(StatusCode, Json<Begun>), Refused> {
    let work = app.change(|site| async move {
        let from = Version::parse(&new.vm)?;
        let (task, vm) = site.transfers().begin_export(&from, new.disk.as_deref(), &new.destination).await?;
        Ok(Begun { task, disks: vm.disks })
    });
    Ok((StatusCode::CREATED, Json(work.await?)))
}

/// Says that the client lives and how far it is; the answer says whether the task still runs.
#[utoipa::path(
    put, path = "/api/v1/exports/{id}", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    request_body = Progress,
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn export_progress(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(progress): Body<Progress>,
) -> Result<Json<Task>, Refused> {
    progressed(&app, TaskKind::Export, id, progress).await
}

/// Ends it, as `DELETE /api/v1/tasks/{id}` does.
#[utoipa::path(
    delete, path = "/api/v1/exports/{id}", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn cancel_export(state: State<App>, id: Names<u64>) -> Result<Json<Task>, Refused> {
    cancel(state, id).await
}

/// Ends it well.
#[utoipa::path(
    post, path = "/api/v1/exports/{id}/finish", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn finish_export(State(app): State<App>, Names(id): Names<u64>) -> Result<Json<Task>, Refused> {
    finish(&app, TaskKind::Export, id).await
}

/// Ends it because its client could not do it.
#[utoipa::path(
    post, path = "/api/v1/exports/{id}/fail", tag = "tasks",
    params(
        ("id" = u64, Path, description = "The task.", example = 1),
    ),
    request_body = GiveUp,
    responses((status = 200, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn fail_export(
    State(app): State<App>,
    Names(id): Names<u64>,
    Body(why): Body<GiveUp>,
) -> Result<Json<Task>, Refused> {
    fail(&app, TaskKind::Export, id, why).await
}

async fn progressed(app: &App, kind: TaskKind, id: u64, progress: Progress) -> Result<Json<Task>, Refused> {
    let Progress { done_bytes, total_bytes } = progress;
    Ok(Json(app.site.tasks().progress(id, kind, done_bytes, total_bytes).await?))
}

async fn finish(app: &App, kind: TaskKind, id: u64) -> Result<Json<Task>, Refused> {
    Ok(Json(app.change(move |site| async move { Ok(site.transfers().finish(id, kind).await?) }).await?))
}

async fn fail(app: &App, kind: TaskKind, id: u64, why: GiveUp) -> Result<Json<Task>, Refused> {
    Ok(Json(
        app.change(move |site| async move { Ok(site.transfers().fail(id, kind, &why.error).await?) }).await?,
    ))
}
