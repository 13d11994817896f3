//! Loops that look after a site: one frame for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use api::Result;
use seam::{BoxFuture, Rt};
use tokio::sync::watch;

/// Rounds in a row that fail before the trouble is told to people: one may meet a medium that is just coming back.
const ROUNDS_FAILED: u32 = 3;

/// Something that a site does again and again, so that what is becomes what the records say.
///
/// A round may be cut off anywhere, and may find nothing to do.
pub trait Reconciler: Send + Sync + 'static {
    /// What it looks after, in the words of the log and of `status`: "the trash".
    const WHAT: &'static str;

    /// One round.
    ///
    /// # Errors
    /// Why it could not do all; the next round tries again.
    fn round(&self) -> BoxFuture<'_, Result<()>>;

    /// Waits until another round is due. What is given holds nothing of the site.
    fn pause(&self) -> BoxFuture<'static, ()>;
}

/// What cannot be looked after now.
#[derive(Debug, Default)]
pub struct Troubles {
    /// By what is looked after: rounds in a row that failed, and why the last did.
    failing: Mutex<BTreeMap<&'static str, (u32, String)>>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (u32, String)>> {
        // Whole after every statement.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fails again and again, with the reason.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let failing = self.lock();
        let lasting = failing.iter().filter(|(_, (rounds, _))| *rounds >= ROUNDS_FAILED);
        lasting.map(|(what, (_, reason))| (*what, reason.clone())).collect()
    }

    fn note(&self, what: &'static str, done: Result<()>) {
        let mut failing = self.lock();
        match done {
            Ok(()) => {
                failing.remove(what);
            }
            Err(error) => {
                let (rounds, reason) = failing.entry(what).or_default();
                if *rounds == 0 {
                    tracing::warn!(%error, "{what} cannot be looked after");
                }
                *rounds = rounds.saturating_add(1);
                *reason = error.to_string();
            }
        }
    }
}

/// Runs rounds of what `make` makes of `owner`, until `stopping` says so or nobody has the owner any more. Trouble is logged
/// once, and again only after a round without. A round that panics is followed by another.
pub fn run<T, R>(
    rt: &Rt,
    owner: &Arc<T>,
    stopping: &watch::Receiver<bool>,
    troubles: &Arc<Troubles>,
    make: fn(Arc<T>) -> R,
) where
    T: Send + Sync + 'static,
    R: Reconciler,
{
    let (weak, stopping, troubles) = (Arc::downgrade(owner), stopping.clone(), troubles.clone());
    let own = rt.clone();
    let work = async move {
        let begin = || rounds(weak.clone(), stopping.clone(), troubles.clone(), make);
        seam::restart(&*own, R::WHAT, begin).await;
    };
    rt.spawn(R::WHAT, Box::pin(work));
}

async fn rounds<T, R: Reconciler>(
    owner: Weak<T>,
    mut stopping: watch::Receiver<bool>,
    troubles: Arc<Troubles>,
    make: fn(Arc<T>) -> R,
) {
    loop {
        let Some(owner) = owner.upgrade() else { return };
        let reconciler = make(owner);
        troubles.note(R::WHAT, reconciler.round().await);
        let pause = reconciler.pause();
        // Nothing of the site may be held while nothing is done: it goes when its owner drops it.
        drop(reconciler);
        tokio::select! {
            () = pause => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the runtime's clock stands still but for sleeps
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use api::{Error, code};
    use seam::TokioRuntime;

    use super::*;

    /// Rounds so far, and which of them fail or panic.
    struct Site {
        rounds: AtomicU32,
        fails: fn(u32) -> bool,
        panics: fn(u32) -> bool,
    }

    struct Work(Arc<Site>);

    impl Reconciler for Work {
        const WHAT: &'static str = "the test";

        fn round(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(async move {
                let round = self.0.rounds.fetch_add(1, Ordering::SeqCst);
                assert!(!(self.0.panics)(round), "as planned");
                if (self.0.fails)(round) {
                    return Err(Error::new(code::BUSY, format!("round {round}")));
                }
                Ok(())
            })
        }

        fn pause(&self) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(Duration::from_millis(10)))
        }
    }

    async fn reached(site: &Site, rounds: u32) {
        while site.rounds.load(Ordering::SeqCst) < rounds {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn rounds_go_on_and_what_lasts_is_told_until_it_is_over() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
            let (stop, stopping) = watch::channel(false);
            let site = Arc::new(Site {
                rounds: AtomicU32::new(0),
                fails: |round| (10..20).contains(&round),
                panics: |round| round == 5,
            });
            let troubles = Arc::new(Troubles::default());
            run(&rt, &site, &stopping, &troubles, Work);
            reached(&site, 10).await;
            assert!(troubles.list().is_empty(), "a panic is told elsewhere, and the next round is well");
            reached(&site, 12).await;
            assert!(troubles.list().is_empty(), "twice in a row may be chance");
            reached(&site, 15).await;
            let told = troubles.list();
            assert!(told.len() == 1 && told[0].0 == "the test" && told[0].1.contains("round"), "{told:?}");
            reached(&site, 22).await;
            assert!(troubles.list().is_empty(), "it is over");
            stop.send_replace(true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let rounds = site.rounds.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(site.rounds.load(Ordering::SeqCst), rounds, "it was told to stop");
            assert_eq!(Arc::strong_count(&site), 1, "nothing holds the site");
        });
    }

    #[test]
    fn a_site_that_is_dropped_ends_its_loops() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
            let (_stop, stopping) = watch::channel(false);
            let site = Arc::new(Site { rounds: AtomicU32::new(0), fails: |_| false, panics: |_| false });
            run(&rt, &site, &stopping, &Arc::default(), Work);
            reached(&site, 2).await;
            let left = Arc::downgrade(&site);
            drop(site);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(left.upgrade().is_none());
        });
    }
}
