//! Virtual time, tasks and disks for one test: a runtime that runs what is ready and then moves its clock, and a disk
//! in memory whose bits flip and whose pages can be made unreadable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use media::{MediaError, MediaErrorKind, Medium, Result};
use seam::{BoxFuture, Runtime};
use units::{PAGE, PageBuf, PageSlice};

use crate::stripe::lock;

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        out.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}

#[derive(Default)]
struct Clock {
    now: Duration,
    ready: VecDeque<Arc<Task>>,
    timers: BTreeMap<(Duration, u64), Waker>,
    count: u64,
}

struct Shared {
    clock: Mutex<Clock>,
    random: Mutex<Random>,
}

/// The runtime. Dropping the one that runs drops all tasks.
pub(super) struct Bench(Arc<Shared>);

struct Task {
    work: Mutex<Option<BoxFuture<'static, ()>>>,
    queued: AtomicBool,
    bench: Weak<Shared>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if let Some(bench) = self.bench.upgrade()
            && !self.queued.swap(true, Ordering::Relaxed)
        {
            lock(&bench.clock).ready.push_back(self);
        }
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { clock: Mutex::default(), random: Mutex::new(Random(1)) }))
    }

    /// Another hand on the same runtime.
    pub(super) fn handle(&self) -> Arc<Bench> {
        Arc::new(Self(self.0.clone()))
    }

    /// Runs everything until `work` is done; other tasks stay where they are.
    pub(super) fn run<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        loop {
            if flag.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
            let task = lock(&self.0.clock).ready.pop_front();
            match task {
                Some(task) => poll(&task),
                None if flag.0.load(Ordering::Relaxed) => {}
                None => self.advance(),
            }
        }
    }

    fn advance(&self) {
        let waker = {
            let mut clock = lock(&self.0.clock);
            let ((at, _), waker) = clock.timers.pop_first().expect("nothing is ready and nothing is awaited");
            clock.now = at;
            waker
        };
        waker.wake();
    }

    /// Drops all tasks: they hold handles on the runtime.
    pub(super) fn end(&self) {
        let (ready, timers) = {
            let mut clock = lock(&self.0.clock);
            (std::mem::take(&mut clock.ready), std::mem::take(&mut clock.timers))
        };
        drop((ready, timers));
    }
}

fn poll(task: &Arc<Task>) {
    task.queued.store(false, Ordering::Relaxed);
    let waker = Waker::from(task.clone());
    let mut work = lock(&task.work);
    if let Some(running) = work.as_mut()
        && running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    {
        *work = None;
    }
}

struct Sleep {
    bench: Arc<Shared>,
    at: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bench = self.bench.clone();
        let mut clock = lock(&bench.clock);
        if clock.now >= self.at {
            return Poll::Ready(());
        }
        if self.key.is_none() {
            clock.count += 1;
            self.key = Some((self.at, clock.count));
        }
        if let Some(key) = self.key {
            clock.timers.insert(key, cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.bench.clock).timers.remove(&key);
            drop(waker);
        }
    }
}

impl Runtime for Bench {
    fn now(&self) -> Duration {
        lock(&self.0.clock).now
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { bench: self.0.clone(), at: self.now() + duration, key: None })
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) {
        let work = Mutex::new(Some(task));
        Arc::new(Task { work, queued: AtomicBool::new(false), bench: Arc::downgrade(&self.0) }).wake();
    }

    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send + 'static>) {
        self.spawn(name, Box::pin(async move { work() }));
    }

    fn fill_random(&self, out: &mut [u8]) {
        lock(&self.0.random).fill(out);
    }
}

#[derive(Default)]
struct Contents {
    pages: BTreeMap<u64, Box<[u8]>>,
    unreadable: BTreeSet<u64>,
    room: Option<u64>,
}

/// A disk in memory. What is written is durable at once; each operation takes 20 to 200 us.
pub(super) struct Disk {
    name: String,
    len: u64,
    bench: Arc<Bench>,
    contents: Mutex<Contents>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Disk {
    pub(super) fn new(bench: &Bench, name: &str, len: u64) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), len, bench: bench.handle(), contents: Mutex::default() })
    }

    /// Flips bit 0 of a byte.
    pub(super) fn flip(&self, offset: u64) {
        let page = offset / PAGE as u64;
        let blank = || vec![0; PAGE].into_boxed_slice();
        lock(&self.contents).pages.entry(page).or_insert_with(blank)[offset as usize % PAGE] ^= 1;
    }

    /// Makes pages unreadable until they are written again.
    pub(super) fn spoil(&self, bytes: Range<u64>) {
        lock(&self.contents).unreadable.extend(bytes.start / PAGE as u64..bytes.end / PAGE as u64);
    }

    /// What the file system below has left.
    pub(super) fn set_room(&self, room: u64) {
        lock(&self.contents).room = Some(room);
    }

    /// Calls `look` with offset and bytes of every page ever written.
    pub(super) fn each_page(&self, mut look: impl FnMut(u64, &[u8])) {
        lock(&self.contents).pages.iter().for_each(|(page, bytes)| look(page * PAGE as u64, bytes));
    }

    async fn wait(&self) {
        let us = 20 + lock(&self.bench.0.random).next() % 180;
        self.bench.sleep(Duration::from_micros(us)).await;
    }
}

impl Medium for Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<PageBuf>> {
        Box::pin(async move {
            self.wait().await;
            let contents = lock(&self.contents);
            let mut out = PageBuf::zeroed(length);
            for (page, piece) in (offset / PAGE as u64..).zip(out.as_mut().chunks_mut(PAGE)) {
                if contents.unreadable.contains(&page) {
                    return Err(MediaError {
                        kind: MediaErrorKind::Io,
                        medium: self.name.clone(),
                        operation: format!("read at {offset}"),
                        reason: "unreadable".into(),
                    });
                }
                contents.pages.get(&page).inspect(|bytes| piece.copy_from_slice(bytes));
            }
            Ok(out)
        })
    }

    fn write(&self, offset: u64, bytes: PageSlice) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.wait().await;
            let mut contents = lock(&self.contents);
            assert!(offset + bytes.len() as u64 <= self.len, "a write beyond the end");
            for (page, piece) in (offset / PAGE as u64..).zip(bytes.as_ref().chunks(PAGE)) {
                contents.unreadable.remove(&page);
                contents.pages.insert(page, piece.into());
            }
            Ok(())
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.wait().await;
            Ok(())
        })
    }

    fn discard(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.wait().await;
            let mut contents = lock(&self.contents);
            for page in offset / PAGE as u64..(offset + length) / PAGE as u64 {
                contents.pages.remove(&page);
            }
            Ok(())
        })
    }

    fn room(&self) -> u64 {
        lock(&self.contents).room.unwrap_or(u64::MAX)
    }
}
