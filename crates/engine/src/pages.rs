//! Map pages: loading through the cache, and sealing.

use std::sync::Arc;

use container::UnitKind;
use map::{Page, PageParts, Pages, decode_page};
use pool::{PoolError, PoolErrorKind};
use seal::{Kind, Sealer};
use seam::BoxFuture;
use units::{Address, ContainerId, Fingerprint};

use crate::engine::Shared;
use crate::error::EngineError;

/// Bytes of a fingerprint.
const FP: usize = 16;

/// Seals the two parts of a page: `unit of the fingerprints | name of the addresses | unit of the addresses`.
/// The addresses are sealed together with the page's name, so that they cannot pass for another page's.
pub(crate) fn seal_page(sealer: &Sealer, level: u8, parts: &PageParts) -> (Fingerprint, Vec<u8>) {
    let name = sealer.fingerprint(Kind::Page(level), &parts.fingerprints);
    let mut unit = Vec::new();
    sealer.seal(Kind::Page(level), name, &parts.fingerprints, &mut unit);
    let bound = [&name.0[..], &parts.addresses].concat();
    let addresses = sealer.fingerprint(Kind::PageAddresses, &bound);
    unit.extend_from_slice(&addresses.0);
    sealer.seal(Kind::PageAddresses, addresses, &bound, &mut unit);
    (name, unit)
}

/// Opens what [`seal_page`] made; `None` when it is damaged or another page.
pub(crate) fn open_page(
    sealer: &Sealer,
    level: u8,
    name: Fingerprint,
    address: &Address,
    bytes: &[u8],
) -> Option<Page> {
    let mut fingerprints = Vec::new();
    let used = sealer.open(Kind::Page(level), name, bytes, &mut fingerprints).ok()?;
    let (addresses_name, unit) = bytes[used..].split_first_chunk::<FP>()?;
    let mut bound = Vec::new();
    sealer.open(Kind::PageAddresses, Fingerprint(*addresses_name), unit, &mut bound).ok()?;
    let addresses = bound.strip_prefix(&name.0[..])?;
    let page = decode_page(&fingerprints, addresses, address.container, address.fragment_pages).ok()?;
    (page.level == level).then_some(page)
}

/// Loads pages through the cache and the pool.
pub(crate) struct PageStore<'a>(pub(crate) &'a Shared);

impl Pages for PageStore<'_> {
    type Error = EngineError;

    fn load<'a>(
        &'a self,
        level: u8,
        name: Fingerprint,
        address: &'a Address,
    ) -> BoxFuture<'a, Result<Arc<Page>, EngineError>> {
        Box::pin(async move {
            let key = (address.container, address.slot);
            if let Some(page) = self.0.pages.get(&key) {
                return Ok(page);
            }
            let address = self.0.resolve(UnitKind::Page(level), &name, *address).await?;
            let mut page = None;
            let sealer = self.0.sealer.clone();
            let mut check = |bytes: &[u8]| {
                page = open_page(&sealer, level, name, &address, bytes);
                page.is_some()
            };
            self.0.pool.read_unit(&address, &mut check).await?;
            let page = page.ok_or_else(|| lost(&address))?;
            let page = Arc::new(page);
            self.0.pages.insert(key, page.clone());
            Ok(page)
        })
    }

    fn fetch<'a>(&'a self, level: u8, pages: &'a [(Fingerprint, Address)]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut missing = Vec::new();
            for (name, address) in pages {
                if self.0.pages.get(&(address.container, address.slot)).is_some() {
                    continue;
                }
                if let Ok(at) = self.0.resolve(UnitKind::Page(level), name, *address).await {
                    missing.push(Missing { key: (address.container, address.slot), name: *name, at });
                }
            }
            missing.sort_by_key(|page| (page.at.container, page.at.offset));
            missing.dedup_by_key(|page| (page.at.container, page.at.offset));
            for run in missing.chunk_by(Missing::is_near) {
                self.fetch_run(level, run).await;
            }
        })
    }
}

/// What may lie between two pages that are read together: what is read in vain costs less than another request.
const GAP_BYTES: u32 = 16 << 10;

/// A page that is not in the cache.
struct Missing {
    /// Under which it is cached.
    key: (ContainerId, u16),
    name: Fingerprint,
    at: Address,
}

impl Missing {
    fn is_near(&self, next: &Self) -> bool {
        let end = self.at.offset + self.at.length;
        self.at.container == next.at.container && next.at.offset.saturating_sub(end) <= GAP_BYTES
    }
}

impl PageStore<'_> {
    /// Reads neighbours of one level in one go. Where one of them is damaged none is kept.
    async fn fetch_run(&self, level: u8, run: &[Missing]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        if run.len() < 2 {
            // Whoever loads it reads it alone just as well.
            return;
        }
        let start = first.at.offset as usize;
        let length = (last.at.offset + last.at.length) as usize - start;
        let sealer = self.0.sealer.clone();
        let mut opened = Vec::new();
        let mut check = |bytes: &[u8]| {
            let open = |page: &Missing| {
                let from = page.at.offset as usize - start;
                let unit = bytes.get(from..from + page.at.length as usize)?;
                open_page(&sealer, level, page.name, &page.at, unit).map(Arc::new)
            };
            opened = run.iter().map_while(open).collect();
            opened.len() == run.len()
        };
        let Address { container, fragment_pages, .. } = first.at;
        if self.0.pool.read(container, fragment_pages, start, length, &mut check).await.is_ok() {
            run.iter().zip(opened).for_each(|(missing, page)| self.0.pages.insert(missing.key, page));
        }
    }
}

fn lost(address: &Address) -> EngineError {
    PoolError {
        kind: PoolErrorKind::Lost,
        reason: format!("container {}: a map page is damaged", address.container),
    }
    .into()
}
