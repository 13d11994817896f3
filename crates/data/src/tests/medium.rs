//! A medium in memory that writes down what is done to it, so that the contents after a power cut at any point can be
//! had afterwards: synced writes whole, the others kept, lost or torn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use media::{MediaError, MediaErrorKind, Medium, Result};
use seam::BoxFuture;
use units::{PAGE, PageBuf, PageSlice};

const SECTOR: usize = 512;

pub(super) type Image = BTreeMap<u64, Arc<[u8; PAGE]>>;

#[derive(Clone)]
enum Op {
    Write(u64, PageSlice),
    /// The writes at these places of the log are durable.
    Synced(Vec<usize>),
    /// Bytes whose contents are undefined from here on.
    Discard(u64, u64),
}

/// What was done to all media, in order: which medium, and what.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<(usize, Op)>>>);

impl Log {
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn push(&self, medium: usize, op: Op) -> usize {
        let mut log = self.0.lock().unwrap();
        log.push((medium, op));
        log.len() - 1
    }

    /// What medium `which` holds after a power cut behind the first `end` entries; `mode` 0 loses all that was not
    /// synced, 1 keeps it, others draw for each write. From 4 on a torn write leaves garbage, worse than media promise:
    /// nothing that is needed may be written over.
    pub(super) fn cut(&self, which: usize, end: usize, mode: u64) -> Image {
        let log = self.0.lock().unwrap();
        let mut synced = BTreeSet::<usize>::new();
        for (_, op) in log[..end].iter().filter(|(medium, _)| *medium == which) {
            if let Op::Synced(writes) = op {
                synced.extend(writes);
            }
        }
        let mut dice = (end as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mode << 7 | 1;
        let mut roll = move || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice >> 8
        };
        let mut image = Image::new();
        for (at, (_, op)) in log[..end].iter().enumerate().filter(|(_, (medium, _))| *medium == which) {
            let fate = if synced.contains(&at) { 1 } else { mode };
            match (op, fate) {
                (Op::Synced(_), _) | (_, 0) => {}
                (Op::Write(offset, bytes), 1) => put(&mut image, *offset, bytes, || Sector::New),
                (Op::Write(offset, bytes), _) => match roll() % 3 {
                    0 => {}
                    1 => put(&mut image, *offset, bytes, || Sector::New),
                    _ => put(&mut image, *offset, bytes, || match roll() % 4 {
                        0 | 1 => Sector::New,
                        2 if mode >= 4 => Sector::Garbage,
                        _ => Sector::Old,
                    }),
                },
                (Op::Discard(offset, length), _) => {
                    for page in offset / PAGE as u64..(offset + length) / PAGE as u64 {
                        if fate == 1 || roll() % 2 == 0 {
                            image.remove(&page);
                        }
                    }
                }
            }
        }
        image
    }
}

enum Sector {
    Old,
    New,
    Garbage,
}

fn put(image: &mut Image, offset: u64, bytes: &PageSlice, mut fate: impl FnMut() -> Sector) {
    for (i, page) in bytes.as_ref().chunks(PAGE).enumerate() {
        let stored = image.entry(offset / PAGE as u64 + i as u64).or_insert_with(|| Arc::new([0; PAGE]));
        let stored = Arc::make_mut(stored);
        for at in (0..PAGE).step_by(SECTOR) {
            match fate() {
                Sector::Old => {}
                Sector::New => stored[at..at + SECTOR].copy_from_slice(&page[at..at + SECTOR]),
                Sector::Garbage => stored[at..at + SECTOR].fill(0xa5),
            }
        }
    }
}

#[derive(Default)]
struct Inner {
    image: Image,
    /// Writes that completed and are not synced.
    unsynced: Vec<usize>,
    /// Pages that cannot be read.
    unreadable: BTreeSet<u64>,
    /// How many operations pass before one write, or sync, fails in this way.
    fail_write: Option<(u64, MediaErrorKind)>,
    fail_sync: Option<u64>,
    /// The next write ends in a panic.
    panics: bool,
    failing: bool,
    gone: bool,
}

pub(super) struct TestMedium {
    which: usize,
    len: u64,
    log: Log,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for TestMedium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestMedium({})", self.which)
    }
}

impl TestMedium {
    pub(super) fn new(which: usize, len: u64, image: Image, log: &Log) -> Arc<Self> {
        // What is there already is durable.
        for (page, bytes) in &image {
            let at = log.push(which, Op::Write(page * PAGE as u64, PageBuf::copy_of(&bytes[..]).share()));
            log.push(which, Op::Synced(vec![at]));
        }
        let inner = Mutex::new(Inner { image, ..Inner::default() });
        Arc::new(Self { which, len, log: log.clone(), inner })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    pub(super) fn image(&self) -> Image {
        self.with(|inner| inner.image.clone())
    }

    pub(super) fn spoil(&self, offset: u64) {
        self.with(|inner| inner.unreadable.insert(offset / PAGE as u64));
    }

    pub(super) fn flip(&self, bit: u64) {
        self.with(|inner| {
            let page = inner.image.entry(bit / 8 / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[(bit / 8) as usize % PAGE] ^= 1 << (bit % 8);
        });
    }

    pub(super) fn fail_write(&self, skip: u64, kind: MediaErrorKind) {
        self.with(|inner| inner.fail_write = Some((skip, kind)));
    }

    pub(super) fn fail_sync(&self, skip: u64) {
        self.with(|inner| inner.fail_sync = Some(skip));
    }

    pub(super) fn panic_at_next_write(&self) {
        self.with(|inner| inner.panics = true);
    }

    pub(super) fn set_gone(&self, gone: bool) {
        self.with(|inner| inner.gone = gone);
    }

    fn error(&self, kind: MediaErrorKind) -> MediaError {
        let (operation, reason) = ("an operation".to_owned(), format!("{kind:?}"));
        MediaError { kind, medium: self.name().to_owned(), operation, reason }
    }

    fn check(&self, inner: &Inner, offset: u64, length: u64) -> Result<()> {
        let page = PAGE as u64;
        let sane = offset.is_multiple_of(page) && length.is_multiple_of(page) && offset + length <= self.len;
        assert!(sane, "out of bounds or not aligned: {offset}, {length}");
        if inner.gone { Err(self.error(MediaErrorKind::Gone)) } else { Ok(()) }
    }

    fn submit(&self, offset: u64, bytes: &PageSlice) -> Result<usize> {
        // Not under the lock, which is not at fault.
        let panics = self.with(|inner| std::mem::take(&mut inner.panics));
        assert!(!panics, "a fault of the data node, as the test wants it");
        self.with(|inner| {
            self.check(inner, offset, bytes.len() as u64)?;
            if inner.failing {
                return Err(self.error(MediaErrorKind::Io));
            }
            if let Some((skip, kind)) = inner.fail_write {
                inner.fail_write = skip.checked_sub(1).map(|skip| (skip, kind));
                if skip == 0 {
                    return Err(self.error(kind));
                }
            }
            put(&mut inner.image, offset, bytes, || Sector::New);
            Ok(self.log.push(self.which, Op::Write(offset, bytes.clone())))
        })
    }

    fn finish_sync(&self, covers: Vec<usize>) -> Result<()> {
        self.with(|inner| {
            if inner.gone || inner.failing {
                return Err(self.error(MediaErrorKind::Io));
            }
            if let Some(skip) = inner.fail_sync {
                inner.fail_sync = skip.checked_sub(1);
                if skip == 0 {
                    inner.failing = true;
                    return Err(self.error(MediaErrorKind::Io));
                }
            }
            inner.unsynced.retain(|at| !covers.contains(at));
            self.log.push(self.which, Op::Synced(covers));
            Ok(())
        })
    }
}

impl Medium for TestMedium {
    fn name(&self) -> &str {
        "test"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>> {
        Box::pin(async move {
            seam::yield_now().await;
            self.with(|inner| {
                self.check(inner, offset, length as u64)?;
                let mut out = PageBuf::zeroed(length);
                let first = offset / PAGE as u64;
                for (i, page) in out.as_mut().chunks_mut(PAGE).enumerate() {
                    if inner.unreadable.contains(&(first + i as u64)) {
                        return Err(self.error(MediaErrorKind::Io));
                    }
                    if let Some(stored) = inner.image.get(&(first + i as u64)) {
                        page.copy_from_slice(&stored[..]);
                    }
                }
                Ok(out)
            })
        })
    }

    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            seam::yield_now().await;
            let at = self.submit(offset, &bytes)?;
            seam::yield_now().await;
            self.with(|inner| inner.unsynced.push(at));
            Ok(())
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let covers = self.with(|inner| inner.unsynced.clone());
            seam::yield_now().await;
            self.finish_sync(covers)
        })
    }

    /// Promises nothing about other writes.
    fn write_durable(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            seam::yield_now().await;
            let at = self.submit(offset, &bytes)?;
            seam::yield_now().await;
            self.finish_sync(vec![at])
        })
    }

    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            seam::yield_now().await;
            self.with(|inner| {
                self.check(inner, offset, length)?;
                (offset / PAGE as u64..(offset + length) / PAGE as u64).for_each(|page| {
                    inner.image.remove(&page);
                });
                self.log.push(self.which, Op::Discard(offset, length));
                Ok(())
            })
        })
    }

    fn room(&self) -> u64 {
        u64::MAX
    }
}
