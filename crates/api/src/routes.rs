//! The routes.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use seam::{BoxFuture, Rt};

use crate::BODY_BYTES_MAX;
use crate::backend::Backend;
use crate::problem::Problem;
use crate::server::REQUEST_TIME;
use crate::types::{CreateVm, List, Status, Vm, VmSummary};

/// What the handlers need.
#[derive(Clone)]
struct App {
    rt: Rt,
    backend: Arc<dyn Backend>,
}

/// The interface over a backend.
pub(crate) fn router(rt: Rt, backend: Arc<dyn Backend>) -> Router {
    let app = App { rt: rt.clone(), backend };
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/vms", get(list_vms).post(create_vm))
        .route("/api/v1/vms/{name}", get(show_vm).delete(delete_vm))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(rt, in_time))
        .with_state(app)
}

async fn in_time(State(rt): State<Rt>, request: Request, next: Next) -> Response {
    let answered = seam::timeout(&*rt, REQUEST_TIME, next.run(request)).await;
    answered.unwrap_or_else(|seam::Elapsed| {
        let detail = format!("not done within {} s; it may still be done", REQUEST_TIME.as_secs());
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail, "look what became of it").into_response()
    })
}

impl App {
    /// Runs a change to its end, whether or not the client stays to hear of it.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<dyn Backend>) -> BoxFuture<'static, Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let work = work(self.backend.clone());
        let task = async move {
            // The client may be gone.
            let _ = done.send(work.await);
        };
        self.rt.spawn("api change", Box::pin(task));
        let gone = |_| {
            let detail = "the change ended without an answer";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, "see the server's log")
        };
        outcome.await.map_err(gone)?
    }
}

async fn status(State(app): State<App>) -> Result<Json<Status>, Problem> {
    Ok(Json(app.backend.status().await?))
}

async fn list_vms(State(app): State<App>) -> Result<Json<List<VmSummary>>, Problem> {
    Ok(Json(List { items: app.backend.vms().await? }))
}

async fn show_vm(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Vm>, Problem> {
    let Path(name) = name.map_err(|rejection| bad_request(rejection.status(), &rejection.body_text()))?;
    Ok(Json(app.backend.vm(&name).await?))
}

async fn create_vm(
    State(app): State<App>,
    new: Result<Json<CreateVm>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(new) = new.map_err(|rejection| bad_request(rejection.status(), &rejection.body_text()))?;
    let vm = app.change(|backend| Box::pin(async move { backend.create_vm(new).await })).await?;
    let location = HeaderValue::from_str(&format!("/api/v1/vms/{}", vm.name));
    let mut response = (StatusCode::CREATED, Json(vm)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn delete_vm(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name.map_err(|rejection| bad_request(rejection.status(), &rejection.body_text()))?;
    app.change(|backend| Box::pin(async move { backend.delete_vm(&name).await })).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unknown(request: Request) -> Problem {
    let detail = format!("there is nothing at {}", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail, "see the list of paths under /api/v1")
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        detail,
        "the Allow header lists what it takes",
    )
}

fn bad_request(status: StatusCode, detail: &str) -> Problem {
    let (code, hint) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "a request has at most 64 KiB"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "send application/json"),
        StatusCode::UNPROCESSABLE_ENTITY => {
            ("invalid_request", "compare the body with the interface's types")
        }
        _ => ("bad_request", "send one JSON value"),
    };
    Problem::new(status, code, detail, hint)
}
