//! Routes that wait until a test lets them go on: for what happens while a request or a change is under way.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::types::Vm;
use api::{Problem, VmName, code};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;

use crate::refused::Refused;
use crate::routes::{App, Names};

/// What may go on, by the name in its path.
static GOING: LazyLock<watch::Sender<BTreeSet<String>>> =
    LazyLock::new(|| watch::Sender::new(BTreeSet::new()));

/// Lets go on what waits, and will wait, under `name`, which one test has.
pub(super) fn let_go(name: &str) {
    GOING.send_modify(|going| {
        going.insert(name.to_owned());
    });
}

async fn wait(name: &str) {
    GOING.subscribe().wait_for(|going| going.contains(name)).await.unwrap();
}

async fn answer(Names(name): Names<String>) -> Result<Json<String>, Refused> {
    wait(&name).await;
    Ok(Json(name))
}

/// Makes a VM of that name.
async fn change(State(app): State<App>, Names(name): Names<String>) -> Result<Json<Vm>, Refused> {
    let work = app.change(|site| async move {
        wait(&name).await;
        Ok(site.catalog().create_vm(&VmName::parse(&name)?, &[4096]).await?)
    });
    Ok(Json(work.await?))
}

/// Finds no room.
async fn no_room(State(app): State<App>) -> Result<(), Refused> {
    app.change(|_| async { Err(Problem::new(code::NO_SPACE, "no room", "make some")) }).await
}

pub(crate) fn add_to(router: Router<App>) -> Router<App> {
    router.route("/test/{name}", get(answer).post(change).patch(no_room))
}
