//! Recovery, second half: from what the journal says to the engine's state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use container::{Change, Head, MapLog, PRELUDE_BYTES};
use journal::{Backlog, BacklogAt, CheckpointPointer, Commit, Deleted, MetaPiece, Record, Recovered, Root};
use pool::Pool;
use seal::{Kind, Sealer};
use units::{DiskId, Fingerprint, Lba, Seq};

use crate::backlog::{Kept, decode_backlog};
use crate::body::Body;
use crate::disk::Disk;
use crate::engine::Shared;
use crate::error::{EngineError, EngineErrorKind};
use crate::generation::Buffered;
use crate::losses::Losses;
use crate::metadata::JournalPersist;
use crate::record::{Base, DiskRecord};
use crate::sink::{buffer, make_room};
use crate::state::{MapChange, State};

/// Map logs read at a time.
const READ_AHEAD: usize = 8;
/// Pieces of a checkpoint or backlog read at a time.
const PIECES_AHEAD: usize = 32;

/// What the journal says, sorted.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) checkpoint: Option<CheckpointPointer>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) meta: Vec<(Seq, Fingerprint, Vec<u8>)>,
    pub(crate) covered: Seq,
    pub(crate) data: Vec<(Seq, Record)>,
    /// Containers deleted since the ledger was written: no id is used twice, so their order does not matter.
    pub(crate) deleted: Vec<Deleted>,
    /// Those deleted since the checkpoint: its totals count them.
    pub(crate) uncounted: Vec<Deleted>,
}

impl Story {
    /// What was recovered, behind a backlog that may have stood in the log.
    pub(crate) fn of(recovered: &mut Recovered, backlog: Backlog) -> Self {
        let Backlog { commits, meta, deleted } = backlog;
        let mut story = Self {
            checkpoint: recovered.told.checkpoint.clone(),
            commits,
            meta,
            covered: recovered.start.covered,
            deleted: deleted.clone(),
            uncounted: deleted,
            ..Self::default()
        };
        for (seq, record) in std::mem::take(&mut recovered.records) {
            match record {
                Record::Write { .. } | Record::Hole { .. } | Record::Cut(_) => story.data.push((seq, record)),
                Record::Meta { fingerprint, unit } => story.meta.push((seq, fingerprint, unit)),
                Record::Commit(commit) => {
                    story.covered = story.covered.max(commit.covered);
                    story.commits.push(commit);
                }
                Record::Checkpoint(pointer) => {
                    // One from before what the newest start record names was counted then, and is now.
                    if pointer.number >= story.checkpoint.as_ref().map_or(0, |pointer| pointer.number) {
                        story.checkpoint = Some(pointer);
                        story.uncounted.clear();
                    }
                }
                Record::Delete(deleted) => {
                    story.deleted.extend(&deleted);
                    story.uncounted.extend(deleted);
                }
                Record::Row(_) | Record::Backlog(_) | Record::Start(_) => {}
            }
        }
        if let Some(pointer) = &story.checkpoint {
            story.commits.retain(|commit| commit.ordinal >= pointer.commits_before);
            story.meta.retain(|(seq, ..)| *seq >= pointer.meta_before);
        }
        story.commits.sort_by_key(|commit| commit.ordinal);
        let covered = story.covered;
        story.data.retain(|(seq, _)| *seq >= covered);
        story
    }
}

/// The rows of the layout, as they were recovered.
pub(crate) fn rows_of(recovered: &Recovered) -> Vec<journal::Row> {
    let found = recovered.records.iter().filter_map(|(_, record)| match record {
        Record::Row(row) => Some(row),
        _ => None,
    });
    recovered.start.rows.iter().chain(found).cloned().collect()
}

/// The backlog, which may stand in the log: then with the pieces that reading it took.
pub(crate) async fn read_backlog(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    recovered: &Recovered,
) -> Result<(Backlog, Vec<Kept>), EngineError> {
    let BacklogAt::Log(pointer) = &recovered.told.backlog else {
        return Ok((recovered.backlog.clone(), Vec::new()));
    };
    let (bytes, pieces) = read_tree(pool, sealer, &pointer.root).await?;
    let broken = || EngineError::new(EngineErrorKind::Lost, "the backlog does not decode");
    let backlog = decode_backlog(&bytes).ok_or_else(broken)?;
    Ok((backlog, vec![(pointer.told, pieces)]))
}

/// Reads and checks the checkpoint object; gives also every piece that this took.
pub(crate) async fn read_body(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    pointer: &CheckpointPointer,
) -> Result<(Body, Arc<[MetaPiece]>), EngineError> {
    let broken =
        || EngineError::new(EngineErrorKind::Lost, format!("checkpoint {} does not decode", pointer.number));
    let (bytes, pieces) = read_tree(pool, sealer, &pointer.root).await?;
    Ok((Body::decode(&bytes).ok_or_else(broken)?, pieces))
}

/// The bytes that a root leads to, and every piece that this took.
async fn read_tree(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    root: &Root,
) -> Result<(Vec<u8>, Arc<[MetaPiece]>), EngineError> {
    let (mut level, mut all) = (vec![root.piece], Vec::new());
    for _ in 0..root.levels {
        let list = read_pieces(pool, sealer, &level).await?;
        all.append(&mut level);
        let Ok((below, [])) = postcard::take_from_bytes::<Vec<MetaPiece>>(&list) else {
            return Err(EngineError::new(EngineErrorKind::Lost, "a list of pieces does not decode"));
        };
        level = below;
    }
    let bytes = read_pieces(pool, sealer, &level).await?;
    all.append(&mut level);
    Ok((bytes, all.into()))
}

async fn read_pieces(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    pieces: &[MetaPiece],
) -> Result<Vec<u8>, EngineError> {
    let read = |piece: &MetaPiece| {
        let MetaPiece { fingerprint, address } = *piece;
        async move {
            let mut plain = Vec::new();
            let mut check = |unit: &[u8]| sealer.open(Kind::Meta, fingerprint, unit, &mut plain).is_ok();
            pool.read_unit(&address, &mut check).await.map(|()| plain)
        }
    };
    let mut bytes = Vec::new();
    for some in pieces.chunks(PIECES_AHEAD) {
        for plain in seam::join_all(some.iter().map(read)).await {
            bytes.extend_from_slice(&plain?);
        }
    }
    Ok(bytes)
}

/// A disk that begins as another was at a cut, and is to be made when the story has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pending {
    pub(crate) cut: Seq,
    pub(crate) target: DiskId,
    pub(crate) source: DiskId,
    pub(crate) bytes: u64,
    pub(crate) read_only: bool,
    pub(crate) gone: bool,
}

/// What the metadata store says of disks, as the story needs it.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    /// In the order of their cuts.
    pub(crate) pending: VecDeque<Pending>,
    /// Trees of disks that never change and are not in RAM.
    pub(crate) at_rest: BTreeMap<DiskId, Option<map::Root>>,
}

impl Cast {
    /// Sorts what the metadata store says: disks that are there from the start go into `state`. The disks that the
    /// checkpoint lists are as it says; the others are as their records say.
    pub(crate) fn new(
        records: Vec<(DiskId, DiskRecord)>,
        listed: &BTreeMap<DiskId, Option<map::Root>>,
        state: &mut State,
    ) -> Self {
        let mut cast = Self::default();
        let mut pending = Vec::new();
        for (id, record) in records {
            let DiskRecord { bytes, read_only, gone, base, .. } = record;
            if gone {
                state.tombstones.insert(id);
            }
            match base {
                Base::Root(root) if read_only => {
                    cast.at_rest.insert(id, root);
                    continue;
                }
                Base::Root(_) => drop(state.unsettled.insert(id, None)),
                Base::Cut { source, .. } => drop(state.unsettled.insert(id, Some(source))),
                Base::Empty => {}
            }
            let root = match (listed.get(&id), base) {
                (Some(root), _) => *root,
                (None, Base::Cut { source, cut }) => {
                    pending.push(Pending { cut, target: id, source, bytes, read_only, gone });
                    continue;
                }
                (None, Base::Root(root)) => root,
                (None, Base::Empty) => None,
            };
            let listed = listed.contains_key(&id);
            state.disks.insert(id, Disk { bytes, root, read_only, gone, listed, ..Disk::default() });
        }
        pending.sort_unstable();
        cast.pending = pending.into();
        cast
    }

    /// Makes the disks whose cut is at `seq` or before.
    pub(crate) fn come(
        &mut self,
        state: &mut State,
        seq: Seq,
        losses: &mut Losses,
    ) -> Result<(), EngineError> {
        while let Some(next) = self.pending.pop_front_if(|next| next.cut <= seq) {
            let Pending { cut, target, source, bytes, read_only, gone } = next;
            if !state.fork(source, target, cut) {
                let reason = format!("disk {} began as disk {}, which nothing tells of", target.0, source.0);
                let root = match self.at_rest.get(&source) {
                    Some(root) => *root,
                    None => {
                        losses.meet(EngineError::new(EngineErrorKind::Lost, reason))?;
                        if !losses.are_accepted() {
                            continue;
                        }
                        None
                    }
                };
                state.disks.insert(target, Disk { root, ..Disk::default() });
            }
            if let Some(disk) = state.disks.get_mut(&target) {
                (disk.bytes, disk.read_only, disk.gone) = (bytes, read_only, gone);
            }
        }
        Ok(())
    }
}

/// Applies the map logs of `commits`, in order.
pub(crate) async fn replay(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    state: &mut State,
    commits: &[Commit],
    cast: &mut Cast,
    losses: &mut Losses,
) -> Result<(), EngineError> {
    for some in commits.chunks(READ_AHEAD) {
        let changes = seam::join_all(some.iter().map(|commit| changes_of(pool, sealer, commit))).await;
        for (commit, changes) in some.iter().zip(changes) {
            let mut commit = commit.clone();
            match changes {
                Ok(changes) => {
                    for (seq, change) in changes {
                        cast.come(state, seq, losses)?;
                        state.apply(&change);
                    }
                }
                Err(error) => {
                    losses.meet(error)?;
                    if losses.are_accepted() {
                        // Nobody looks for it again.
                        commit.map_log_bytes = 0;
                    }
                }
            }
            cast.come(state, commit.covered, losses)?;
            state.commit(commit);
        }
    }
    Ok(())
}

async fn changes_of(
    pool: &Pool,
    sealer: &Arc<Sealer>,
    commit: &Commit,
) -> Result<Vec<(Seq, MapChange)>, EngineError> {
    if commit.map_log_bytes == 0 {
        return Ok(Vec::new());
    }
    let pages = Pool::fragment_pages(commit.container.class, commit.total);
    let mut first = Vec::new();
    let mut keep = |bytes: &[u8]| {
        first = bytes.to_vec();
        Head::peek(bytes).is_ok_and(|place| place == commit.place())
    };
    pool.read(commit.container, pages, 0, PRELUDE_BYTES, &mut keep).await?;
    let (tail, log) = (commit.place().tail(), commit.place().map_log());
    let mut found = None;
    let mut plain = Vec::new();
    let mut check = |bytes: &[u8]| {
        let (directory, unit) = bytes.split_at(log.start - tail.start);
        let head = Head::decode(&first, directory).ok().filter(|head| head.container == commit.container);
        let opened = sealer.open(Kind::MapLog, commit.map_log, unit, &mut plain).is_ok();
        found = head.zip(if opened { MapLog::decode(&plain).ok() } else { None });
        found.is_some()
    };
    pool.read(commit.container, pages, tail.start, tail.len(), &mut check).await?;
    let lost = || {
        EngineError::new(
            EngineErrorKind::Lost,
            format!("the map log of container {} makes no sense", commit.container),
        )
    };
    let (head, log) = found.ok_or_else(lost)?;
    log.changes
        .iter()
        .map(|change| match *change {
            Change::Put { disk, lba, slot, seq } => {
                let entry = head.entries.get(usize::from(slot)).ok_or_else(lost)?;
                let address = head.address(slot, pages).ok_or_else(lost)?;
                Ok((seq, MapChange::Put(disk, lba, entry.fingerprint, address)))
            }
            Change::Hit { disk, lba, fingerprint, address, seq } => {
                Ok((seq, MapChange::Put(disk, lba, fingerprint, address)))
            }
            Change::Hole { disk, lba, count, seq } => Ok((seq, MapChange::Hole(disk, lba, count))),
        })
        .collect()
}

/// Opens the metadata records found in the journal; what comes behind one that is lost goes with it.
fn open_meta(
    sealer: &Sealer,
    meta: &[(Seq, Fingerprint, Vec<u8>)],
    losses: &mut Losses,
) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut records = Vec::new();
    for (seq, fingerprint, unit) in meta {
        let mut plain = Vec::new();
        if let Err(error) = sealer.open(Kind::Meta, *fingerprint, unit, &mut plain) {
            let reason = format!("metadata record {}: {error}", seq.0);
            losses.meet(EngineError::new(EngineErrorKind::Lost, reason))?;
            break;
        }
        records.push(plain);
    }
    Ok(records)
}

/// The metadata store as checkpoint and journal have it. Of the journal's records in `meta` those stay that it has taken.
pub(crate) fn restore_meta(
    shared: &Arc<Shared>,
    checkpoint: Option<&[u8]>,
    meta: &mut Vec<(Seq, Fingerprint, Vec<u8>)>,
    losses: &mut Losses,
) -> Result<meta::Embedded, EngineError> {
    let records = open_meta(&shared.sealer, meta, losses)?;
    let options = meta::Options {
        record_bytes: shared.config.meta_record_bytes(),
        keys_per_chunk: shared.config.meta_keys_per_chunk,
        ..meta::Options::default()
    };
    let salvage = |checkpoint: Option<&[u8]>| {
        let persist = Arc::new(JournalPersist { shared: Arc::downgrade(shared) });
        meta::Embedded::salvage(shared.rt.clone(), persist, options, checkpoint, &records)
    };
    let (restored, taken, trouble) = match salvage(checkpoint) {
        Ok(restored) => restored,
        Err(error) => {
            losses.meet_base(error.into())?;
            salvage(None)?
        }
    };
    if let Some(error) = trouble {
        losses.meet(error.into())?;
    }
    meta.truncate(taken);
    Ok(restored)
}

/// Puts the uncovered writes back into the write buffer.
pub(crate) fn refill(
    state: &mut State,
    data: Vec<(Seq, Record)>,
    cast: &mut Cast,
    container_bytes: usize,
    losses: &mut Losses,
) -> Result<(), EngineError> {
    for (seq, record) in data {
        state.next_seq = seq;
        cast.come(state, seq, losses)?;
        match record {
            Record::Write { disk, lba, fingerprint, unit } => {
                make_room(state, unit.len(), container_bytes);
                let block = Buffered { fingerprint, unit: unit.into(), seq };
                buffer(state, disk, |state| state.active.put(disk, lba, block));
            }
            Record::Hole { disk, lba, count } => {
                make_room(state, 0, container_bytes);
                buffer(state, disk, |state| state.active.punch(disk, Lba(lba.0), count));
            }
            _ => {}
        }
        state.next_seq = seq.plus(1);
    }
    // Nothing is behind these cuts yet.
    cast.come(state, Seq(u64::MAX), losses)
}
