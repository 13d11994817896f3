//! Media that join and leave a running site.
//!
//! A medium that leaves takes nothing new from the moment it is told; the rebuilder moves what it holds. When no row and
//! no live journal segment names it, it can be released: from then on it is none of the site's. Who is a member, and who
//! leaves, is remembered outside of the engine, and told to it at each start ([`Deps`](crate::Deps)).

use std::collections::BTreeMap;

use container::{fragment_bytes, header_bytes};
use units::{ContainerId, MediumId, NodeId};

use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind};
use crate::rebuild::{RowKey, lock};
use crate::state::raw_bytes;

/// Part of the room of those that stay that a drain may fill, percent: guests go on writing meanwhile.
const FILLED_PERCENT_MAX: u128 = 90;

/// A medium whose contents move to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// The medium.
    pub medium: MediumId,
    /// Bytes of fragments that have moved since it began.
    pub done_bytes: u64,
    /// Bytes of fragments that are to move.
    pub left_bytes: u64,
    /// What is in the way, when something is.
    pub trouble: Option<String>,
}

/// A medium that is to come.
#[derive(Debug, Clone, Copy)]
pub struct Joins {
    /// The medium. It counts as a failure domain of its own.
    pub medium: MediumId,
    /// Bytes of its data area.
    pub data_bytes: u64,
}

impl Engine {
    /// A medium joins the site, in the order of media behind `behind` or last. It can be reached, and is empty. Where the
    /// site has data nodes it is on `node`.
    pub fn add_medium(&self, medium: MediumId, behind: Option<MediumId>, node: Option<NodeId>) {
        self.shared.pool.join(medium, behind, node);
        self.shared.flush_wake.notify_one();
        self.shared.rebuild_wake.notify_one();
    }

    /// Whether media could leave, all of them: enough others are up, and have room for all that there is. `joins`: one
    /// that is to come for them, with the bytes of its data area.
    ///
    /// # Errors
    /// [`EngineErrorKind::NotFound`], [`EngineErrorKind::TooFewMedia`], [`EngineErrorKind::NoSpace`].
    pub async fn check_leave(&self, media: &[MediumId], joins: Option<Joins>) -> Result<(), EngineError> {
        self.check_writable()?;
        let health = self.shared.pool.health();
        let unknown = media.iter().find(|medium| !health.iter().any(|health| health.medium == **medium));
        if let Some(medium) = unknown {
            let reason = format!("medium {medium} is none of the site's");
            return Err(EngineError::new(EngineErrorKind::NotFound, reason));
        }
        let stay = health.iter().filter(|other| other.up && !other.leaving && !media.contains(&other.medium));
        let stay = stay.map(|health| health.medium).chain(joins.map(|joins| joins.medium));
        let stay: Vec<MediumId> = stay.collect();
        let domains = self.shared.pool.domains(&stay).len();
        let Some(class) = pool::class_for(domains).filter(|_| domains >= 2) else {
            let reason = format!(
                "{} other media are up and stay, in {domains} failure domains, and two at least must, to keep anything safe",
                stay.len()
            );
            return Err(EngineError::new(EngineErrorKind::TooFewMedia, reason));
        };
        let mut rooms = Vec::new();
        for other in &stay {
            let bytes = match joins.filter(|joins| joins.medium == *other) {
                Some(joins) => joins.data_bytes,
                None => self.shared.pool.room_of(*other).await.map_or(0, |(_, all)| all),
            };
            rooms.push((*other, bytes));
        }
        let capacity = u128::from(self.shared.pool.fillable(&rooms, class.width()));
        let (stored, count) = {
            let state = self.shared.lock();
            (state.totals.container_bytes, state.sizes.len() as u64)
        };
        // Containers of the mean size, with the headers of their fragments.
        let payload = fragment_bytes(stored.div_ceil(count.max(1)) as usize, class.k);
        let fragment = (payload + header_bytes(payload)) as u128;
        let needed = u128::from(count) * class.width() as u128 * fragment;
        if needed * 100 > capacity * FILLED_PERCENT_MAX {
            let reason = format!(
                "what is stored needs {needed} bytes on the {} media that would be left, of which containers can fill \
                 {capacity}: more than {FILLED_PERCENT_MAX} % would be full",
                stay.len()
            );
            return Err(EngineError::new(EngineErrorKind::NoSpace, reason));
        }
        Ok(())
    }

    /// All that is on a medium is to move to the others, and nothing new goes there; or no more.
    pub fn set_leaving(&self, medium: MediumId, leaving: bool) {
        self.shared.pool.set_leaving(medium, leaving);
        self.shared.rebuild_wake.notify_one();
    }

    /// Whether nothing of the site names a medium any more.
    pub fn is_empty_of(&self, medium: MediumId) -> bool {
        let is_named = |row: &journal::Row| row.members.contains(&medium) || row.target.contains(&medium);
        let on_journal = self.shared.journal.get().is_none_or(|journal| journal.is_on(medium));
        !on_journal && !self.shared.pool.rows().iter().any(is_named)
    }

    /// A medium that is empty and leaving is none of the site's any more.
    ///
    /// # Errors
    /// [`EngineErrorKind::Busy`] while something names it.
    pub fn release_medium(&self, medium: MediumId) -> Result<(), EngineError> {
        let leaving = self.shared.pool.health().iter().any(|h| h.medium == medium && h.leaving);
        if !leaving || !self.is_empty_of(medium) {
            let reason = format!("medium {medium} is still in use");
            return Err(EngineError::new(EngineErrorKind::Busy, reason));
        }
        self.shared.pool.forget(medium);
        lock(&self.shared.rebuild).most.remove(&medium);
        Ok(())
    }

    /// Media whose contents move to others, in order.
    pub fn moving(&self) -> Vec<Moving> {
        let leaving: Vec<MediumId> = {
            let health = self.shared.pool.health();
            health.iter().filter(|health| health.leaving).map(|health| health.medium).collect()
        };
        let patience = self.shared.config.rebuild_after;
        let is_wanted =
            |medium: &MediumId| leaving.contains(medium) || self.shared.pool.is_to_leave(*medium, patience);
        let mut by_row: BTreeMap<RowKey, Vec<MediumId>> = BTreeMap::new();
        let mut left: BTreeMap<MediumId, u64> = leaving.iter().map(|medium| (*medium, 0)).collect();
        for row in self.shared.pool.rows() {
            let members: Vec<MediumId> = row.members.iter().copied().filter(is_wanted).collect();
            if !members.is_empty() {
                by_row.insert((row.class, row.row), members);
            }
        }
        if by_row.is_empty() && left.is_empty() {
            return Vec::new();
        }
        {
            let state = self.shared.lock();
            for (id, size) in &state.sizes {
                for medium in by_row.get(&(id.class, id.row)).into_iter().flatten() {
                    *left.entry(*medium).or_default() += fragment_raw_bytes(*id, size.total);
                }
            }
        }
        let mut rebuild = lock(&self.shared.rebuild);
        rebuild.most.retain(|medium, _| left.contains_key(medium));
        let mut moving = Vec::new();
        for (medium, left) in left {
            let left_bytes = left.saturating_sub(rebuild.filled.get(&medium).copied().unwrap_or(0));
            let most = rebuild.most.entry(medium).or_default();
            *most = (*most).max(left_bytes);
            let done_bytes = *most - left_bytes;
            moving.push(Moving { medium, done_bytes, left_bytes, trouble: rebuild.trouble.clone() });
        }
        moving
    }
}

/// Bytes of one fragment of a container with its header.
pub(crate) fn fragment_raw_bytes(container: ContainerId, total: u32) -> u64 {
    let width = pool::CLASSES.get(usize::from(container.class)).map_or(1, |class| class.width() as u64);
    raw_bytes(container, total) / width
}
