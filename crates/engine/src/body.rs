//! The checkpoint object: roots and metadata, cut into pieces by their contents.
//!
//! A piece that the last checkpoint has too is not written again: a checkpoint costs what changed, however many
//! snapshots the metadata tells of. Pieces whose container would be kept for little are written anew all the same.

use std::collections::{BTreeMap, VecDeque};

use container::{Builder, UnitKind};
use journal::MetaPiece;
use map::Root;
use seal::Kind;
use serde::{Deserialize, Serialize};
use units::{ContainerId, DiskId, Fingerprint, Seq};

use crate::engine::{Engine, ToCommit};
use crate::error::EngineError;
use crate::state::Totals;

const VERSION: u8 = 2;
/// Most bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Room a container keeps for its directory entry and the seal of one more unit.
const SLACK_BYTES: usize = 4096;
/// A container stays for the pieces in it when they are at least one part in so many of it.
const WORTH_KEEPING: u64 = 2;

/// The checkpoint object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    version: u8,
    /// The disks and their roots; `None` for one without blocks. A disk that is not listed began later.
    pub(crate) roots: Vec<(DiskId, Option<Root>)>,
    /// The metadata store's checkpoint.
    pub(crate) meta: Vec<u8>,
    /// Totals over the commits that are in it.
    pub(crate) totals: Totals,
}

impl Body {
    pub(crate) fn new(roots: Vec<(DiskId, Option<Root>)>, meta: Vec<u8>, totals: Totals) -> Self {
        Self { version: VERSION, roots, meta, totals }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((body, [])) if body.version == VERSION => Some(body),
            _ => None,
        }
    }
}

/// Words without pattern, one for each byte.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state: u64 = 0;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = word ^ (word >> 31);
        i += 1;
    }
    table
};

/// Cuts `bytes` where the contents say so, into pieces of at most `most` bytes: what is inserted in one place moves no
/// border elsewhere (the gear hash of Xia et al., FAST 2014).
pub(crate) fn pieces(bytes: &[u8], most: usize) -> Vec<&[u8]> {
    let (least, mask) = (most / 8, (most as u64 / 2).next_power_of_two() - 1);
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut hash: u64 = 0;
        let border = rest.iter().take(most).skip(least).position(|byte| {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            (hash >> 24) & mask == 0
        });
        let border = border.map_or(most, |at| least + at + 1).min(rest.len());
        let (piece, behind) = rest.split_at(border);
        out.push(piece);
        rest = behind;
    }
    out
}

impl Engine {
    /// Writes a checkpoint object; gives its pieces in order.
    pub(crate) async fn write_body(&self, body: &Body) -> Result<Vec<MetaPiece>, EngineError> {
        let bytes = postcard::to_stdvec(body).expect("plain values always encode");
        let limit = self.shared.config.container_bytes as usize;
        let most = PIECE_BYTES.min(limit / 4);
        let named: Vec<(Fingerprint, &[u8])> = pieces(&bytes, most)
            .into_iter()
            .map(|piece| (self.shared.sealer.fingerprint(Kind::Meta, piece), piece))
            .collect();
        let mut known = self.kept_pieces(&named);
        let mut fresh: VecDeque<(Fingerprint, &[u8])> = VecDeque::new();
        for (name, piece) in &named {
            if !known.contains_key(name) {
                fresh.push_back((*name, piece));
            }
        }
        while !fresh.is_empty() {
            let mut builder = Builder::new();
            let mut slots = Vec::new();
            while let Some((name, piece)) =
                fresh.pop_front_if(|(_, piece)| builder.has_room(1, piece.len() + SLACK_BYTES, limit))
            {
                let mut unit = Vec::new();
                self.shared.sealer.seal(Kind::Meta, name, piece, &mut unit);
                slots.push((name, builder.add(UnitKind::Meta, name, &unit).0));
            }
            let what = ToCommit { builder: &builder, covered: Seq(0), blocks: 0, block_bytes: 0 };
            let built = self.shared.commit_container(what, |_| Vec::new()).await?;
            for (fingerprint, slot) in slots {
                known.insert(fingerprint, MetaPiece { fingerprint, address: built.address(slot) });
            }
        }
        Ok(named.iter().filter_map(|(name, _)| known.get(name).cloned()).collect())
    }

    /// Pieces of the last checkpoint that the next has too.
    fn kept_pieces(&self, named: &[(Fingerprint, &[u8])]) -> BTreeMap<Fingerprint, MetaPiece> {
        let state = self.shared.lock();
        let last = state.checkpoint.iter().flat_map(|pointer| &pointer.pieces);
        let last: BTreeMap<Fingerprint, &MetaPiece> = last.map(|piece| (piece.fingerprint, piece)).collect();
        let is_current = |piece: &&MetaPiece| !state.is_retiring(piece.address.container);
        let kept: BTreeMap<Fingerprint, MetaPiece> = named
            .iter()
            .filter_map(|(name, _)| {
                Some((*name, (**last.get(name).filter(|piece| is_current(piece))?).clone()))
            })
            .collect();
        let mut used: BTreeMap<ContainerId, u64> = BTreeMap::new();
        for piece in kept.values() {
            *used.entry(piece.address.container).or_default() += u64::from(piece.address.length);
        }
        let is_worth = |piece: &MetaPiece| {
            let container = piece.address.container;
            let total = state.sizes.get(&container).map_or(u64::MAX, |size| u64::from(size.total));
            !state.is_emptying(container)
                && used.get(&container).is_some_and(|used| used.saturating_mul(WORTH_KEEPING) >= total)
        };
        kept.into_iter().filter(|(_, piece)| is_worth(piece)).collect()
    }
}
