//! The routes, each with what the interface's description says of it.

mod files;
mod groups;
mod media;
mod points;
mod snapshots;
mod tasks;
mod trash;
mod upkeep;
mod vms;

use std::fmt;
use std::marker::PhantomData;

use api::types::{Asked, Status};
use api::{Problem, code};
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use seam::Rt;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use site::Site;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::BODY_BYTES_MAX;
use crate::description::Description;
use crate::memory::Memory;
use crate::refused::Refused;
use crate::server::REQUEST_TIME;

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct App {
    rt: Rt,
    site: Site,
}

/// The interface of a site.
pub(crate) fn router(rt: Rt, site: Site) -> Router {
    let app = App { rt: rt.clone(), site };
    let (router, description) = described().split_for_parts();
    let description = crate::description::text(description);
    let answer = move || std::future::ready(([("content-type", "application/json")], description.clone()));
    #[cfg(test)]
    let router = crate::tests::hanging::add_to(router);
    router
        .route("/api/v1/openapi.json", get(answer))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(rt, in_time))
        .with_state(app)
}

/// The routes with their description.
fn described() -> OpenApiRouter<App> {
    let all = OpenApiRouter::with_openapi(Description::openapi()).routes(routes!(status));
    let all = [
        media::routes(),
        vms::routes(),
        files::routes(),
        snapshots::routes(),
        trash::routes(),
        groups::routes(),
        points::routes(),
        upkeep::routes(),
        tasks::routes(),
    ]
    .into_iter()
    .fold(all, OpenApiRouter::merge);
    // What a route says of its own bodies comes first.
    all.layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// The description of all routes.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

async fn in_time(State(rt): State<Rt>, request: Request, next: Next) -> Response {
    let memory = request.extensions().get::<Memory>().cloned();
    let answer = async {
        let Some(memory) = memory else { return next.run(request).await };
        memory.hold(Memory::of_request(&request)).await;
        let answer = next.run(request).await;
        memory.hold(Memory::of_answer(&answer)).await;
        answer
    };
    let answered = seam::timeout(&*rt, REQUEST_TIME, answer).await;
    answered.unwrap_or_else(|seam::Elapsed| {
        let detail = format!("not done within {} s; it may still be done", REQUEST_TIME.as_secs());
        Refused::new(code::TIMEOUT, detail, "look what became of it").into_response()
    })
}

impl App {
    /// Runs a change to its end, whether or not the client stays to hear of it.
    pub(crate) async fn change<T, F>(&self, work: impl FnOnce(Site) -> F) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let (work, site) = (work(self.site.clone()), self.site.clone());
        let task = async move {
            let answer = match work.await {
                Ok(answer) => Ok(answer),
                Err(problem) => Err(with_room_hint(&site, problem).await),
            };
            // The client may be gone.
            let _ = done.send(answer);
        };
        self.rt.spawn("api change", Box::pin(task));
        let gone =
            |_| Refused::new(code::INTERNAL, "the change ended without an answer", "see the server's log");
        Ok(outcome.await.map_err(gone)??)
    }
}

/// Says what makes room, where a change found none.
async fn with_room_hint(site: &Site, mut problem: Problem) -> Problem {
    if problem.code == code::NO_SPACE.name
        && let Ok(totals) = site.catalog().trash_totals().await
        && totals.items > 0
    {
        let used = api::format_size(totals.used_bytes);
        let empty = format!("`trash empty --yes`: {} in the trash, with {used} of data", totals.items);
        problem.hint = format!("{empty}; or {}", problem.hint);
    }
    problem
}

/// A request's body: one JSON object, or a problem.
struct Body<T>(T);

/// What is written as an object: a list of its values, which serde would take too, is not.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let Json(Object(value)) = Json::from_request(request, state)
            .await
            .map_err(|rejection: JsonRejection| bad_request(rejection.status(), &rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// The variable parts of a request's path, or a problem.
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(names) =
            path.map_err(|rejection: PathRejection| bad_request(rejection.status(), &rejection.body_text()))?;
        Ok(Self(names))
    }
}

/// What is asked behind the `?` of a request, or a problem.
struct Question<T>(T);

impl<T: Asked, S: Send + Sync> FromRequestParts<S> for Question<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let refused = |detail| {
            let hint = "compare the query with the interface's description: /api/v1/openapi.json";
            Refused::new(code::INVALID_REQUEST, detail, hint)
        };
        asked(&parts.uri).map(Self).map_err(refused)
    }
}

/// Reads what is asked behind the `?`; the error says what is wrong.
pub(crate) fn asked<T: Asked>(uri: &Uri) -> Result<T, String> {
    let Query(question) = Query::<T>::try_from_uri(uri).map_err(|rejection| rejection.body_text())?;
    question.check()?;
    Ok(question)
}

/// How the site is.
#[utoipa::path(
    get, path = "/api/v1/status", tag = "site",
    responses((status = 200, body = Status), (status = "default", response = crate::description::Refused)),
)]
async fn status(State(app): State<App>) -> Result<Json<Status>, Refused> {
    Ok(Json(app.site.status().await?))
}

async fn unknown(request: Request) -> Refused {
    let detail = format!("there is nothing at {}", request.uri().path());
    Refused::new(code::NOT_FOUND, detail, "see the list of paths: /api/v1/openapi.json")
}

async fn wrong_method(request: Request) -> Refused {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Refused::new(code::METHOD_NOT_ALLOWED, detail, "the Allow header lists what it takes")
}

fn bad_request(status: StatusCode, detail: &str) -> Refused {
    let (code, hint) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            (code::BODY_TOO_LARGE, "a request has at most 64 KiB, one with a definition 2 MiB")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (code::UNSUPPORTED_MEDIA_TYPE, "send application/json"),
        StatusCode::UNPROCESSABLE_ENTITY => {
            (code::INVALID_REQUEST, "compare the body with the interface's types: /api/v1/openapi.json")
        }
        _ => (code::BAD_REQUEST, "send one JSON value"),
    };
    Refused::new(code, detail, hint)
}
