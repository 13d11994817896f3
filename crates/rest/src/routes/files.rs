//! Routes of files of a VM.

use api::types::{Begun, ChangeFile, NewFile, Vm};
use api::{FileName, VmName};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::vms::OfVm;
use super::{App, Body, Names};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(change, delete))
}

/// The path of a file.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfFile {
    /// The VM.
    #[param(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        min_length = 1,
        max_length = 63,
        example = "web01"
    )]
    name: String,
    /// The file.
    #[param(
        pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,126}$",
        min_length = 1,
        max_length = 127,
        example = "debian.iso"
    )]
    file: String,
}

/// Makes an empty file of a VM, and the task that stores it. Its client makes it as long as it is to be, writes it by NBD
/// onto the export that is given, says how far it is as for an import, and finishes the import; only then is it there.
#[utoipa::path(
    post, path = "/api/v1/vms/{name}/files", operation_id = "begin_file", tag = "files",
    params(OfVm),
    request_body = NewFile,
    responses((status = 201, body = Begun), (status = "default", response = crate::description::Refused)),
)]
async fn begin(
    State(app): State<App>,
    Names(name): Names<String>,
    Body(new): Body<NewFile>,
) -> Result<(StatusCode, Json<Begun>), Refused> {
    let work = app.change(|site| async move {
        let (vm, file) = (VmName::parse(&name)?, FileName::parse(&new.name)?);
        let (task, disk) = site.transfers().begin_file(&vm, &file, &new.source, new.replace).await?;
        Ok(Begun { task, disks: vec![disk] })
    });
    Ok((StatusCode::CREATED, Json(work.await?)))
}

/// Makes a file longer; only while it is being stored.
#[utoipa::path(
    patch, path = "/api/v1/vms/{name}/files/{file}", operation_id = "change_file", tag = "files",
    params(OfFile),
    request_body = ChangeFile,
    responses((status = 200, body = Vm), (status = "default", response = crate::description::Refused)),
)]
async fn change(
    State(app): State<App>,
    Names((name, file)): Names<(String, String)>,
    Body(change): Body<ChangeFile>,
) -> Result<Json<Vm>, Refused> {
    let work = app.change(move |site| async move {
        Ok(site.catalog().grow_file(&VmName::parse(&name)?, &FileName::parse(&file)?, change.bytes).await?)
    });
    Ok(Json(work.await?))
}

/// Deletes a file for good; snapshots and clones that have it keep it. Refused while a client has it open.
#[utoipa::path(
    delete, path = "/api/v1/vms/{name}/files/{file}", operation_id = "delete_file", tag = "files",
    params(OfFile),
    responses((status = 204, description = "Done."), (status = "default", response = crate::description::Refused)),
)]
async fn delete(
    State(app): State<App>,
    Names((name, file)): Names<(String, String)>,
) -> Result<StatusCode, Refused> {
    let work = app.change(|site| async move {
        Ok(site.catalog().remove_file(&VmName::parse(&name)?, &FileName::parse(&file)?).await?)
    });
    work.await?;
    Ok(StatusCode::NO_CONTENT)
}
