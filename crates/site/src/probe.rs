//! Notices media that went, and brings those back that were missing or had failed.
//!
//! A medium that was not there at the start is opened anew. One that failed meanwhile is still open, and goes on when
//! it can be read and synced again; where a sync failed nobody knows what of it is durable, so it stays away until
//! the next start, when its table is read anew.

use std::sync::Arc;

use crate::running::Shared;

/// A medium whose superblocks are both damaged would not be found by the next start.
pub(crate) async fn look_at_superblocks(site: &Shared) {
    // Whoever changes superblocks holds it.
    let keys = site.keys.lock().await;
    for medium in site.parts.home.mend_superblocks(&keys).await {
        tracing::warn!(%medium, "a damaged superblock was written anew");
    }
}

pub(crate) async fn round(site: &Arc<Shared>) {
    site.parts.engine.pool().probe().await;
    for health in site.parts.engine.pool().health().into_iter().filter(|health| !health.up) {
        let medium = health.medium;
        if site.away().get(&medium).is_some_and(|away| away.barred) {
            continue;
        }
        let outcome = {
            // Held until it is attached: a key that comes meanwhile goes to it too.
            let keys = site.keys.lock().await;
            site.parts.home.revive(medium, &keys).await
        };
        match outcome {
            Ok(()) => {
                let before = site.away().remove(&medium);
                tracing::info!(%medium, "the medium is back");
                if before.is_some_and(|away| away.robbed) {
                    site.parts.engine.suspect(medium);
                }
                site.parts.engine.medium_returned(medium).await;
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
