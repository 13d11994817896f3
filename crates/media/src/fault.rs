//! A medium that goes wrong by plan, around a real or simulated one. For tests, and for crash tests of the binary;
//! no part of a default build.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use seam::{BoxFuture, Rt};
use units::{PAGE, PageBuf, PageSlice};

use crate::{MediaError, MediaErrorKind, Medium, Result, State};

mod plan;

pub use plan::{Access, Effect, FaultPlan, PlanError, Rule};

/// Wraps a medium and applies a [`FaultPlan`] to it. Like every medium it never forgets a failed sync.
#[derive(Debug)]
pub struct FaultMedium {
    inner: Arc<dyn Medium>,
    clock: Clock,
    rules: Vec<(Rule, AtomicU64)>,
    reads: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    discards: AtomicU64,
    /// The error of the first failed sync.
    failed_sync: OnceLock<&'static str>,
}

struct Clock(Rt);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Operations asked for so far, those that went wrong too. A durable write counts as a write and, when the write
/// succeeds, as a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Discards; these never go wrong.
    pub discards: u64,
}

impl FaultMedium {
    /// Wraps `inner`; rules for other media are left out. `rt` times the delays.
    pub fn new(inner: Arc<dyn Medium>, plan: FaultPlan, rt: Rt) -> Self {
        let rules = plan.of_medium(inner.name()).rules;
        Self {
            inner,
            clock: Clock(rt),
            rules: rules.into_iter().map(|rule| (rule, AtomicU64::new(0))).collect(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            discards: AtomicU64::new(0),
            failed_sync: OnceLock::new(),
        }
    }

    /// Operations so far.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Counts {
            reads: get(&self.reads),
            writes: get(&self.writes),
            syncs: get(&self.syncs),
            discards: get(&self.discards),
        }
    }

    /// How often each rule of this medium has struck, in the order of the plan.
    pub fn fired(&self) -> Vec<u64> {
        self.rules.iter().map(|(_, fired)| fired.load(Ordering::SeqCst)).collect()
    }

    /// Counts the access; waits out its delay; gives what else goes wrong with it.
    async fn strike(&self, access: Access) -> Option<Effect> {
        let counter = match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
            Access::Sync => &self.syncs,
        };
        let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let mut effect = None;
        let mut delay = Duration::ZERO;
        for (rule, fired) in self.rules.iter().filter(|(rule, _)| rule.hits(access, count)) {
            match rule.effect {
                Effect::Delay(time) => delay += time,
                _ if effect.is_some() => continue,
                other => effect = Some(other),
            }
            fired.fetch_add(1, Ordering::SeqCst);
            tracing::warn!(medium = self.inner.name(), ?access, count, effect = ?rule.effect, "injected fault");
        }
        if delay > Duration::ZERO {
            self.clock.0.sleep(delay).await;
        }
        if effect == Some(Effect::Kill) {
            kill_self::<()>().await;
        }
        effect
    }

    fn error(&self, kind: MediaErrorKind, access: Access, reason: impl ToString) -> MediaError {
        MediaError::new(kind, self.inner.name(), format!("{access:?}").to_lowercase(), reason)
    }

    fn injected(&self, effect: Effect, access: Access) -> MediaError {
        match effect {
            Effect::Enospc => self.error(MediaErrorKind::NoSpace, access, "no space left (injected)"),
            _ => self.error(MediaErrorKind::Io, access, "input/output error (injected)"),
        }
    }

    fn check_synced(&self, access: Access) -> Result<()> {
        self.failed_sync.get().map_or(Ok(()), |reason| {
            Err(self.error(MediaErrorKind::Io, access, format!("an earlier sync failed: {reason}")))
        })
    }

    /// Lets the first sectors of a write through.
    async fn tear(&self, offset: u64, bytes: &PageSlice, sectors: usize) -> Result<()> {
        let reached = (sectors * plan::SECTOR).min(bytes.len());
        let pages = reached / PAGE * PAGE;
        if pages > 0 {
            self.inner.write(offset, bytes.slice(0..pages)).await?;
        }
        if reached > pages {
            let at = offset + pages as u64;
            let mut page = self.inner.read(at, PAGE).await?;
            page.as_mut()[..reached - pages].copy_from_slice(&bytes.as_ref()[pages..reached]);
            self.inner.write(at, page.share()).await?;
        }
        Ok(())
    }

    async fn write_struck(&self, effect: Option<Effect>, offset: u64, bytes: PageSlice) -> Result<()> {
        match effect {
            None => self.inner.write(offset, bytes).await,
            Some(Effect::Lie) => Ok(()),
            Some(Effect::KillAfter) => {
                let _ = self.inner.write(offset, bytes).await;
                kill_self().await
            }
            Some(Effect::KillTorn { sectors }) => {
                let _ = self.tear(offset, &bytes, sectors).await;
                kill_self().await
            }
            Some(effect @ Effect::Torn { sectors }) => {
                self.tear(offset, &bytes, sectors).await?;
                Err(self.injected(effect, Access::Write))
            }
            Some(effect) => Err(self.injected(effect, Access::Write)),
        }
    }

    async fn sync_struck(&self, effect: Option<Effect>) -> Result<()> {
        match effect {
            None => self.inner.sync().await,
            Some(Effect::Lie) => Ok(()),
            Some(Effect::KillAfter) => {
                let _ = self.inner.sync().await;
                kill_self().await
            }
            Some(effect) => {
                let reason = if effect == Effect::Enospc { "no space left" } else { "input/output error" };
                let _ = self.failed_sync.set(reason);
                Err(self.error(MediaErrorKind::Io, Access::Sync, format!("{reason} (injected)")))
            }
        }
    }
}

impl Medium for FaultMedium {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>> {
        Box::pin(async move {
            match self.strike(Access::Read).await {
                None => self.inner.read(offset, length).await,
                Some(Effect::KillAfter) => {
                    let _ = self.inner.read(offset, length).await;
                    kill_self().await
                }
                Some(effect) => Err(self.injected(effect, Access::Read)),
            }
        })
    }

    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_synced(Access::Write)?;
            let effect = self.strike(Access::Write).await;
            self.write_struck(effect, offset, bytes).await
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_synced(Access::Sync)?;
            let effect = self.strike(Access::Sync).await;
            self.sync_struck(effect).await?;
            // One that failed meanwhile may have taken this one's writes with it.
            self.check_synced(Access::Sync)
        })
    }

    fn write_durable(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_synced(Access::Write)?;
            let on_sync = self.rules.iter().any(|(rule, _)| rule.access == Access::Sync);
            let effect = self.strike(Access::Write).await;
            if effect.is_some() || on_sync {
                // The two must be apart for one of them to go wrong.
                self.write_struck(effect, offset, bytes).await?;
                return self.sync().await;
            }
            self.inner.write_durable(offset, bytes).await?;
            self.syncs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn reserve(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_synced(Access::Write)?;
            match self.strike(Access::Write).await {
                None | Some(Effect::Lie) => self.inner.reserve(offset, length).await,
                Some(Effect::KillAfter) => {
                    let _ = self.inner.reserve(offset, length).await;
                    kill_self().await
                }
                Some(effect) => Err(self.injected(effect, Access::Write)),
            }
        })
    }

    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        self.discards.fetch_add(1, Ordering::SeqCst);
        self.inner.discard(offset, length)
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn room(&self) -> u64 {
        self.inner.room()
    }
}

/// Ends the process as `kill -9` does.
async fn kill_self<T>() -> T {
    let _ = kill_process(getpid(), Signal::KILL);
    std::future::pending().await
}

#[cfg(test)]
mod tests;
