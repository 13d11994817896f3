//! Brings media back that were missing or had failed.
//!
//! A medium that was not there at the start is opened anew. One that failed meanwhile is still open, and goes on when
//! it can be read and synced again; where a sync failed nobody knows what of it is durable, so it stays away until
//! the next start, when its table is read anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use seam::Rt;
use tokio::sync::watch;
use units::MediumId;

use crate::media_set::{self, Found};
use crate::running::{Away, Shared};

/// Pause between two rounds: a person who plugs a disk in waits no longer.
const PAUSE: Duration = Duration::from_secs(3);
/// A medium that failed this often after coming back would fail for ever.
const RETURNS_MAX: u32 = 5;

/// Runs until the site stops or is gone.
pub(crate) async fn run(site: Weak<Shared>, mut stopping: watch::Receiver<bool>, rt: Rt) {
    let mut returns = BTreeMap::new();
    loop {
        tokio::select! {
            () = rt.sleep(PAUSE) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let Some(site) = site.upgrade() else { return };
        round(&site, &mut returns).await;
    }
}

pub(crate) async fn round(site: &Arc<Shared>, returns: &mut BTreeMap<MediumId, u32>) {
    for health in site.parts.engine.pool().health().into_iter().filter(|health| !health.up) {
        let medium = health.medium;
        if site.away().get(&medium).is_some_and(|away| away.barred) {
            continue;
        }
        let outcome = match site.parts.transport.medium(medium) {
            Some(node) => {
                let returned = returns.entry(medium).or_insert(0);
                resume(&**node.medium(), returned).await
            }
            None => attach(site, medium).await.map_err(|reason| Away { reason, barred: false }),
        };
        match outcome {
            Ok(()) => {
                site.away().remove(&medium);
                tracing::info!(%medium, "the medium is back");
                site.parts.engine.medium_returned(medium);
            }
            Err(away) => {
                let before = site.away().insert(medium, away.clone());
                if before.as_ref() != Some(&away) {
                    tracing::warn!(%medium, reason = away.reason, barred = away.barred, "the medium stays away");
                }
            }
        }
    }
}

/// Whether a medium that failed while in use can go on.
async fn resume(medium: &dyn media::Medium, returned: &mut u32) -> Result<(), Away> {
    if *returned >= RETURNS_MAX {
        let reason = format!("it failed again after each of {returned} returns");
        return Err(Away { reason, barred: true });
    }
    // The medium itself remembers a sync that failed, also one before this.
    if let Err(error) = medium.sync().await {
        return Err(Away { reason: format!("{error}; it may come back at the next start"), barred: true });
    }
    match media_set::peek(medium).await {
        Ok(Some(_)) => {
            *returned += 1;
            Ok(())
        }
        Ok(None) => Err(Away { reason: "it carries no superblock any more".to_owned(), barred: true }),
        Err(error) => Err(Away { reason: error.to_string(), barred: false }),
    }
}

/// Opens a medium that was not there and attaches it.
async fn attach(site: &Arc<Shared>, medium: MediumId) -> Result<(), String> {
    let parts = &site.parts;
    let mut found = open_blocking(site, medium).await?;
    // Held until it is attached: a key that comes meanwhile goes to it too.
    let keys = site.keys.lock().await;
    media_set::with_keys_of(&mut found, &keys).await.map_err(|error| error.to_string())?;
    let node = media_set::node(&found, &parts.keys_from).await?;
    parts.transport.attach(Arc::new(node));
    Ok(())
}

/// Opens, or makes, a medium off the threads that serve: that waits for locks.
pub(crate) async fn open_path(
    site: &Arc<Shared>,
    path: PathBuf,
    create_size: Option<u64>,
) -> media::Result<Arc<dyn media::Medium>> {
    let opener = site.parts.opener.clone();
    let name = path.display().to_string();
    let (done, opened) = tokio::sync::oneshot::channel();
    let work = move || {
        // The waiter may be gone.
        let _ = done.send(opener.open(&path, create_size));
    };
    site.parts.rt.spawn_blocking("medium open", Box::new(work));
    opened.await.unwrap_or_else(|_| {
        Err(media::MediaError {
            kind: media::MediaErrorKind::Gone,
            medium: name,
            operation: "open".to_owned(),
            reason: "the server is going down".to_owned(),
        })
    })
}

/// Opens a medium of the site.
async fn open_blocking(site: &Arc<Shared>, medium: MediumId) -> Result<Found, String> {
    let manifest = site.parts.manifest();
    let entry = manifest.media.iter().find(|entry| entry.id() == medium);
    let entry = entry.ok_or_else(|| "it is not in site.json".to_owned())?;
    let opened = open_path(site, site.parts.directory.resolve(&entry.path), None).await;
    let opened = opened.map_err(|error| error.to_string())?;
    let found = media_set::identify(opened, &manifest).await?;
    if found.id != medium {
        return Err(format!("{}: it is medium {} of this site", found.medium.name(), found.id));
    }
    Ok(found)
}
