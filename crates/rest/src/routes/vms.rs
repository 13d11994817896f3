//! Routes of VMs, their disks and definitions.

use api::types::{
    AddDisk, AttachInfo, ChangeAttributes, ChangeDisk, ChangeVm, CreateVm, Definition, Deleted, HowToDelete,
    List, ListVms, Vm, VmSummary,
};
use api::{Problem, Version, VmName, code};
use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::Deletion;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Body, Names, Question};
use crate::DEFINITION_BODY_BYTES_MAX;
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    let definition = OpenApiRouter::new()
        .routes(routes!(definition, set_definition))
        .layer(DefaultBodyLimit::max(DEFINITION_BODY_BYTES_MAX));
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, delete))
        .routes(routes!(change_attributes))
        .routes(routes!(add_disk))
        .routes(routes!(change_disk, remove_disk))
        .routes(routes!(attach))
        .merge(definition)
}

/// The path of what belongs to a VM: described here once; [`Names`] reads it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct OfVm {
    /// The VM.
    #[param(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    name: String,
}

/// The path of a disk.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfDisk {
    /// The VM.
    #[param(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    name: String,
    /// The disk.
    #[param(example = "disk0")]
    disk: String,
}

/// The VMs that are ready, by name.
#[utoipa::path(
    get, path = "/api/v1/vms", operation_id = "list_vms", tag = "VMs",
    params(ListVms),
    responses((status = 200, body = List<VmSummary>), (status = "default", response = crate::description::Refused)),
)]
async fn list(
    State(app): State<App>,
    Question(which): Question<ListVms>,
) -> Result<Json<List<VmSummary>>, Refused> {
    Ok(Json(List { items: app.site.vms(&which).await? }))
}

/// Makes a VM with empty disks.
#[utoipa::path(
    post, path = "/api/v1/vms", operation_id = "create_vm", tag = "VMs",
    request_body = CreateVm,
    responses((status = 201, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn create(State(app): State<App>, Body(new): Body<CreateVm>) -> Result<Response, Refused> {
    let vm = app.change(|site| async move {
        let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
        Ok(site.catalog().create_vm(&VmName::parse(&new.name)?, &sizes).await?)
    });
    let vm = vm.await?;
    Ok(made(&format!("/api/v1/vms/{}", vm.name), vm))
}

/// Something new, and where it is.
pub(super) fn made(path: &str, value: impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, Json(value)).into_response();
    if let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A VM with its disks.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}", operation_id = "show_vm", tag = "VMs",
    params(OfVm),
    responses((status = 200, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn show(State(app): State<App>, Names(name): Names<String>) -> Result<Json<Vm>, Refused> {
    Ok(Json(app.site.vm(&VmName::parse(&name)?).await?))
}

/// Gives a VM another name; refused while a client has one of its disks open.
#[utoipa::path(
    patch, path = "/api/v1/vms/{name}", operation_id = "change_vm", tag = "VMs",
    params(OfVm),
    request_body = ChangeVm,
    responses((status = 200, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn change(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(new): Body<ChangeVm>,
) -> Result<Json<Vm>, Refused> {
    let work = app.change(|site| async move {
        Ok(site.catalog().rename_vm(&VmName::parse(&name)?, &VmName::parse(&new.name)?).await?)
    });
    Ok(Json(work.await?))
}

/// Changes the folder, tags and labels of a VM; what is not named stays.
#[utoipa::path(
    patch, path = "/api/v1/vms/{name}/attributes", operation_id = "change_attributes", tag = "VMs",
    params(OfVm),
    request_body = ChangeAttributes,
    responses((status = 200, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn change_attributes(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(change): Body<ChangeAttributes>,
) -> Result<Json<Vm>, Refused> {
    let work = app.change(|site| async move {
        Ok(site.catalog().change_attributes(&VmName::parse(&name)?, &change).await?)
    });
    Ok(Json(work.await?))
}

/// Deletes a VM with its disks and its definition, into the trash unless told otherwise. Refused while a client has a disk
/// open, while a snapshot of it is held, and where it has snapshots without a word of them.
#[utoipa::path(
    delete, path = "/api/v1/vms/{name}", operation_id = "delete_vm", tag = "VMs",
    params(OfVm, HowToDelete),
    responses((status = 200, body = Deleted), (status = "default", response = crate::description::Refused)),
)]
async fn delete(
    State(app): State<App>,
    Names(name): Names<String>,
    Question(how): Question<HowToDelete>,
) -> Result<Json<Deleted>, Refused> {
    let work = app.change(move |site| async move {
        let deletion = Deletion { now: how.now, with_snapshots: how.with_snapshots };
        let trash = site.catalog().delete_vm(&VmName::parse(&name)?, deletion).await?;
        Ok(Deleted { deleted: name, trash })
    });
    Ok(Json(work.await?))
}

/// Adds a disk, empty or a clone of another; its name is one number above the highest. A clone of a file is a file of its
/// name.
#[utoipa::path(
    post, path = "/api/v1/vms/{name}/disks", tag = "disks",
    params(OfVm),
    request_body = AddDisk,
    responses((status = 201, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn add_disk(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(new): Body<AddDisk>,
) -> Result<(StatusCode, Json<Vm>), Refused> {
    let work = app.change(|site| async move {
        let name = VmName::parse(&name)?;
        let vm = match new {
            AddDisk::Empty(new) => site.catalog().add_disk(&name, new.bytes).await?,
            AddDisk::Clone(new) => {
                let (from, disk) = Version::parse_with_disk(&new.from)?;
                let disk = disk.ok_or_else(|| no_disk(&new.from))?;
                site.catalog().clone_disk(&from, disk, &name).await?
            }
        };
        Ok(vm)
    });
    let vm = work.await?;
    Ok((StatusCode::CREATED, Json(vm)))
}

/// Changes the size of a disk: larger at any time, smaller only when told and while no client has it open.
#[utoipa::path(
    patch, path = "/api/v1/vms/{name}/disks/{disk}", tag = "disks",
    params(OfDisk),
    request_body = ChangeDisk,
    responses((status = 200, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn change_disk(
    State(app): State<App>,
    Names((name, disk)): Names<(String, String)>,
    Body(change): Body<ChangeDisk>,
) -> Result<Json<Vm>, Refused> {
    let work = app.change(move |site| async move {
        Ok(site.catalog().resize_disk(&VmName::parse(&name)?, &disk, change.bytes, change.shrink).await?)
    });
    Ok(Json(work.await?))
}

/// Removes a disk with its data; refused while a client has it open.
#[utoipa::path(
    delete, path = "/api/v1/vms/{name}/disks/{disk}", tag = "disks",
    params(OfDisk),
    responses((status = 204, description = "Done."), (status = "default", response = crate::description::Refused)),
)]
async fn remove_disk(
    State(app): State<App>,
    Names((name, disk)): Names<(String, String)>,
) -> Result<StatusCode, Refused> {
    app.change(|site| async move { Ok(site.catalog().remove_disk(&VmName::parse(&name)?, &disk).await?) })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a guest gets a disk, or a file as a CD-ROM.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}/disks/{disk}/attach", operation_id = "attach_info", tag = "disks",
    params(OfDisk),
    responses((status = 200, body = AttachInfo), (status = "default", response = crate::description::Refused)),
)]
async fn attach(
    State(app): State<App>,
    Names((name, disk)): Names<(String, String)>,
) -> Result<Json<AttachInfo>, Refused> {
    Ok(Json(app.site.attach_info(&VmName::parse(&name)?, &disk).await?))
}

/// The text stored with a VM.
#[utoipa::path(
    get, path = "/api/v1/vms/{name}/definition", tag = "VMs",
    params(OfVm),
    responses((status = 200, body = Definition), (status = "default", response = crate::description::Refused)),
)]
async fn definition(State(app): State<App>, Names(name): Names<String>) -> Result<Json<Definition>, Refused> {
    Ok(Json(Definition { text: app.site.catalog().definition(&VmName::parse(&name)?).await? }))
}

/// Stores a text with a VM; an empty one removes it.
#[utoipa::path(
    put, path = "/api/v1/vms/{name}/definition", tag = "VMs",
    params(OfVm),
    request_body = Definition,
    responses((status = 204, description = "Done."), (status = "default", response = crate::description::Refused)),
)]
async fn set_definition(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(definition): Body<Definition>,
) -> Result<StatusCode, Refused> {
    let work = app.change(|site| async move {
        Ok(site.catalog().set_definition(&VmName::parse(&name)?, &definition.text).await?)
    });
    work.await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_disk(from: &str) -> Problem {
    let detail = format!("{from} names no disk");
    Problem::new(code::INVALID_REQUEST, detail, "give it as VM/DISK or VM@SNAPSHOT/DISK")
}
