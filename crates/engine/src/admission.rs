//! Who may write: back-pressure in bytes, and grants of space [I10].

use journal::Journal;
use pool::Space;
use units::{BLOCK_U64, DiskId};

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, EngineErrorKind};
use crate::state::State;

/// What is said where media have room and the file systems that hold them have none.
pub const FULL_BELOW: &str =
    "the file systems that hold media are full: reads, trims and deletions go on; make room there";
/// RAM charged for a block while its write is under way: the plaintext, sealed, and its record.
const UNDER_WAY_BLOCK_BYTES: u64 = 2 * BLOCK_U64;
/// Container bytes a block may need: sealed without shrinking, directory entry, map-log change.
const GRANT_BLOCK_BYTES: u64 = BLOCK_U64 + 32 + 80;
/// Container bytes a map change may need at a checkpoint: a whole leaf page and its share of those above.
const GRANT_CHANGE_BYTES: u64 = 3584;
/// Map changes that are expected to share a leaf page, of the 64 that one holds: disks are filled in stretches, and a page is
/// written again with each checkpoint that finds it changed.
const LIKELY_NEIGHBOURS: u64 = 8;
/// Containers no write is granted: for checkpoints, trims and deletions, which need no grant, and for the cleaner.
const RESERVE_CONTAINERS: u64 = 6;
/// Containers of the reserve that the cleaner does not take either: deletions wait for checkpoints, which begin pages, body
/// and list each in one of its own.
const CHECKPOINT_CONTAINERS: u64 = 3;
/// Room in containers for a checkpoint that nothing demands: pages and body, each begun in one of its own.
const SPARE_CONTAINERS: u64 = 2;
/// Grants for map changes that are more than one part in so many of what is left call for a checkpoint: it needs far less
/// where changes are neighbours, and gives the rest back.
const CHANGES_SHARE: u64 = 4;
/// But no fewer changes than one part in so many of those that call for one in any case.
const CHANGES_LEAST_SHARE: usize = 64;
/// A write waits so many times longer while the cleaner makes room.
const PATIENCE_TIMES: u32 = 3;
/// One container in so many is reserved too.
const RESERVE_SHARE: u64 = 64;

/// A write under way; dropping it lets others in.
pub(crate) struct UnderWay<'a> {
    shared: &'a Shared,
    bytes: u64,
    blocks: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.under_way_bytes -= self.bytes;
        state.under_way_blocks -= self.blocks;
        drop(state);
        self.shared.room_wake.notify_waiters();
    }
}

impl State {
    /// Whether `length` bytes at `offset` lie in the disk.
    pub(crate) fn check(&self, disk: DiskId, offset: u64, length: u64) -> Result<(), EngineError> {
        if self.closed {
            return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
        }
        let Some(found) = self.disks.get(&disk).filter(|found| !found.gone) else {
            return Err(EngineError::new(EngineErrorKind::NotFound, format!("there is no disk {}", disk.0)));
        };
        self.doubt.check(disk)?;
        match offset.checked_add(length) {
            Some(end) if end <= found.bytes => Ok(()),
            _ => {
                let reason =
                    format!("{length} bytes at {offset} are beyond the disk's {} bytes", found.bytes);
                Err(EngineError::new(EngineErrorKind::Invalid, reason))
            }
        }
    }

    /// Container bytes the worst case of all that is granted needs.
    pub(crate) fn granted(&self) -> u64 {
        self.needed(GRANT_CHANGE_BYTES)
    }

    /// Container bytes that it needs where each map change takes `change` bytes.
    fn needed(&self, change: u64) -> u64 {
        let buffered: u64 = self.frozen.iter().map(|g| g.blocks).sum::<u64>() + self.active.blocks;
        let changes = self.map_changes() as u64;
        (buffered + self.under_way_blocks) * (GRANT_BLOCK_BYTES + change) + changes * change
    }
}

impl State {
    /// [`State::check`] for a change.
    pub(crate) fn check_change(&self, disk: DiskId, offset: u64, length: u64) -> Result<(), EngineError> {
        self.check(disk, offset, length)?;
        if self.disks.get(&disk).is_some_and(|disk| disk.read_only) {
            return Err(EngineError::new(EngineErrorKind::Invalid, format!("disk {} is read-only", disk.0)));
        }
        Ok(())
    }
}

impl Engine {
    /// Room and a grant for `blocks` blocks, when they are to be had at once.
    pub(crate) fn try_admit(&self, blocks: u64) -> Option<UnderWay<'_>> {
        if self.shared.blocked().is_some() {
            return None;
        }
        let mut state = self.shared.lock();
        let fits = !state.closed && self.shared.has_room(&state, blocks) && self.shared.fits(&state, blocks);
        fits.then(|| self.shared.enter(&mut state, blocks))
    }

    /// Waits for room in the write buffer and takes a grant for `blocks` blocks. Zero blocks, of a trim, need no grant.
    pub(crate) async fn admit(&self, blocks: u64) -> Result<UnderWay<'_>, EngineError> {
        let shared = &*self.shared;
        let mut refreshed = false;
        let mut full_since = None;
        loop {
            let room = shared.room_wake.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match shared.decide(blocks, refreshed)? {
                Decision::Enter(guard) => return Ok(guard),
                Decision::Refresh => {
                    refreshed = true;
                    shared.pool.refresh_space().await;
                }
                Decision::Wait => {
                    shared.flush_wake.notify_one();
                    room.await;
                }
                Decision::Clean(error) => {
                    let now = shared.rt.now();
                    let since = *full_since.get_or_insert(now);
                    let patience = shared.config.write_patience;
                    let until = {
                        let mut state = shared.lock();
                        state.room_wanted = true;
                        // While the cleaner makes room others may have taken it: the next may be ours.
                        (since.max(state.room_made) + patience).min(since + PATIENCE_TIMES * patience)
                    };
                    if now >= until {
                        return Err(error);
                    }
                    shared.clean_wake.notify_one();
                    shared.flush_wake.notify_one();
                    // Whatever ends the wait, the next look tells.
                    let _ = seam::timeout(&*shared.rt, until - now, room).await;
                    refreshed = false;
                }
            }
        }
    }
}

enum Decision<'a> {
    Enter(UnderWay<'a>),
    Refresh,
    Wait,
    /// The pool is full, and the cleaner may make room.
    Clean(EngineError),
}

impl Shared {
    fn decide(&self, blocks: u64, refreshed: bool) -> Result<Decision<'_>, EngineError> {
        if let Some(error) = self.blocked() {
            return Err(error);
        }
        let mut state = self.lock();
        if state.closed {
            return Err(EngineError::new(EngineErrorKind::Closed, "the engine is closed"));
        }
        if !self.has_room(&state, blocks) {
            if let Some(error) = self.stuck_for_good() {
                return Err(error);
            }
            // What is buffered may be too little for a container of its own; waiting for more would be for ever.
            if !state.has_ripe() {
                state.freeze();
            }
            return Ok(Decision::Wait);
        }
        if self.fits(&state, blocks) {
            return Ok(Decision::Enter(self.enter(&mut state, blocks)));
        }
        if !refreshed {
            return Ok(Decision::Refresh);
        }
        if self.pool.current_class().is_none() {
            // Room is counted in stripes, and none can be written: that says nothing of being full.
            let reason = "too few media are up to take a write: bring back those that are down";
            return Err(EngineError::new(EngineErrorKind::TooFewMedia, reason));
        }
        let space = self.pool.space();
        let reason = if space.containers_on_media > RESERVE_CONTAINERS.max(2 * space.containers) {
            FULL_BELOW
        } else {
            "the pool is full: reads, trims and deletions go on; delete what is not needed"
        };
        let error = EngineError::new(EngineErrorKind::NoSpace, reason);
        if state.may_have_garbage { Ok(Decision::Clean(error)) } else { Err(error) }
    }

    /// Why nothing can be written now, where the journal is full and no flush makes room in it.
    fn blocked(&self) -> Option<EngineError> {
        self.stuck_for_good().filter(|_| self.journal.get().is_some_and(Journal::is_full))
    }

    fn has_room(&self, state: &State, blocks: u64) -> bool {
        let held = state.under_way_bytes + state.buffered_bytes;
        let limit = self.config.write_buffer_bytes;
        // Trims make room in the end: they get in until twice the limit.
        if blocks == 0 {
            held <= 2 * limit
        } else {
            held == 0 || held + blocks * UNDER_WAY_BLOCK_BYTES <= limit
        }
    }

    fn enter<'a>(&'a self, state: &mut State, blocks: u64) -> UnderWay<'a> {
        let bytes = blocks * UNDER_WAY_BLOCK_BYTES;
        state.under_way_bytes += bytes;
        state.under_way_blocks += blocks;
        UnderWay { shared: self, bytes, blocks }
    }
}

impl Shared {
    /// Zero blocks, of a trim, fit always.
    fn fits(&self, state: &State, blocks: u64) -> bool {
        blocks <= self.writable_blocks(state)
    }

    /// Blocks that would be granted now, in the room the pool had when last asked.
    pub(crate) fn writable_blocks(&self, state: &State) -> u64 {
        blocks_in(self.left(state))
    }

    /// Blocks that are likely to find room: as [`Shared::writable_blocks`], with the pages that map changes need where
    /// neighbours share them. Blocks count as sealed without shrinking here too.
    pub(crate) fn likely_blocks(&self, state: &State) -> u64 {
        let change = GRANT_CHANGE_BYTES / LIKELY_NEIGHBOURS;
        let left = unreserved(&self.pool.space()).saturating_sub(state.needed(change));
        left / (GRANT_BLOCK_BYTES + change)
    }

    /// Container bytes that are neither granted nor reserved.
    pub(crate) fn left(&self, state: &State) -> u64 {
        unreserved(&self.pool.space()).saturating_sub(state.granted())
    }

    /// Whether the cleaner may write a container and leave room for a checkpoint, beside what is granted.
    pub(crate) fn has_room_to_move(&self, state: &State) -> bool {
        let space = self.pool.space();
        let free = (space.containers * space.container_bytes).saturating_sub(state.granted());
        free > CHECKPOINT_CONTAINERS * space.container_bytes
    }

    /// Whether a checkpoint would give back much of the room that is granted, `times` over.
    pub(crate) fn changes_take_room(&self, state: &State, times: usize) -> bool {
        let changes = state.new_map_changes();
        let taken = changes as u64 * GRANT_CHANGE_BYTES * CHANGES_SHARE;
        changes >= times * self.config.overlay_entries_max / CHANGES_LEAST_SHARE
            && taken > times as u64 * self.left(state)
    }

    /// Whether a checkpoint that could wait leaves room enough for all that is granted.
    pub(crate) fn has_spare_room(&self, state: &State) -> bool {
        self.left(state) >= SPARE_CONTAINERS * self.pool.space().container_bytes
    }
}

/// Container bytes that may be granted in all.
pub(crate) fn unreserved(space: &Space) -> u64 {
    let reserve = RESERVE_CONTAINERS + space.containers / RESERVE_SHARE;
    space.containers.saturating_sub(reserve) * space.container_bytes
}

/// Blocks whose worst case fits `bytes` of containers.
pub(crate) fn blocks_in(bytes: u64) -> u64 {
    bytes / (GRANT_BLOCK_BYTES + GRANT_CHANGE_BYTES)
}
