//! Key epochs retire: what is sealed under an earlier one is sealed anew (section 3 of docs/design.md).
//!
//! When the sealer has a new epoch the write buffer is flushed, and all containers there are then make up the
//! **retiring** ones: a record in the metadata store, under `reseal/`, keeps them over a restart. Duplicates found in them
//! count as misses, checkpoints reuse none of their pieces, and cycles of the cleaner move what is live in them, sealed
//! anew, until none is left. Records in the journal go with its segments.
//!
//! What the media have locked stays where it is (decision 0010): a resealing that finds nothing else left has done what it
//! can, and says until when. Whoever asked keeps the earlier keys until then and asks again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use meta::{Key, Op, Shard, Store, Table, Txn};
use serde::{Deserialize, Serialize};
use units::{ContainerId, Incarnation};

use crate::clean::Choice;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::progress::Progress;
use crate::state::State;

const RESEAL: Table<Shard> = Table::new("reseal");
const VERSION: u8 = 2;
/// Cycles after which it is given up for now: each leaves only what was hit or anchored meanwhile.
const CYCLES_MAX: usize = 8;
/// How often, and how long apart, the journal is asked to leave its old segments while guests write: the next flushes
/// cover them in any case.
const LEAVE_TRIES: u32 = 50;
const LEAVE_PAUSE: Duration = Duration::from_millis(100);

/// Pause between looks at whether all that was sealed before has arrived.
const SEALING_PAUSE: Duration = Duration::from_millis(5);

/// Epochs told apart: more than a site has at once.
const COUNTS: usize = 16;

/// How many writes and records are under way, by key epoch.
#[derive(Debug, Default)]
pub(crate) struct SealingCounts([AtomicU32; COUNTS]);

/// A write or record on its way to the journal.
pub(crate) struct Sealing<'a>(&'a AtomicU32);

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SealingCounts {
    /// Whether anything is under way that began before `epoch` came.
    fn is_any_before(&self, epoch: u16) -> bool {
        // Behind the change of the epoch: who counts itself later seals under the new one.
        fence(Ordering::SeqCst);
        let now = usize::from(epoch) % COUNTS;
        self.0.iter().enumerate().any(|(slot, count)| slot != now && count.load(Ordering::SeqCst) > 0)
    }
}

impl Shared {
    /// Counts something that is about to be sealed, until it is durable in the journal.
    pub(crate) fn begin_sealing(&self) -> Sealing<'_> {
        let count = &self.sealing.0[usize::from(self.sealer.key_epoch()) % COUNTS];
        count.fetch_add(1, Ordering::SeqCst);
        Sealing(count)
    }
}

/// What a resealing leaves: containers that the media have locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How many.
    pub containers: u64,
    /// When the last of the locks ends, site time in ms.
    pub until_ms: u64,
}

/// What retires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retiring {
    version: u8,
    /// The epoch that everything is sealed under when this is done.
    epoch: u16,
    ends: Vec<(Incarnation, u32)>,
}

impl Retiring {
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(value) {
            Ok((record, [])) if record.version == VERSION => Some(record),
            _ => None,
        }
    }
}

fn key() -> Result<Key, EngineError> {
    Ok(RESEAL.key().number(0).end()?)
}

/// Containers by incarnation: those with lower numbers. While the line is drawn none is on its way, and numbers only grow:
/// so the record has no part of the ledger in it, however many gaps that has.
pub(crate) type Ends = BTreeMap<Incarnation, u32>;

impl State {
    /// Whether a container may hold units of a retired key epoch.
    pub(crate) fn is_retiring(&self, id: ContainerId) -> bool {
        self.retiring.get(&id.incarnation).is_some_and(|end| id.number < *end)
    }

    /// Retiring containers that are still there.
    fn retiring_left(&self) -> u64 {
        let left = |(incarnation, end): (&Incarnation, &u32)| {
            let committed = self.ledger.get(incarnation)?;
            Some(committed.iter().map(|(a, b)| u64::from((*b).min(*end).saturating_sub(*a))).sum::<u64>())
        };
        self.retiring.iter().filter_map(left).sum()
    }
}

impl Engine {
    /// What seals and opens.
    pub fn sealer(&self) -> &std::sync::Arc<seal::Sealer> {
        &self.shared.sealer
    }

    /// Seals everything anew that is sealed under an earlier key epoch than the newest; afterwards nothing on the media
    /// needs those keys but what is given, which the media have locked. Goes on where it was interrupted. `progress` counts
    /// bytes of containers, anew in each cycle.
    ///
    /// # Errors
    /// `Cancelled`; `Busy` when containers are left that something still needs: another run goes on. When something
    /// cannot be read or written.
    pub async fn reseal(&self, progress: &Progress) -> Result<Option<Kept>, EngineError> {
        self.check_writable()?;
        self.retire_containers().await?;
        for _ in 0..CYCLES_MAX {
            progress.check()?;
            self.drain().await?;
            self.take_checkpoint().await?;
            self.leave_backlogs().await?;
            if self.shared.lock().retiring_left() == 0 {
                return self.leave_old_segments().await.map(|()| None);
            }
            if let Some(kept) = self.all_left_is_locked().await {
                return Ok(Some(kept));
            }
            let is_retiring = |id| self.shared.lock().is_retiring(id);
            self.clean_chosen(
                &Choice { garbage_percent: 100, also: &is_retiring, also_locked: false },
                progress,
            )
            .await?;
        }
        let left = self.shared.lock().retiring_left();
        let reason = format!("{left} containers with an earlier key are still needed: another run goes on");
        Err(EngineError::new(EngineErrorKind::Busy, reason))
    }

    /// What an interrupted [`Engine::reseal`] waits for, when nothing is left for it but what the media have locked.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn reseal_waits_for(&self) -> Result<Option<Kept>, EngineError> {
        let known = self.meta().get(&key()?).await?.kv.and_then(|kv| Retiring::decode(&kv.value));
        match known.is_some_and(|known| known.epoch == self.shared.sealer.key_epoch()) {
            true => Ok(self.all_left_is_locked().await),
            false => Ok(None),
        }
    }

    /// What is left to retire, when the media have all of it locked.
    async fn all_left_is_locked(&self) -> Option<Kept> {
        let locks = self.shared.pool.locks().await;
        let state = self.shared.lock();
        let is_left = |id: &ContainerId| state.is_committed(*id) && state.is_retiring(*id);
        let left: Vec<u64> = locks.iter().filter(|(id, _)| is_left(id)).map(|(_, until)| *until).collect();
        let containers = left.len() as u64;
        let until_ms = left.into_iter().max()?;
        (containers == state.retiring_left()).then_some(Kept { containers, until_ms })
    }

    /// Whether an interrupted [`Engine::reseal`] is to go on.
    pub fn is_resealing(&self) -> bool {
        !self.shared.lock().retiring.is_empty()
    }

    /// Draws the line: what is there now retires.
    async fn retire_containers(&self) -> Result<(), EngineError> {
        let epoch = self.shared.sealer.key_epoch();
        let known = self.meta().get(&key()?).await?.kv.and_then(|kv| Retiring::decode(&kv.value));
        if known.is_some_and(|known| known.epoch == epoch) && self.is_resealing() {
            return Ok(());
        }
        self.shared.maybe_yield().await;
        self.old_seals_arrived(epoch).await?;
        // Blocks in the buffer were sealed before.
        self.drain().await?;
        let ends = {
            // Nothing is on its way to a container.
            let _cleaning = self.shared.cleaning.lock().await;
            let _checkpoint = self.shared.checkpointing.lock().await;
            let _gate = self.shared.flush_gate.lock().await;
            let _telling = self.shared.telling.lock().await;
            let mut state = self.shared.lock();
            state.retiring = state.ledger_ends();
            state.retiring.iter().map(|(incarnation, end)| (*incarnation, *end)).collect()
        };
        let record = Retiring { version: VERSION, epoch, ends };
        let value = postcard::to_stdvec(&record).expect("plain values always encode");
        self.shared.decided(Txn::new().then(Op::put(key()?, value))).await?;
        Ok(())
    }

    /// A backlog in the log that was sealed before is told anew.
    async fn leave_backlogs(&self) -> Result<(), EngineError> {
        let is_retiring = {
            let state = self.shared.lock();
            let mut pieces = state.backlogs.iter().flat_map(|(_, pieces)| pieces.iter());
            pieces.any(|piece| state.is_retiring(piece.address.container))
        };
        self.shared.maybe_yield().await;
        if is_retiring { self.tell_backlog().await } else { Ok(()) }
    }

    /// Waits until what was sealed before `epoch` is in the journal, and so in the write buffer.
    async fn old_seals_arrived(&self, epoch: u16) -> Result<(), EngineError> {
        while self.shared.sealing.is_any_before(epoch) {
            if self.shared.lock().closed {
                return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
            }
            self.shared.rt.sleep(SEALING_PAUSE).await;
        }
        // Those whose client is gone are queued all the same, before this.
        self.cut(Vec::new()).await?;
        Ok(())
    }

    /// The record goes, and the journal goes on in a new segment, so that those with what was sealed before can go.
    async fn leave_old_segments(&self) -> Result<(), EngineError> {
        self.shared.decided(Txn::new().then(Op::delete(&key()?))).await?;
        self.shared.lock().retiring.clear();
        let line = self.shared.lock().next_seq;
        for _ in 0..LEAVE_TRIES {
            self.drain().await?;
            self.take_checkpoint().await?;
            {
                let _gate = self.shared.flush_gate.lock().await;
                self.relieve_journal().await?;
            }
            self.shared.maybe_yield().await;
            let told = self.shared.journal()?.told().before;
            if self.shared.lock().covered.min(told) >= line {
                break;
            }
            self.shared.rt.sleep(LEAVE_PAUSE).await;
        }
        Ok(())
    }
}

/// What was being retired when the metadata store was last written.
pub(crate) async fn retiring(meta: &std::sync::Arc<meta::Embedded>) -> Result<Ends, EngineError> {
    let Some(kv) = meta.get(&key()?).await?.kv else { return Ok(Ends::new()) };
    let damaged =
        || EngineError::new(EngineErrorKind::Lost, "the record of retiring containers makes no sense");
    let record = Retiring::decode(&kv.value).ok_or_else(damaged)?;
    Ok(record.ends.into_iter().collect())
}
