//! Routes of what the site does for itself.

use api::types::{
    Clock, Keys, ListSpace, NewClean, NewPassphrase, NewSpace, ScrubEvery, Scrubbing, Space, Task,
};
use api::{VmName, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Body, Question};
use crate::refused::Refused;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(clean))
        .routes(routes!(scrubbing, scrub, set_scrubbing))
        .routes(routes!(verify))
        .routes(routes!(clock))
        .routes(routes!(accept_clock))
        .routes(routes!(keys))
        .routes(routes!(rotate_key))
        .routes(routes!(change_passphrase))
        .routes(routes!(space, compute_space))
}

type Accepted = (StatusCode, Json<Task>);

/// Has the cleaner free what nothing reaches any more. It also runs by itself when room gets low.
#[utoipa::path(
    post, path = "/api/v1/clean", tag = "upkeep",
    request_body = NewClean,
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn clean(State(app): State<App>, Body(new): Body<NewClean>) -> Result<Accepted, Refused> {
    let percent = u8::try_from(new.garbage_percent).ok().filter(|percent| *percent <= 100);
    let percent = percent.ok_or_else(|| {
        let detail = format!("garbage_percent: 0 to 100, not {}", new.garbage_percent);
        Refused::new(code::INVALID_REQUEST, detail, "give a percentage")
    })?;
    let task = app.change(move |site| async move { Ok(site.begin_clean(percent).await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// Has every fragment read, checked, and mended where it is wrong.
#[utoipa::path(
    post, path = "/api/v1/scrub", tag = "upkeep",
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn scrub(State(app): State<App>) -> Result<Accepted, Refused> {
    let task = app.change(|site| async move { Ok(site.begin_scrub().await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// How often the site is scrubbed, and how the last time went.
#[utoipa::path(
    get, path = "/api/v1/scrub", tag = "upkeep",
    responses((status = 200, body = Scrubbing), (status = "default", response = crate::description::Refused)),
)]
async fn scrubbing(State(app): State<App>) -> Result<Json<Scrubbing>, Refused> {
    Ok(Json(app.site.scrubbing().await?))
}

/// Sets how often the site is scrubbed.
#[utoipa::path(
    put, path = "/api/v1/scrub", tag = "upkeep",
    request_body = ScrubEvery,
    responses((status = 200, body = Scrubbing), (status = "default", response = crate::description::Refused)),
)]
async fn set_scrubbing(
    State(app): State<App>,
    Body(every): Body<ScrubEvery>,
) -> Result<Json<Scrubbing>, Refused> {
    let every_s = every.every_s.unwrap_or(0);
    Ok(Json(app.change(move |site| async move { Ok(site.set_scrub_every(every_s).await?) }).await?))
}

/// Has every block opened that a VM or snapshot reaches: what passes can be restored.
#[utoipa::path(
    post, path = "/api/v1/verify", tag = "upkeep",
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn verify(State(app): State<App>) -> Result<Accepted, Refused> {
    let task = app.change(|site| async move { Ok(site.begin_verify().await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// Site time, which holds, the trash and schedules go by, and the host's clock.
#[utoipa::path(
    get, path = "/api/v1/clock", tag = "upkeep",
    responses((status = 200, body = Clock), (status = "default", response = crate::description::Refused)),
)]
async fn clock(State(app): State<App>) -> Result<Json<Clock>, Refused> {
    Ok(Json(app.site.clock()))
}

/// Has site time go on from the host's clock where that is ahead: what was to stay until then may go, and no hold that is over
/// by then lasts longer.
#[utoipa::path(
    post, path = "/api/v1/clock/accept", tag = "upkeep",
    responses((status = 200, body = Clock), (status = "default", response = crate::description::Refused)),
)]
async fn accept_clock(State(app): State<App>) -> Result<Json<Clock>, Refused> {
    Ok(Json(app.change(|site| async move { Ok(site.believe_host_clock().await?) }).await?))
}

/// The data keys.
#[utoipa::path(
    get, path = "/api/v1/keys", tag = "upkeep",
    responses((status = 200, body = Keys), (status = "default", response = crate::description::Refused)),
)]
async fn keys(State(app): State<App>) -> Result<Json<Keys>, Refused> {
    Ok(Json(app.site.keys().await))
}

/// Has what is written from now on sealed under a new data key, and all the rest sealed anew.
#[utoipa::path(
    post, path = "/api/v1/keys/rotate", tag = "upkeep",
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn rotate_key(State(app): State<App>) -> Result<Accepted, Refused> {
    let task = app.change(|site| async move { Ok(site.rotate_key().await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// Has another passphrase open the site from now on; the one before opens nothing any more.
#[utoipa::path(
    post, path = "/api/v1/keys/passphrase", tag = "upkeep",
    request_body = NewPassphrase,
    responses((status = 200, body = Keys), (status = "default", response = crate::description::Refused)),
)]
async fn change_passphrase(
    State(app): State<App>,
    Body(new): Body<NewPassphrase>,
) -> Result<Json<Keys>, Refused> {
    let work = app.change(|site| async move {
        let NewPassphrase { current, new } = new;
        site.change_passphrase(current.into_bytes(), new.into_bytes()).await?;
        Ok(site.keys().await)
    });
    Ok(Json(work.await?))
}

/// Has space computed: what each VM and snapshot takes, or what deleting some of them would free.
#[utoipa::path(
    post, path = "/api/v1/space", tag = "upkeep",
    request_body = NewSpace,
    responses((status = 202, body = Task), (status = "default", response = crate::description::Refused)),
)]
async fn compute_space(State(app): State<App>, Body(new): Body<NewSpace>) -> Result<Accepted, Refused> {
    new.check().map_err(|why| Refused::new(code::INVALID_REQUEST, why, "ask for fewer at a time"))?;
    let task = app.change(|site| async move { Ok(site.begin_space(&new.of).await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// What each VM and snapshot takes, as last computed.
#[utoipa::path(
    get, path = "/api/v1/space", tag = "upkeep",
    params(ListSpace),
    responses((status = 200, body = Space), (status = "default", response = crate::description::Refused)),
)]
async fn space(State(app): State<App>, Question(which): Question<ListSpace>) -> Result<Json<Space>, Refused> {
    let vm = which.vm.as_deref().map(VmName::parse).transpose()?;
    Ok(Json(app.site.space(vm.as_ref(), which.after.as_deref(), which.limit as usize)?))
}
