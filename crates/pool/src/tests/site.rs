//! A site: data nodes on disks in memory, the script before them, and the pool.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use container::{Builder, FragmentHeader, UnitKind, header_bytes};
use data::{LocalTransport, MediumNode, Params, Superblock};
use media::Medium;
use proto::{CallError, Request, Response, Transport};
use seal::{Kek, KeyRing, RecoveryKey, Sealer, WrappedKeys};
use seam::{Rt, Runtime};
use units::{ContainerId, Fingerprint, Incarnation, MediumId, PAGE, PageBuf, SiteId};

use super::bench::{Bench, Disk, Random};
use super::script::Script;
use crate::stripe::lock;
use crate::{Pool, PoolError, PoolErrorKind, Stripe, Written};

pub(super) const CONTAINER_BYTES: u32 = 64 * 1024;
const SITE: SiteId = SiteId([7; 16]);
const INCARNATION: Incarnation = Incarnation(0);
/// Room for fragments on a medium, unless a test says otherwise.
const DATA_BYTES: u64 = 8 << 20;

pub(super) fn params() -> Params {
    let container_bytes = CONTAINER_BYTES;
    Params { container_bytes, segment_bytes: 64 * 1024, segments_max: 4, log_pages: 64, fragments_max: 4096 }
}

pub(super) fn medium_id(number: usize) -> MediumId {
    MediumId([number as u8 + 1; 16])
}

/// Media that fail each by itself.
pub(super) fn alone(media: &[MediumId]) -> Vec<Vec<MediumId>> {
    media.iter().map(|medium| vec![*medium]).collect()
}

/// What is wrong with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// The medium lost it.
    Missing,
    /// A bit of the payload flipped.
    Flipped,
    /// A bit of the header flipped.
    Header,
    /// A page of the payload cannot be read.
    Unreadable,
    /// Its medium is away.
    Down,
    /// Other bytes under CRCs that match them.
    Wrong,
}

/// A container, and what stands in it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) stripe: Stripe,
    pub(super) bytes: Vec<u8>,
}

impl Kept {
    pub(super) fn id(&self) -> ContainerId {
        self.stripe.container
    }
}

pub(super) struct Site {
    pub(super) rt: Arc<Bench>,
    pub(super) ids: Vec<MediumId>,
    pub(super) disks: Vec<Arc<Disk>>,
    nodes: Vec<Arc<MediumNode>>,
    pub(super) local: Arc<LocalTransport>,
    pub(super) script: Arc<Script>,
    pub(super) pool: Pool,
    pub(super) sealer: Sealer,
    pub(super) next: AtomicU32,
    pub(super) abandoned: Mutex<Vec<u32>>,
    random: Mutex<Random>,
}

/// The site of `media` media.
pub(super) fn site(media: usize) -> Site {
    site_of(&vec![DATA_BYTES; media])
}

/// The site of media with so much room for fragments each.
pub(super) fn site_of(data_bytes: &[u64]) -> Site {
    let rt = Arc::new(Bench::new());
    let ids: Vec<MediumId> = (0..data_bytes.len()).map(medium_id).collect();
    let local = Arc::new(LocalTransport::new(rt.clone()));
    let script = Arc::new(Script::new(local.clone(), rt.clone()));
    let mut disks = Vec::new();
    let mut nodes = Vec::new();
    for (id, bytes) in ids.iter().zip(data_bytes) {
        let disk = Disk::new(&rt, &format!("{id}"), metadata_bytes() + bytes);
        let ring = KeyRing::for_tests(1);
        let keys = WrappedKeys::by_key_file(
            &ring,
            &Kek::from_bytes([1; 32]),
            &RecoveryKey::from_bytes([2; 32]),
            &[3; 40],
        );
        let medium_bytes = disk.len();
        let superblock = Superblock {
            generation: 1,
            site: SITE,
            medium: *id,
            medium_bytes,
            params: params(),
            media: 1,
            released: false,
            keys,
            epochs: seal::EpochKeys::default(),
            recovered_ms: 0,
        };
        let node = rt.run(async {
            data::format(&*disk, &superblock).await.unwrap();
            Arc::new(data::open(disk.clone(), SITE).await.unwrap())
        });
        local.attach(node.clone());
        nodes.push(node);
        disks.push(disk);
    }
    let pool = Pool::new(rt.clone(), script.clone(), &ids, &ids, CONTAINER_BYTES);
    Site {
        random: Mutex::new(Random(7)),
        rt,
        ids,
        disks,
        nodes,
        local,
        script,
        pool,
        sealer: Sealer::new(&KeyRing::for_tests(1)),
        next: AtomicU32::new(0),
        abandoned: Mutex::default(),
    }
}

fn metadata_bytes() -> u64 {
    let large = 1 << 40;
    data::Layout::new(params(), large).unwrap().data
}

impl Drop for Site {
    fn drop(&mut self) {
        self.rt.end();
    }
}

impl Site {
    pub(super) fn run<F: Future>(&self, work: F) -> F::Output {
        self.rt.run(work)
    }

    /// Lets everything in the background come to its end.
    pub(super) fn settle(&self) {
        self.run(self.rt.sleep(Duration::from_secs(20)));
    }

    /// A pool as after a restart: it knows only the rows of the journal.
    pub(super) fn restart(&mut self, rows: &[journal::Row]) {
        let rt: Rt = self.rt.clone();
        self.pool = Pool::new(rt, self.script.clone(), &self.ids, &self.ids, CONTAINER_BYTES);
        self.pool.load_rows(rows);
    }

    /// A container with random units of `bytes` bytes in all.
    pub(super) fn builder(&self, bytes: usize) -> Builder {
        let mut builder = Builder::new();
        let mut left = bytes;
        while left > 0 {
            let mut unit = vec![0; left.min(3000)];
            lock(&self.random).fill(&mut unit);
            builder.add(UnitKind::Data, Fingerprint::default(), &unit);
            left -= unit.len();
        }
        builder
    }

    pub(super) async fn write(&self, bytes: usize) -> Result<Written, PoolError> {
        let mint = || self.next.fetch_add(1, Ordering::Relaxed);
        let abandon = |number| lock(&self.abandoned).push(number);
        self.pool.write(&self.builder(bytes), &self.sealer, INCARNATION, &mint, &abandon).await
    }

    pub(super) fn kept(&self, written: &Written) -> Kept {
        let pages = (written.built.fragment_bytes / PAGE) as u16;
        let stripe = self.pool.stripe(written.built.head.container, pages).unwrap();
        Kept { stripe, bytes: written.built.bytes.as_ref().to_vec() }
    }

    /// Writes a container of nearly full size.
    pub(super) fn put(&self) -> Kept {
        self.put_bytes(60_000)
    }

    pub(super) fn put_bytes(&self, bytes: usize) -> Kept {
        let written = self.run(self.write(bytes)).unwrap();
        self.kept(&written)
    }

    /// Reads a stretch; the check accepts what was written there and nothing else.
    pub(super) async fn read(&self, kept: &Kept, offset: usize, length: usize) -> Result<(), PoolError> {
        let wanted = kept.bytes[offset..offset + length].to_vec();
        let mut accepted = false;
        let mut check = |bytes: &[u8]| {
            accepted = bytes == wanted;
            accepted
        };
        let pages = kept.stripe.fragment_pages;
        let result = self.pool.read(kept.id(), pages, offset, length, &mut check).await;
        assert_eq!(result.is_ok(), accepted, "bytes are given exactly when the check accepted them");
        result
    }

    pub(super) async fn read_all(&self, kept: &Kept) -> Result<(), PoolError> {
        self.read(kept, 0, kept.bytes.len()).await
    }

    pub(super) fn number(&self, medium: MediumId) -> usize {
        self.ids.iter().position(|id| *id == medium).unwrap()
    }

    /// Takes a medium away; the pool hears of it when it next asks.
    pub(super) fn take(&self, medium: MediumId) {
        self.local.detach(medium);
    }

    /// Brings a medium back.
    pub(super) fn give_back(&self, medium: MediumId) {
        self.local.attach(self.nodes[self.number(medium)].clone());
        self.pool.restore(medium);
    }

    /// Asks a medium past script and pool.
    pub(super) async fn direct(&self, medium: MediumId, request: Request) -> Result<Response, CallError> {
        self.local.call(medium, request).await
    }

    /// Whether a fragment can be read and every page of it matches its CRC.
    pub(super) async fn is_sound(&self, kept: &Kept, index: usize) -> bool {
        let length = kept.stripe.fragment_bytes() as u32;
        let (container, number) = (kept.id(), index as u8);
        let read = Request::FragmentRead { container, index: number, offset: 0, length, verify: true };
        self.direct(kept.stripe.members[index], read).await.is_ok()
    }

    /// What a fragment should hold.
    pub(super) fn should(&self, kept: &Kept, index: usize) -> Vec<u8> {
        let length = kept.stripe.fragment_bytes();
        let data: Vec<(usize, &[u8])> = kept.bytes.chunks(length).enumerate().collect();
        let mut out = vec![0; length];
        self.pool.code(&kept.stripe.class).reconstruct(&data, &[index], &mut [&mut out]).unwrap();
        out
    }

    /// Fragments that are there, with what they should hold, in the right place.
    pub(super) async fn whole(&self, kept: &Kept) -> usize {
        let mut count = 0;
        for index in 0..kept.stripe.class.width() {
            let length = kept.stripe.fragment_bytes() as u32;
            let (container, number) = (kept.id(), index as u8);
            let read = Request::FragmentRead { container, index: number, offset: 0, length, verify: true };
            let answer = self.direct(kept.stripe.members[index], read).await;
            let Ok(Response::Bytes(bytes)) = answer else { continue };
            count += usize::from(bytes.as_ref() == self.should(kept, index));
        }
        count
    }

    /// All fragments on a medium.
    pub(super) async fn fragments(&self, medium: MediumId) -> Vec<(ContainerId, u8)> {
        match self.direct(medium, Request::FragmentList { after: None, limit: 4096 }).await {
            Ok(Response::Fragments(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    /// All fragments of the site.
    pub(super) async fn all_fragments(&self) -> Vec<(ContainerId, u8)> {
        let mut all = Vec::new();
        for id in &self.ids {
            all.extend(self.fragments(*id).await);
        }
        all.sort_unstable();
        all
    }

    pub(super) fn spoil(&self, kept: &Kept, index: usize, bad: Bad) {
        self.spoil_page(kept, index, bad, 0);
    }

    /// Makes a fragment bad; `page` says where in its payload.
    pub(super) fn spoil_page(&self, kept: &Kept, index: usize, bad: Bad, page: u64) {
        let medium = kept.stripe.members[index];
        let disk = &self.disks[self.number(medium)];
        match bad {
            Bad::Down => self.take(medium),
            Bad::Missing => {
                self.run(self.direct(medium, Request::FragmentFree(vec![kept.id()]))).unwrap();
            }
            Bad::Header => disk.flip(self.place(kept, index) + 30),
            Bad::Flipped => disk.flip(self.payload_place(kept, index) + page * PAGE as u64 + 99),
            Bad::Unreadable => {
                let start = self.payload_place(kept, index) + page * PAGE as u64;
                disk.spoil(start..start + PAGE as u64);
            }
            Bad::Wrong => self.falsify(kept, index),
        }
    }

    /// Replaces a fragment by other bytes with CRCs that match.
    fn falsify(&self, kept: &Kept, index: usize) {
        let mut bytes = self.should(kept, index);
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55 + index as u8);
        let payload = PageBuf::copy_of(&bytes).share();
        let container = kept.id();
        let medium = kept.stripe.members[index];
        self.run(async {
            let wanted = Request::FragmentHeader { container, index: index as u8 };
            let Ok(Response::Header(header)) = self.direct(medium, wanted).await else { panic!("no header") };
            let page_crcs = FragmentHeader::crcs_of(&payload);
            let header = Box::new(FragmentHeader { page_crcs, ..*header });
            self.direct(medium, Request::FragmentWrite { header, payload, replace: true }).await.unwrap();
        });
    }

    /// Where the header of a fragment lies on its disk: of several copies the newest.
    fn place(&self, kept: &Kept, index: usize) -> u64 {
        let mut newest = None;
        self.disks[self.number(kept.stripe.members[index])].each_page(|offset, page| {
            if let Ok(header) = FragmentHeader::decode(page)
                && header.container == kept.id()
                && usize::from(header.index) == index
            {
                newest = newest.max(Some((header.allocation, offset)));
            }
        });
        newest.expect("the fragment is on its medium").1
    }

    fn payload_place(&self, kept: &Kept, index: usize) -> u64 {
        self.place(kept, index) + header_bytes(kept.stripe.fragment_bytes()) as u64
    }

    pub(super) fn repaired(&self) -> u64 {
        self.pool.stats().repaired.load(Ordering::Relaxed)
    }

    pub(super) fn decoded(&self) -> u64 {
        self.pool.stats().decoded.load(Ordering::Relaxed)
    }

    pub(super) fn up(&self) -> usize {
        self.pool.health().iter().filter(|health| health.up).count()
    }
}

/// Whether `result` says that a container is lost, by its name.
pub(super) fn assert_lost(result: Result<(), PoolError>, kept: &Kept) {
    let error = result.expect_err("too little is left to read this");
    assert_eq!(error.kind, PoolErrorKind::Lost);
    assert!(error.reason.contains(&kept.id().to_string()), "{error} does not name {}", kept.id());
}

/// Every set of at most `most` of `width` fragments, but for the empty one.
pub(super) fn subsets(width: usize, most: usize) -> Vec<Vec<usize>> {
    let sets = 1..1_u32 << width;
    let members = |set: u32| (0..width).filter(move |index| set & 1 << index != 0).collect();
    sets.filter(|set| set.count_ones() as usize <= most).map(members).collect()
}
