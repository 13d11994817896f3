//! Disks that begin as others are, at one instant: what snapshots, clones and reverts are made of (section 5 of docs/design.md).
//!
//! A cut is one record in the journal. What was acknowledged before it was asked for is before it; nothing is drained
//! and no data moves. The new disks are published by one metadata transaction behind the cut, which demands that their
//! sources still exist. The first checkpoint behind gives them trees of their own, and their records are settled.

use journal::Entry;
use meta::{Compare, KeyValue, Op, Txn};
use units::{DiskId, Seq};

use crate::checkpoint::UNSETTLED_MAX;
use crate::disk::Disk;
use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::metadata::{RACES_MAX, no_disk};
use crate::record::{Base, DiskRecord, disk_key, find};
use crate::state::State;

/// Records settled by one transaction.
const SETTLED_AT_ONCE: usize = 32;

/// A disk that is to begin as another is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The disk that is there.
    pub source: DiskId,
    /// The disk to be made, a number of [`Engine::new_disk_id`].
    pub target: DiskId,
    /// Whether the new disk never changes.
    pub read_only: bool,
}

/// Disks that are to begin as others are, and the transaction that publishes them.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// What else it demands and does.
    pub txn: Txn,
    /// The disks.
    pub forks: Vec<Fork>,
}

/// Disks to be removed with a transaction.
pub(crate) struct Removal {
    remove: Vec<DiskId>,
    /// Those whose record stays.
    buried: Vec<DiskId>,
    /// What it relies on.
    compares: Vec<Compare>,
}

impl Removal {
    /// The transaction is done.
    pub(crate) fn done(self, state: &mut State) {
        for disk in self.remove {
            if !self.buried.contains(&disk) {
                state.unsettled.remove(&disk);
            }
            state.delete(disk);
            // One at rest was not in RAM.
            (state.may_have_garbage, state.disks_deleted, state.garbage_left) = (true, true, None);
        }
        state.tombstones.extend(self.buried);
    }
}

/// Targets the journal's sink has made and no record names yet: without one they go again.
struct Unpublished<'a> {
    shared: &'a Shared,
    targets: Vec<DiskId>,
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        self.targets.iter().for_each(|target| state.delete(*target));
    }
}

impl Engine {
    /// Makes disks that begin as others are at this instant, all the same one, by a metadata transaction that may remove
    /// disks and change other keys; false when one of the transaction's own compares failed and nothing was done.
    /// A write that was acknowledged before is in them; one under way may be. Costs the same whatever the disks hold.
    ///
    /// # Errors
    /// `NotFound` when a source is not there; `Busy` while too many new disks wait for a checkpoint; when the journal or
    /// the metadata store does not take it.
    pub async fn fork(&self, txn: Txn, forks: &[Fork], remove: &[DiskId]) -> Result<bool, EngineError> {
        let (engine, part, remove) = (self.clone(), Part { txn, forks: forks.to_vec() }, remove.to_vec());
        let work = async move { engine.fork_to_the_end(&[part], &remove).await };
        Ok(self.to_the_end("fork", work).await? == 1)
    }

    /// The same for more disks than one transaction takes: all begin at one instant, each part is published by a
    /// transaction of its own, in order. Gives how many parts were: fewer than all when a compare of the next one's own
    /// failed. Its caller takes those back; after a crash as well, for which the first part leaves a note.
    ///
    /// # Errors
    /// As [`Engine::fork`]. Some parts may have been published then.
    pub async fn fork_in_parts(&self, parts: Vec<Part>) -> Result<usize, EngineError> {
        let engine = self.clone();
        self.to_the_end("fork", async move { engine.fork_to_the_end(&parts, &[]).await }).await
    }

    async fn fork_to_the_end(&self, parts: &[Part], remove: &[DiskId]) -> Result<usize, EngineError> {
        self.check_writable()?;
        let forks = || parts.iter().flat_map(|part| &part.forks);
        self.make_way(forks().count()).await?;
        let sources = forks().map(|fork| fork.source).collect();
        let _stay = self.shared.departures.enter(sources, remove.to_vec()).await;
        let _gate = self.shared.fork_gate.read().await;
        for _ in 0..RACES_MAX {
            if let Some(done) = self.try_fork(parts, remove).await? {
                return Ok(done);
            }
        }
        Err(EngineError::new(EngineErrorKind::Busy, "others keep changing these disks: try again"))
    }

    /// `None` when another changed the sources before anything was published.
    async fn try_fork(&self, parts: &[Part], remove: &[DiskId]) -> Result<Option<usize>, EngineError> {
        let mut bases: Vec<Vec<Option<DiskRecord>>> = Vec::new();
        for part in parts {
            let mut of_part = Vec::new();
            for fork in &part.forks {
                of_part.push(self.settled(fork.source).await?);
            }
            bases.push(of_part);
        }
        let forks = parts.iter().flat_map(|part| &part.forks);
        let live = forks.zip(bases.iter().flatten()).filter(|(_, base)| base.is_none());
        let live: Vec<journal::Fork> =
            live.map(|(fork, _)| journal::Fork { source: fork.source, target: fork.target }).collect();
        let targets = live.iter().map(|fork| fork.target).collect();
        let cut = if live.is_empty() { Seq(0) } else { self.cut(live).await? };
        let mut unpublished = Unpublished { shared: &self.shared, targets };
        for (at, (part, bases)) in parts.iter().zip(&bases).enumerate() {
            let mut done = None;
            // What begins at this cut is published as of it, however often others are faster.
            for _ in 0..if at == 0 { 1 } else { RACES_MAX } {
                done = self.publish_part(part, bases, cut, remove, &mut unpublished).await?;
                if done.is_some() {
                    break;
                }
            }
            match done {
                Some(true) => {}
                None if at == 0 => return Ok(None),
                Some(false) | None => return Ok(Some(at)),
            }
        }
        Ok(Some(parts.len()))
    }

    /// Publishes what a cut made; `None` when another changed the sources meanwhile.
    async fn publish_part(
        &self,
        part: &Part,
        bases: &[Option<DiskRecord>],
        cut: Seq,
        remove: &[DiskId],
        unpublished: &mut Unpublished<'_>,
    ) -> Result<Option<bool>, EngineError> {
        let Part { txn, forks } = part;
        let sources = self.sources(forks).await?;
        let mut all = txn.clone();
        for ((fork, base), (kv, source)) in forks.iter().zip(bases).zip(&sources) {
            // A source that came to stand on its own before the cut has left RAM: the cut made nothing of it.
            let (bytes, base) = match (base, self.disk_bytes(fork.target)) {
                (Some(settled), _) => (source.bytes, settled.base),
                (None, Some(bytes)) => (bytes, Base::Cut { source: fork.source, cut }),
                (None, None) => return Ok(None),
            };
            let (key, record) = (disk_key(fork.target)?, DiskRecord::new(bytes, fork.read_only, base));
            all = all.when(Compare::absent(key.clone())).then(Op::put(key, record.encode()));
            if !remove.contains(&fork.source) && !all.compares.iter().any(|compare| compare.key == kv.key) {
                all = all.when(Compare::unchanged(kv.key.clone(), kv.mod_revision));
            }
        }
        let (all, removal) = self.with_removal(all, remove).await?;
        if self.shared.decided(all).await?.succeeded {
            unpublished.targets.retain(|target| !forks.iter().any(|fork| fork.target == *target));
            let mut state = self.shared.lock();
            for (fork, base) in forks.iter().zip(bases) {
                state.publish(fork, base.as_ref());
            }
            removal.done(&mut state);
            drop(state);
            self.clean_when_low();
            return Ok(Some(true));
        }
        let revisions = |sources: &[(KeyValue, DiskRecord)]| -> Vec<_> {
            sources.iter().map(|(kv, _)| kv.mod_revision).collect()
        };
        let same = revisions(&self.sources(forks).await?) == revisions(&sources);
        Ok((same && self.still_holds(&removal).await?).then_some(false))
    }

    /// Each disk that has no tree of its own yet is kept in RAM: there may be so many.
    async fn make_way(&self, more: usize) -> Result<(), EngineError> {
        let too_many = || self.shared.lock().unsettled.len() + more > 2 * UNSETTLED_MAX;
        if too_many() {
            self.take_checkpoint().await?;
        }
        if too_many() {
            let reason = "too many new disks wait for a checkpoint: try again in a moment";
            return Err(EngineError::new(EngineErrorKind::Busy, reason));
        }
        Ok(())
    }

    /// The record of a read-only disk that stands on its own; `None` when the disk must be cut.
    async fn settled(&self, disk: DiskId) -> Result<Option<DiskRecord>, EngineError> {
        let (_, record) = find(&*self.meta(), disk).await?.ok_or_else(|| no_disk(disk))?;
        Ok((record.read_only && matches!(record.base, Base::Root(_))).then_some(record))
    }

    async fn sources(&self, forks: &[Fork]) -> Result<Vec<(KeyValue, DiskRecord)>, EngineError> {
        let mut sources = Vec::new();
        for fork in forks {
            let found = find(&*self.meta(), fork.source).await?;
            sources.push(found.ok_or_else(|| no_disk(fork.source))?);
        }
        Ok(sources)
    }

    /// Makes a cut durable; the journal's sink has made the targets when it returns.
    pub(crate) async fn cut(&self, forks: Vec<journal::Fork>) -> Result<Seq, EngineError> {
        let _under_way = self.admit(0).await?;
        let append = self.shared.journal()?.append(vec![Entry::Cut(forks)]);
        match append.await {
            Ok(behind) => Ok(Seq(behind?.0.saturating_sub(1))),
            Err(_) => Err(EngineError::new(EngineErrorKind::Closed, "the journal is gone")),
        }
    }

    /// Adds the removal of disks to a transaction. The record of one that others began as stays until they are settled:
    /// recovery needs it.
    pub(crate) async fn with_removal(
        &self,
        txn: Txn,
        remove: &[DiskId],
    ) -> Result<(Txn, Removal), EngineError> {
        let callers = txn.compares.len();
        let mut txn = self.check_held(txn, remove).await?;
        let mut buried = Vec::new();
        for disk in remove {
            let key = disk_key(*disk)?;
            let needed = self.shared.lock().is_needed(*disk, remove);
            self.shared.maybe_yield().await;
            let found = if needed { find(&*self.meta(), *disk).await? } else { None };
            match found {
                Some((kv, record)) => {
                    buried.push(*disk);
                    let record = DiskRecord { gone: true, ..record };
                    let put = Op::put(kv.key.clone(), record.encode());
                    txn = txn.when(Compare::unchanged(kv.key, kv.mod_revision)).then(put);
                }
                None => txn = txn.then(Op::delete(&key)),
            }
        }
        let compares = txn.compares[callers..].to_vec();
        Ok((txn, Removal { remove: remove.to_vec(), buried, compares }))
    }

    /// Whether a transaction with this removal failed for its caller's compares. Else records changed meanwhile, as a
    /// checkpoint does to those of disks that begin to stand on their own, and it is tried again.
    pub(crate) async fn still_holds(&self, removal: &Removal) -> Result<bool, EngineError> {
        let look = Txn { compares: removal.compares.clone(), ..Txn::default() };
        Ok(removal.compares.is_empty() || self.meta().txn(look).await?.succeeded)
    }

    /// Behind a checkpoint: disks that are in it stand on their own, and their records say so. What fails is done behind
    /// the next.
    pub(crate) async fn settle(&self) {
        let due = self.shared.lock().due();
        self.shared.maybe_yield().await;
        for some in due.chunks(SETTLED_AT_ONCE) {
            if let Err(error) = self.settle_some(some).await {
                tracing::warn!(%error, "the records of new disks are settled behind the next checkpoint");
                return;
            }
        }
        let free = self.shared.lock().free_tombstones();
        self.shared.maybe_yield().await;
        for some in free.chunks(SETTLED_AT_ONCE) {
            let delete = some.iter().map(|disk| Ok(Op::delete(&disk_key(*disk)?)));
            let deleted = match delete.collect::<Result<Vec<Op>, EngineError>>() {
                Ok(then) => self.shared.decided(Txn { then, ..Txn::default() }).await,
                Err(error) => Err(error),
            };
            match deleted {
                Ok(_) => {
                    let mut state = self.shared.lock();
                    for disk in some {
                        state.tombstones.remove(disk);
                        state.unsettled.remove(disk);
                    }
                }
                Err(error) => return tracing::warn!(%error, "records of deleted disks stay for now"),
            }
        }
    }

    async fn settle_some(&self, disks: &[DiskId]) -> Result<(), EngineError> {
        let _gate = self.shared.fork_gate.read().await;
        let mut txn = Txn::new();
        let mut settled = Vec::new();
        for disk in disks {
            let Some((kv, record)) = find(&*self.meta(), *disk).await? else { continue };
            let Some(base) = self.shared.lock().own_base(*disk) else { continue };
            let put = Op::put(kv.key.clone(), DiskRecord { base, ..record }.encode());
            txn = txn.when(Compare::unchanged(kv.key, kv.mod_revision)).then(put);
            settled.push(*disk);
        }
        if self.shared.decided(txn).await?.succeeded {
            let mut state = self.shared.lock();
            settled.iter().for_each(|disk| state.settled(*disk));
        }
        Ok(())
    }

    /// Takes a disk into use; one that never changes may not be in RAM yet. It stays usable until the handle goes.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn open_disk(&self, disk: DiskId) -> Result<OpenDisk, EngineError> {
        self.shared.lock().doubt.check(disk)?;
        let _stay = self.shared.departures.enter(vec![disk], Vec::new()).await;
        let resident = self.shared.lock().open(disk);
        if !resident {
            let (_, record) = find(&*self.meta(), disk).await?.ok_or_else(|| no_disk(disk))?;
            let Base::Root(root) = record.base else { return Err(no_disk(disk)) };
            let mut state = self.shared.lock();
            let (bytes, read_only) = (record.bytes, record.read_only);
            state.disks.entry(disk).or_insert_with(|| Disk { bytes, root, read_only, ..Disk::default() });
            state.open(disk);
        }
        Ok(OpenDisk { engine: self.clone(), disk })
    }
}

/// A disk in use.
#[derive(Debug)]
pub struct OpenDisk {
    engine: Engine,
    disk: DiskId,
}

impl OpenDisk {
    /// The disk.
    pub fn id(&self) -> DiskId {
        self.disk
    }
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        self.engine.shared.lock().close(self.disk);
    }
}

impl State {
    /// Disks that are in use stay so when another opening's state takes the place of `before`.
    pub(crate) fn keep_open(&mut self, before: &Self) {
        for (id, disk) in before.disks.iter().filter(|(_, disk)| disk.users > 0) {
            if let Some(found) = self.disks.get_mut(id) {
                found.users = disk.users;
            } else if disk.read_only && disk.is_flat() && !before.unsettled.contains_key(id) {
                let Disk { bytes, root, read_only, users, .. } = *disk;
                self.disks.insert(*id, Disk { bytes, root, read_only, users, ..Disk::default() });
            }
        }
    }

    fn publish(&mut self, fork: &Fork, settled: Option<&DiskRecord>) {
        match settled {
            None => {
                self.unsettled.insert(fork.target, Some(fork.source));
                if let Some(target) = self.disks.get_mut(&fork.target) {
                    target.read_only = fork.read_only;
                }
            }
            Some(DiskRecord { bytes, base: Base::Root(root), .. }) if !fork.read_only => {
                self.unsettled.insert(fork.target, None);
                self.disks.insert(fork.target, Disk { bytes: *bytes, root: *root, ..Disk::default() });
            }
            Some(_) => {}
        }
    }

    /// Whether recovery needs the record of a disk for others than those that go with it.
    fn is_needed(&self, disk: DiskId, leaving: &[DiskId]) -> bool {
        let needs = |(target, source): (&DiskId, &Option<DiskId>)| {
            *source == Some(disk) && (!leaving.contains(target) || self.is_needed(*target, leaving))
        };
        self.unsettled.iter().any(needs) || self.tombstones.iter().any(|tombstone| *tombstone == disk)
    }

    /// Unsettled disks that the last checkpoint has.
    fn due(&self) -> Vec<DiskId> {
        self.unsettled.keys().copied().filter(|disk| self.own_base(*disk).is_some()).collect()
    }

    /// What the record of a disk says once it stands on its own; `None` while it does not.
    fn own_base(&self, disk: DiskId) -> Option<Base> {
        let found = self.disks.get(&disk).filter(|found| found.listed && !found.gone)?;
        match found.read_only {
            false => Some(Base::Empty),
            true => found.is_flat().then_some(Base::Root(found.root)),
        }
    }

    fn settled(&mut self, disk: DiskId) {
        self.unsettled.remove(&disk);
        if self.disks.get(&disk).is_some_and(|found| found.read_only && found.users == 0) {
            self.forget(disk);
        }
    }

    /// Deleted disks that no unsettled disk began as.
    fn free_tombstones(&self) -> Vec<DiskId> {
        let needed = |disk: &DiskId| self.unsettled.values().any(|source| *source == Some(*disk));
        self.tombstones.iter().copied().filter(|disk| !needed(disk)).collect()
    }

    fn open(&mut self, disk: DiskId) -> bool {
        let found = self.disks.get_mut(&disk).filter(|found| !found.gone);
        found.map(|found| found.users += 1).is_some()
    }

    fn close(&mut self, disk: DiskId) {
        let Some(found) = self.disks.get_mut(&disk) else { return };
        found.users = found.users.saturating_sub(1);
        if found.users == 0 && found.read_only && found.is_flat() && !self.unsettled.contains_key(&disk) {
            self.forget(disk);
        }
    }
}
