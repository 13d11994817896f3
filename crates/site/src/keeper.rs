//! The keeper: the trash expires, the data nodes hear of holds, and the site time is kept.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::watch;

use crate::running::Shared;
use api::Result;

/// Pause between two looks: things in the trash go so late at most.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the site time is kept; a clock that was set back makes the site's stand still so long at most.
const KEEP_TIME: Duration = Duration::from_secs(3600);

/// Runs until the site stops or is gone.
pub(crate) async fn run(site: Weak<Shared>, mut stopping: watch::Receiver<bool>) {
    let (mut kept, mut said) = (None, false);
    loop {
        let Some(shared) = site.upgrade() else { return };
        match round(&shared, &mut kept).await {
            Ok(()) => said = false,
            // Said once: the next round tries again.
            Err(error) if !said => {
                tracing::warn!(%error, "the trash cannot be looked after");
                said = true;
            }
            Err(_) => {}
        }
        let pause = shared.parts.rt.sleep(PAUSE);
        // Nothing of the site may be held while nothing is done: it goes when its owner drops it.
        drop(shared);
        tokio::select! {
            () = pause => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

async fn round(shared: &Shared, kept: &mut Option<Duration>) -> Result<()> {
    let engine = &shared.parts.engine;
    if !engine.is_writable() {
        return Ok(());
    }
    let now = shared.parts.rt.now();
    if kept.is_none_or(|kept| now >= kept + KEEP_TIME) {
        engine.keep_time().await?;
        *kept = Some(now);
    }
    shared.vms.expire_trash().await?;
    engine.enforce_holds().await?;
    Ok(())
}
