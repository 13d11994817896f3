//! The loops that look after a site, each with what it brings about.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::Result;
use seam::BoxFuture;
use task::{Reconciler, run};

use crate::probe;
use crate::running::Shared;

/// Pause between two looks at the trash and at holds: things in the trash go so late at most.
const KEEPER_PAUSE: Duration = Duration::from_secs(5);
/// How often the site time is kept; a clock that was set back makes the site's stand still so long at most.
const KEEP_TIME: Duration = Duration::from_secs(3600);
/// Pause between two looks at what is due: scrubs, rotations, media that are to leave.
const UPKEEP_PAUSE: Duration = Duration::from_secs(1);
/// Looks at media between two looks at their superblocks.
const SUPERBLOCKS_EVERY: u32 = 20;

/// Begins all of them.
pub(crate) fn start(shared: &Arc<Shared>) {
    let (rt, stopping, troubles) = (&shared.parts.rt, shared.stopping.subscribe(), &shared.troubles);
    run(rt, shared, &stopping, troubles, Presence);
    run(rt, shared, &stopping, troubles, Moves);
    run(rt, shared, &stopping, troubles, Clients);
    run(rt, shared, &stopping, troubles, Soundness);
    run(rt, shared, &stopping, troubles, DataKeys);
    run(rt, shared, &stopping, troubles, Trash);
    run(rt, shared, &stopping, troubles, Holds);
    run(rt, shared, &stopping, troubles, Time);
    run(rt, shared, &stopping, troubles, Points);
}

fn sleep(shared: &Shared, pause: Duration) -> BoxFuture<'static, ()> {
    let rt = shared.parts.rt.clone();
    Box::pin(async move { rt.sleep(pause).await })
}

/// Media that went are noticed, and those that are back are taken up.
struct Presence(Arc<Shared>);

impl Reconciler for Presence {
    const WHAT: &'static str = "whether media are there";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // The start has just looked.
            let round = self.0.probed.fetch_add(1, Ordering::Relaxed);
            if round > 0 {
                probe::round(&self.0).await;
            }
            if round > 0 && round.is_multiple_of(SUPERBLOCKS_EVERY) {
                probe::look_at_superblocks(&self.0).await;
            }
            Ok(())
        })
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, self.0.parts.probe_pause)
    }
}

/// What moves between media has a task, also behind a restart; media of nodes that are to be emptied leave.
struct Moves(Arc<Shared>);

impl Reconciler for Moves {
    const WHAT: &'static str = "what moves between media";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.watch_media())
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, UPKEEP_PAUSE)
    }
}

/// Tasks whose clients are silent end, and what tasks leave is cleared away.
struct Clients(Arc<Shared>);

impl Reconciler for Clients {
    const WHAT: &'static str = "tasks of clients";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.0.transfers.round().await.map(drop) })
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.0.tasks.pause())
    }
}

/// Scrubs begin when they are due or something is lacking, and what is found lost is remembered.
struct Soundness(Arc<Shared>);

impl Reconciler for Soundness {
    const WHAT: &'static str = "scrubs";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.scrub_upkeep())
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, UPKEEP_PAUSE)
    }
}

/// A rotation of the data key that was interrupted, or waits for the end of a hold, goes on.
struct DataKeys(Arc<Shared>);

impl Reconciler for DataKeys {
    const WHAT: &'static str = "the data keys";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.rekey_when_due())
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, UPKEEP_PAUSE)
    }
}

/// What was in the trash for long enough goes.
struct Trash(Arc<Shared>);

impl Reconciler for Trash {
    const WHAT: &'static str = "the trash";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.0.parts.engine.is_writable() {
                self.0.catalog.expire_trash().await?;
            }
            Ok(())
        })
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, KEEPER_PAUSE)
    }
}

/// Media are told to lock what is held.
struct Holds(Arc<Shared>);

impl Reconciler for Holds {
    const WHAT: &'static str = "holds";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.0.parts.engine.is_writable() {
                self.0.parts.engine.enforce_holds().await?;
            }
            Ok(())
        })
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, KEEPER_PAUSE)
    }
}

/// Site time is kept, so that a start knows what it was.
struct Time(Arc<Shared>);

impl Reconciler for Time {
    const WHAT: &'static str = "site time";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (engine, now) = (&self.0.parts.engine, self.0.parts.rt.now());
            let kept = *self.0.time_kept.lock().unwrap_or_else(PoisonError::into_inner);
            if engine.is_writable() && kept.is_none_or(|kept| now >= kept + KEEP_TIME) {
                engine.keep_time().await?;
                *self.0.time_kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            }
            Ok(())
        })
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        sleep(&self.0, KEEPER_PAUSE)
    }
}

/// Points are made when they are due, and go when no rule keeps them.
struct Points(Arc<Shared>);

impl Reconciler for Points {
    const WHAT: &'static str = "points of groups";

    fn round(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.protect())
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        let pause = self.0.protection.pause(self.0.parts.engine.site_time_ms());
        sleep(&self.0, pause)
    }
}
