//! The checkpoint object: roots and metadata, cut into pieces by their contents.
//!
//! Metadata that did not change since the last checkpoint is not encoded again, and a piece that it has too is not
//! written again: a checkpoint costs what changed, however many snapshots the metadata tells of. Pieces whose container
//! would be kept for little are written anew all the same. A list names the pieces, and where it has several pieces itself
//! another names those, up to one: the checkpoint's record, which every segment of the journal begins with, names that one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::{Builder, UnitKind};
use journal::{LedgerRun, MetaPiece};
use map::Root;
use seal::Kind;
use serde::{Deserialize, Serialize};
use units::{ContainerId, DiskId, Fingerprint, Incarnation};

use crate::engine::{Engine, Shared, ToCommit};
use crate::error::EngineError;
use crate::state::Totals;

const VERSION: u8 = 3;
/// Most bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Room a container keeps for its directory entry and the seal of one more unit.
const SLACK_BYTES: usize = 4096;
/// A container stays for the pieces in it when they are at least one part in so many of it.
const WORTH_KEEPING: u64 = 2;
/// Pieces made before others are let in.
const PIECES_AT_ONCE: usize = 16;

/// The checkpoint object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    version: u8,
    /// The disks and their roots; `None` for one without blocks. A disk that is not listed began later.
    pub(crate) roots: Vec<(DiskId, Option<Root>)>,
    /// The metadata store's checkpoint.
    pub(crate) meta: Vec<u8>,
    /// The committed containers; those of commits behind it may be among them.
    pub(crate) ledger: Vec<LedgerRun>,
    /// Totals over the commits that are in it.
    pub(crate) totals: Totals,
}

impl Body {
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

/// A stretch of the metadata as the last checkpoint has it.
#[derive(Debug)]
pub(crate) struct KnownChunk {
    stamp: u64,
    bytes: usize,
    pieces: Vec<MetaPiece>,
}

/// What the last checkpoint's pieces are made of, so that what did not change is neither encoded nor looked at again.
/// Empty after a start: then the first checkpoint finds by their names the pieces that are there.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of the checkpoint with this number.
    pub(crate) number: u64,
    /// Stretches of the metadata by their bounds.
    pub(crate) chunks: BTreeMap<Box<[u8]>, KnownChunk>,
}

/// A checkpoint object, and what is known of its pieces from now on.
pub(crate) struct Written {
    pub(crate) root: journal::Root,
    /// All that reading it takes.
    pub(crate) pieces: Arc<[MetaPiece]>,
    pub(crate) chunks: BTreeMap<Box<[u8]>, KnownChunk>,
}

impl Engine {
    /// Writes a checkpoint object: the roots, the metadata as it is now and the totals, one behind the other as
    /// [`Body`] has them.
    pub(crate) async fn write_body(
        &self,
        known: &Known,
        roots: &[(DiskId, Option<Root>)],
        totals: Totals,
    ) -> Result<Written, EngineError> {
        let known = if self.is_of_last(known) { known } else { &Known::default() };
        let meta = self.shared.embedded();
        let (mut writer, unwanted) = self.body_writer(known, meta.as_deref());
        let usable = |bound: &[u8], stamp: u64| {
            known.chunks.get(bound).is_some_and(|chunk| chunk.stamp == stamp) && !unwanted.contains(bound)
        };
        let taken = meta.map(|meta| meta.pieces(usable));
        let (mut chunks, mut bytes) = (Vec::new(), taken.as_ref().map_or(0, |taken| taken.head.len()));
        for chunk in taken.iter().flat_map(|taken| &taken.chunks) {
            let names = match (chunk.bytes(), known.chunks.get(&chunk.bound)) {
                (Some(encoded), _) => {
                    bytes += encoded.len();
                    let names = writer.add(&encoded).await?;
                    seam::yield_now().await;
                    Names::New(encoded.len(), names)
                }
                (None, Some(known)) => {
                    bytes += known.bytes;
                    Names::Known(known)
                }
                (None, None) => unreachable!("only what is known is left out"),
            };
            chunks.push((chunk, names));
        }
        let mut head = postcard::to_stdvec(&(VERSION, roots, bytes)).expect("plain values always encode");
        head.extend_from_slice(taken.as_ref().map_or(&[], |taken| &taken.head));
        let head = writer.add(&head).await?;
        let ledger = postcard::to_stdvec(&self.ledger()).expect("plain values always encode");
        let mut tail = writer.add(&ledger).await?;
        let totals = postcard::to_stdvec(&totals).expect("plain values always encode");
        tail.extend(writer.add(&totals).await?);
        writer.commit().await?;
        let (mut pieces, mut by_bound) = (writer.named(&head), BTreeMap::new());
        for (chunk, names) in chunks {
            let (bytes, of_chunk) = match names {
                Names::New(bytes, names) => (bytes, writer.named(&names)),
                Names::Known(known) => (known.bytes, known.pieces.clone()),
            };
            pieces.extend_from_slice(&of_chunk);
            by_bound.insert(chunk.bound.clone(), KnownChunk { stamp: chunk.stamp, bytes, pieces: of_chunk });
        }
        pieces.extend(writer.named(&tail));
        let (root, pieces) = writer.tree(pieces).await?;
        Ok(Written { root, pieces: pieces.into(), chunks: by_bound })
    }

    /// The committed containers, those of one incarnation after the other: what is committed meanwhile may be in it, and
    /// nothing is deleted while a checkpoint is taken.
    pub fn ledger(&self) -> Vec<LedgerRun> {
        let incarnations: Vec<Incarnation> = self.shared.lock().ledger.keys().copied().collect();
        let run = |incarnation: Incarnation| {
            let committed = self.shared.lock().ledger.get(&incarnation).cloned()?;
            Some(LedgerRun { incarnation, committed })
        };
        incarnations.into_iter().filter_map(run).collect()
    }

    /// Has the ledger say that these containers are committed, which no medium has: for tests of a large ledger.
    #[doc(hidden)]
    pub fn pretend_committed(&self, run: &LedgerRun) {
        self.shared.lock().ledger.insert(run.incarnation, run.committed.clone());
    }

    fn is_of_last(&self, known: &Known) -> bool {
        self.shared.lock().checkpoint.as_ref().is_some_and(|pointer| pointer.number == known.number)
    }

    /// A writer that knows the last checkpoint's pieces that may stay, and the bounds of known chunks whose may not:
    /// their container would be kept for little, or goes.
    fn body_writer(
        &self,
        known: &Known,
        meta: Option<&meta::Embedded>,
    ) -> (PieceWriter<'_>, BTreeSet<Box<[u8]>>) {
        let now = meta.map(|meta| meta.pieces(|_, _| true));
        let unchanged: Vec<(&Box<[u8]>, &KnownChunk)> = now
            .iter()
            .flat_map(|now| &now.chunks)
            .filter_map(|chunk| {
                known.chunks.get_key_value(&chunk.bound).filter(|(_, k)| k.stamp == chunk.stamp)
            })
            .collect();
        let last = self.shared.lock().pieces.clone();
        let mut used: BTreeMap<ContainerId, u64> = BTreeMap::new();
        let mut count = |piece: &MetaPiece| {
            *used.entry(piece.address.container).or_default() += u64::from(piece.address.length);
        };
        match unchanged.is_empty() {
            // Nothing is known behind a start: most likely little has changed.
            true => last.iter().for_each(&mut count),
            false => {
                unchanged.iter().flat_map(|(_, chunk)| &chunk.pieces).for_each(&mut count);
                // Most of the rest, the lists and the ledger, is as it was too.
                let of_meta: BTreeSet<Fingerprint> =
                    known.chunks.values().flat_map(|chunk| &chunk.pieces).map(|p| p.fingerprint).collect();
                last.iter().filter(|piece| !of_meta.contains(&piece.fingerprint)).for_each(&mut count);
            }
        }
        let worth = self.shared.worth_keeping(&used);
        let is_worth = |piece: &MetaPiece| worth.contains(&piece.address.container);
        let unwanted = unchanged.iter().filter(|(_, chunk)| !chunk.pieces.iter().all(is_worth));
        let unwanted = unwanted.map(|(bound, _)| (*bound).clone()).collect();
        (self.piece_writer(last.iter().filter(|piece| is_worth(piece))), unwanted)
    }

    /// A writer that writes none of these pieces again.
    pub(crate) fn piece_writer<'a>(&self, there: impl Iterator<Item = &'a MetaPiece>) -> PieceWriter<'_> {
        PieceWriter {
            shared: &self.shared,
            there: there.map(|piece| (piece.fingerprint, *piece)).collect(),
            builder: Builder::new(),
            slots: Vec::new(),
        }
    }
}

impl Shared {
    /// Of containers, with the bytes that pieces use of them, those that may stay for these pieces.
    pub(crate) fn worth_keeping(&self, used: &BTreeMap<ContainerId, u64>) -> BTreeSet<ContainerId> {
        let state = self.lock();
        let is_worth = |(container, used): &(&ContainerId, &u64)| {
            let total = state.sizes.get(container).map_or(u64::MAX, |size| u64::from(size.total));
            !state.is_retiring(**container)
                && !state.is_emptying(**container)
                && used.saturating_mul(WORTH_KEEPING) >= total
        };
        used.iter().filter(is_worth).map(|(container, _)| *container).collect()
    }
}

/// The pieces of a chunk.
enum Names<'a> {
    /// Its length, and their names.
    New(usize, Vec<Fingerprint>),
    Known(&'a KnownChunk),
}

/// Writes pieces that are not there yet, a container at a time.
pub(crate) struct PieceWriter<'a> {
    shared: &'a Shared,
    there: BTreeMap<Fingerprint, MetaPiece>,
    builder: Builder,
    /// What is in the container being filled.
    slots: Vec<(Fingerprint, u16)>,
}

impl PieceWriter<'_> {
    /// Cuts `bytes` into pieces and sees to it that they are written; gives their names.
    pub(crate) async fn add(&mut self, bytes: &[u8]) -> Result<Vec<Fingerprint>, EngineError> {
        let mut names = Vec::new();
        let most = PIECE_BYTES.min(self.shared.config.container_bytes as usize / 4);
        for piece in pieces(bytes, most) {
            let name = self.shared.sealer.fingerprint(Kind::Meta, piece);
            names.push(name);
            if names.len().is_multiple_of(PIECES_AT_ONCE) {
                seam::yield_now().await;
            }
            if self.there.contains_key(&name) || self.slots.iter().any(|(found, _)| *found == name) {
                continue;
            }
            if !self.builder.has_room(1, piece.len() + SLACK_BYTES, self.shared.container_limit()) {
                self.commit().await?;
            }
            let mut unit = Vec::new();
            self.shared.sealer.seal(Kind::Meta, name, piece, &mut unit);
            self.slots.push((name, self.builder.add(UnitKind::Meta, name, &unit).0));
        }
        Ok(names)
    }

    /// Writes the container being filled.
    pub(crate) async fn commit(&mut self) -> Result<(), EngineError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::take(&mut self.builder);
        // What is covered is told again: behind a loss that was accepted no other commit may tell it.
        let covered = self.shared.lock().covered;
        let what = ToCommit { builder: &builder, covered, blocks: 0, block_bytes: 0 };
        let built = self.shared.commit_container(what, |_| Vec::new()).await?;
        for (fingerprint, slot) in self.slots.drain(..) {
            self.there.insert(fingerprint, MetaPiece { fingerprint, address: built.address(slot) });
        }
        Ok(())
    }

    /// The pieces of these names, all written.
    pub(crate) fn named(&self, names: &[Fingerprint]) -> Vec<MetaPiece> {
        names.iter().filter_map(|name| self.there.get(name).copied()).collect()
    }

    /// Writes what leads from one piece to these, which are written: gives it, and all the pieces there are.
    pub(crate) async fn tree(
        &mut self,
        pieces: Vec<MetaPiece>,
    ) -> Result<(journal::Root, Vec<MetaPiece>), EngineError> {
        let (mut level, mut all, mut levels) = (pieces, Vec::new(), 0);
        loop {
            all.extend_from_slice(&level);
            if let [piece] = level[..] {
                return Ok((journal::Root { piece, levels }, all));
            }
            let list = postcard::to_stdvec(&level).expect("plain values always encode");
            let names = self.add(&list).await?;
            self.commit().await?;
            level = self.named(&names);
            levels += 1;
        }
    }
}
