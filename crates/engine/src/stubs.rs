//! Forward stubs: where the contents of deleted containers went (section 6.2 of docs/design.md, decision 0008).
//!
//! A stub stands in the metadata store under `stub/CONTAINER` and in RAM. It names the containers that took what was
//! live; a block or page is found there by its name. Maps go on naming the old container until a merge writes them anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use container::UnitKind;
use index::Holder;
use meta::{Key, Op, Shard, Store, Table, Txn};
use serde::{Deserialize, Serialize};
use units::{Address, ContainerId, Fingerprint, Incarnation};

use crate::dedup::read_head;
use crate::engine::Shared;
use crate::error::{EngineError, EngineErrorKind};
use crate::state::State;

const STUBS: Table<Shard> = Table::new("stub");
/// Most stubs: what a start reads.
const STUBS_MAX: usize = 1 << 22;
/// Stubs changed in one transaction.
const STUBS_AT_ONCE: usize = 64;
/// Stubs that lead on to stubs: moving a container again mends those that led to it.
const HOPS_MAX: usize = 8;

/// The contents of a container by name.
#[derive(Debug)]
pub(crate) struct Contents {
    places: BTreeMap<(UnitKind, Fingerprint), Address>,
}

impl Contents {
    pub(crate) fn ram_bytes(&self) -> u64 {
        (self.places.len() * (size_of::<(UnitKind, Fingerprint)>() + size_of::<Address>())) as u64
    }
}

/// A container a stub leads to, as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Target {
    container: ContainerId,
    fragment_pages: u16,
}

fn key(id: ContainerId) -> Result<Key, EngineError> {
    let place = u64::from(id.number) << 32 | u64::from(id.class) << 16 | u64::from(id.row);
    Ok(STUBS.key().number(id.incarnation.0).number(place).end()?)
}

/// What makes a stub durable.
pub(crate) fn put(from: ContainerId, to: &[Holder]) -> Result<Op, EngineError> {
    let target =
        |holder: &Holder| Target { container: holder.container, fragment_pages: holder.fragment_pages };
    let targets: Vec<Target> = to.iter().map(target).collect();
    Ok(Op::put(key(from)?, postcard::to_stdvec(&targets).expect("plain values always encode")))
}

/// Transactions for changes of stubs that make no longer records than the metadata store takes.
pub(crate) fn in_txns<T>(
    changes: &[T],
    record_bytes: usize,
    op: impl Fn(&T) -> Result<Op, EngineError>,
) -> Result<Vec<(&[T], Txn)>, EngineError> {
    let mut out: Vec<(&[T], Txn)> = Vec::new();
    let (mut begin, mut bytes, mut then) = (0, Txn::RECORD_BYTES, Vec::new());
    for (at, change) in changes.iter().enumerate() {
        let op = op(change)?;
        if at > begin && (bytes + op.record_bytes() > record_bytes || at - begin >= STUBS_AT_ONCE) {
            out.push((&changes[begin..at], Txn { then: std::mem::take(&mut then), ..Txn::default() }));
            (begin, bytes) = (at, Txn::RECORD_BYTES);
        }
        bytes += op.record_bytes();
        then.push(op);
    }
    if !then.is_empty() {
        out.push((&changes[begin..], Txn { then, ..Txn::default() }));
    }
    Ok(out)
}

/// What removes a stub.
pub(crate) fn delete(from: ContainerId) -> Result<Op, EngineError> {
    Ok(Op::delete(&key(from)?))
}

/// All stubs the metadata store knows.
pub(crate) async fn stubs(
    meta: &Arc<meta::Embedded>,
) -> Result<BTreeMap<ContainerId, Vec<Holder>>, EngineError> {
    let (kvs, _) = meta::list(&**meta as &dyn Store, STUBS.all(), STUBS_MAX).await?;
    let stub = |kv: &meta::KeyValue| {
        let mut segments = STUBS.segments(&kv.key)?;
        let (incarnation, place) = (segments.number()?, segments.number()?);
        let (number, class, row) = ((place >> 32) as u32, (place >> 16) as u8, place as u16);
        let from = ContainerId { incarnation: Incarnation(incarnation), number, class, row };
        let (targets, rest) = postcard::take_from_bytes::<Vec<Target>>(&kv.value).ok()?;
        let holder =
            |target: &Target| Holder { container: target.container, fragment_pages: target.fragment_pages };
        rest.is_empty().then(|| (from, targets.iter().map(holder).collect()))
    };
    let damaged = |kv: &meta::KeyValue| {
        EngineError::new(EngineErrorKind::Lost, format!("metadata of {:?} makes no sense", kv.key))
    };
    kvs.iter().map(|kv| stub(kv).ok_or_else(|| damaged(kv))).collect()
}

impl State {
    fn is_there(&self, container: ContainerId) -> bool {
        self.is_committed(container) || self.stubs.contains_key(&container)
    }

    /// Stubs that lead to a container, with what they are to say once it has moved too.
    pub(crate) fn led_on(&self, moved: ContainerId, to: &[Holder]) -> Vec<(ContainerId, Vec<Holder>)> {
        let leads = self.stubs.iter().filter(|(_, targets)| targets.iter().any(|t| t.container == moved));
        // In the place of the one that moved: where two have something by one name, the same is found as before.
        let mended = |targets: &Vec<Holder>| {
            let mut all: Vec<Holder> = Vec::new();
            for target in targets {
                let new = if target.container == moved { to } else { std::slice::from_ref(target) };
                let more: Vec<Holder> = new.iter().filter(|new| !all.contains(new)).copied().collect();
                all.extend(more);
            }
            all
        };
        leads.map(|(from, targets)| (*from, mended(targets))).collect()
    }
}

impl Shared {
    /// Where a block or page lies now.
    pub(crate) async fn resolve(
        &self,
        kind: UnitKind,
        name: &Fingerprint,
        address: Address,
    ) -> Result<Address, EngineError> {
        self.follow(kind, name, address, &mut |_| {}).await
    }

    /// [`Shared::resolve`] that tells each container with a stub on the way.
    pub(crate) async fn follow(
        &self,
        kind: UnitKind,
        name: &Fingerprint,
        address: Address,
        met: &mut (dyn FnMut(ContainerId) + Send),
    ) -> Result<Address, EngineError> {
        let mut address = address;
        for _ in 0..HOPS_MAX {
            let Some(targets) = self.stub_of(address.container) else { return Ok(address) };
            met(address.container);
            self.maybe_yield().await;
            let mut found = None;
            for target in targets {
                // One that is deleted had nothing live: what moved on has its stub mended before.
                if !self.lock().is_there(target.container) {
                    continue;
                }
                let contents = self.contents(&target).await?;
                if let Some(place) = contents.places.get(&(kind, *name)) {
                    found = Some(*place);
                    break;
                }
            }
            let from = address.container;
            address = found.ok_or_else(|| {
                EngineError::new(
                    EngineErrorKind::Lost,
                    format!("container {from}: moved, and a unit is not where it went"),
                )
            })?;
        }
        Err(EngineError::new(
            EngineErrorKind::Lost,
            format!("container {}: too many stubs", address.container),
        ))
    }

    /// Where the contents of a container went. One that is still there needs no stub: a crash came between the stub and
    /// the deletion, and duplicates may have been found since in what was not moved.
    fn stub_of(&self, container: ContainerId) -> Option<Vec<Holder>> {
        let state = self.lock();
        if state.stubs.is_empty() || state.is_committed(container) {
            return None;
        }
        state.stubs.get(&container).cloned()
    }

    async fn contents(&self, holder: &Holder) -> Result<Arc<Contents>, EngineError> {
        if let Some(contents) = self.moved.get(&holder.container) {
            return Ok(contents);
        }
        let head = read_head(&self.pool, holder.container, holder.fragment_pages).await.ok_or_else(|| {
            EngineError::new(
                EngineErrorKind::Lost,
                format!("container {}: its directory is lost", holder.container),
            )
        })?;
        let mut places = BTreeMap::new();
        for (slot, entry) in head.entries.iter().enumerate() {
            if let Some(place) = head.address(slot as u16, holder.fragment_pages) {
                places.entry((entry.kind, entry.fingerprint)).or_insert(place);
            }
        }
        let contents = Arc::new(Contents { places });
        self.moved.insert(holder.container, contents.clone());
        Ok(contents)
    }
}
