//! Routes of snapshots, clones, reverts, and of what differs between versions of a VM.

use api::types::{
    ChangeSnapshot, Changes, Deleted, HowToDelete, ListSnapshots, NewClone, NewSnapshot, Revert, Reverted,
    Snapshot, Snapshots, Vm, WhichChanges,
};
use api::{Version, VmName, code};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::vms::{OfVm, made};
use super::{App, Body, Names, Question};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(create))
        .routes(routes!(show, change, delete))
        .routes(routes!(snapshot_changes))
        .routes(routes!(vm_changes))
        .routes(routes!(revert))
        .routes(routes!(clone))
}

/// The path of a snapshot.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct OfSnapshot {
    /// The VM.
    #[param(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    name: String,
    /// The snapshot.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", min_length = 1, max_length = 63, example = "s1")]
    snapshot: String,
}

/// Snapshots of one VM or all, by VM and name.
#[utoipa::path(
    get, path = "/api/v1/snapshots", operation_id = "list_snapshots", tag = "snapshots",
    params(ListSnapshots),
    responses((status = 200, body = Snapshots), (status = "default", response = crate::description::Refused)),
)]
async fn list(
    State(app): State<App>,
    Question(which): Question<ListSnapshots>,
) -> Result<Json<Snapshots>, Refused> {
    let vm = which.vm.as_deref().map(VmName::parse).transpose()?;
    let after = which.after.as_deref().map(Version::parse).transpose()?;
    if let Some(Version { vm, snapshot: None }) = &after {
        let detail = format!("{vm} is no snapshot");
        return Err(Refused::new(code::INVALID_REQUEST, detail, "give it as VM@SNAPSHOT"));
    }
    let limit = which.limit as usize;
    let items = app.site.catalog().snapshots(vm.as_ref(), after.as_ref(), limit).await?;
    let last = items.last().filter(|_| items.len() >= limit);
    let next = last.map(|last| format!("{}@{}", last.vm, last.name));
    Ok(Json(Snapshots { items, next }))
}

/// Makes a snapshot of a VM: all its disks at one instant, and its definition.
#[utoipa::path(
    post, path = "/api/v1/vms/{name}/snapshots", operation_id = "create_snapshot", tag = "snapshots",
    params(OfVm),
    request_body = NewSnapshot,
    responses(
        (status = 201, body = Snapshot, links(
            ("show" = (operation_id = "show_snapshot", parameters(
                ("name" = "$response.body#/vm"), ("snapshot" = "$response.body#/name")))),
            ("rename" = (operation_id = "change_snapshot", parameters(
                ("name" = "$response.body#/vm"), ("snapshot" = "$response.body#/name")))),
            ("delete" = (operation_id = "delete_snapshot", parameters(
                ("name" = "$response.body#/vm"), ("snapshot" = "$response.body#/name")))),
            ("changes" = (operation_id = "snapshot_changes", parameters(
                ("name" = "$response.body#/vm"), ("snapshot" = "$response.body#/name"),
                ("disk" = "$response.body#/disks/0/name")))),
            ("changes since" = (operation_id = "vm_changes", parameters(
                ("name" = "$response.body#/vm"), ("against" = "$response.body#/name"),
                ("disk" = "$response.body#/disks/0/name")))),
            ("revert" = (operation_id = "revert_vm", parameters(("name" = "$response.body#/vm")))),
        )),
        (status = "default", response = crate::description::Refused),
    ),
)]
async fn create(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(new): Body<NewSnapshot>,
) -> Result<Response, Refused> {
    let work = app.change(|site| async move {
        let snapshot = new.name.as_deref().map(snapshot_name).transpose()?;
        Ok(site.catalog().snapshot(&VmName::parse(&name)?, snapshot.as_ref()).await?)
    });
    let snapshot = work.await?;
    Ok(made(&format!("/api/v1/vms/{}/snapshots/{}", snapshot.vm, snapshot.name), snapshot))
}

/// A snapshot with its disks.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}/snapshots/{snapshot}", operation_id = "show_snapshot", tag = "snapshots",
    params(OfSnapshot),
    responses((status = 200, body = Snapshot), (status = "default", response = crate::description::Refused)),
)]
async fn show(
    State(app): State<App>,
    Names((name, snapshot)): Names<(String, String)>,
) -> Result<Json<Snapshot>, Refused> {
    Ok(Json(app.site.catalog().show_snapshot(&VmName::parse(&name)?, &snapshot_name(&snapshot)?).await?))
}

/// Gives a snapshot another name; refused while a client reads it.
#[utoipa::path(
    patch, path = "/api/v1/vms/{name}/snapshots/{snapshot}", operation_id = "change_snapshot", tag = "snapshots",
    params(OfSnapshot),
    request_body = ChangeSnapshot,
    responses((status = 200, body = Snapshot), (status = "default", response = crate::description::Refused)),
)]
async fn change(
    State(app): State<App>,
    Names((name, snapshot)): Names<(String, String)>,
    Body(new): Body<ChangeSnapshot>,
) -> Result<Json<Snapshot>, Refused> {
    let work = app.change(|site| async move {
        let (vm, old, new) = (VmName::parse(&name)?, snapshot_name(&snapshot)?, snapshot_name(&new.name)?);
        Ok(site.catalog().rename_snapshot(&vm, &old, &new).await?)
    });
    Ok(Json(work.await?))
}

/// Deletes a snapshot, into the trash unless told otherwise; others stay, and VMs and disks that began as it. Refused
/// while a client reads it, and while it is held.
#[utoipa::path(
    delete, path = "/api/v1/vms/{name}/snapshots/{snapshot}", operation_id = "delete_snapshot", tag = "snapshots",
    params(OfSnapshot, HowToDelete),
    responses((status = 200, body = Deleted), (status = "default", response = crate::description::Refused)),
)]
async fn delete(
    State(app): State<App>,
    Names((name, snapshot)): Names<(String, String)>,
    Question(how): Question<HowToDelete>,
) -> Result<Json<Deleted>, Refused> {
    let work = app.change(move |site| async move {
        let (vm, name) = (VmName::parse(&name)?, snapshot_name(&snapshot)?);
        let trash = site.catalog().delete_snapshot(&vm, &name, how.now).await?;
        Ok(Deleted { deleted: format!("{vm}@{name}"), trash })
    });
    Ok(Json(work.await?))
}

/// What changed on a disk up to a snapshot: since another snapshot of the VM, else all that it holds.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}/snapshots/{snapshot}/changes", operation_id = "snapshot_changes",
    tag = "snapshots",
    params(OfSnapshot, WhichChanges),
    responses((status = 200, body = Changes), (status = "default", response = crate::description::Refused)),
)]
async fn snapshot_changes(
    State(app): State<App>,
    Names((name, snapshot)): Names<(String, String)>,
    Question(which): Question<WhichChanges>,
) -> Result<Json<Changes>, Refused> {
    changes(&app, &name, Some(&snapshot), which).await
}

/// What changed on a disk up to now: since a snapshot of the VM, else all that it holds. Each answer is of its instant.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}/changes", operation_id = "vm_changes", tag = "snapshots",
    params(OfVm, WhichChanges),
    responses((status = 200, body = Changes), (status = "default", response = crate::description::Refused)),
)]
async fn vm_changes(
    State(app): State<App>,
    Names(name): Names<String>,
    Question(which): Question<WhichChanges>,
) -> Result<Json<Changes>, Refused> {
    changes(&app, &name, None, which).await
}

/// Puts a VM back to one of its snapshots: disks and definition. What it was is kept in a new snapshot. Refused while a
/// client has one of its disks open.
#[utoipa::path(
    post, path = "/api/v1/vms/{name}/revert", operation_id = "revert_vm", tag = "snapshots",
    params(OfVm),
    request_body = Revert,
    responses((status = 200, body = Reverted), (status = "default", response = crate::description::Refused)),
)]
async fn revert(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(to): Body<Revert>,
) -> Result<Json<Reverted>, Refused> {
    let work = app.change(|site| async move {
        let (vm, kept_as) =
            site.catalog().revert(&VmName::parse(&name)?, &snapshot_name(&to.snapshot)?).await?;
        Ok(Reverted { vm, kept_as })
    });
    Ok(Json(work.await?))
}

/// Makes a VM that begins as another is at this instant, or was at a snapshot. No data is copied.
#[utoipa::path(
    post, path = "/api/v1/clones", operation_id = "clone_vm", tag = "snapshots",
    request_body = NewClone,
    responses((status = 201, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn clone(State(app): State<App>, Body(new): Body<NewClone>) -> Result<Response, Refused> {
    let work = app.change(|site| async move {
        Ok(site.catalog().clone_vm(&Version::parse(&new.from)?, &VmName::parse(&new.name)?).await?)
    });
    let vm = work.await?;
    Ok(made(&format!("/api/v1/vms/{}", vm.name), vm))
}

async fn changes(
    app: &App,
    vm: &str,
    snapshot: Option<&str>,
    which: WhichChanges,
) -> Result<Json<Changes>, Refused> {
    let vm = VmName::parse(vm)?;
    let version =
        |name: &str| api::Result::Ok(Version { vm: vm.clone(), snapshot: Some(snapshot_name(name)?) });
    let new = match snapshot {
        Some(snapshot) => version(snapshot)?,
        None => Version { vm: vm.clone(), snapshot: None },
    };
    let old = which.against.as_deref().map(version).transpose()?;
    let limit = which.limit as usize;
    let items = app.site.catalog().diff(old.as_ref(), &new, &which.disk, which.offset, limit).await?;
    let last = items.last().filter(|_| items.len() >= limit);
    let next = last.map(|last| last.offset + last.length);
    Ok(Json(Changes { items, next }))
}

pub(super) fn snapshot_name(text: &str) -> api::Result<VmName> {
    VmName::parse_for("a snapshot", text)
}
