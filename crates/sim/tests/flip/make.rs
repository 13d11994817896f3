//! The store that is flipped.

use data::{Layout, Params};
use engine::{Engine, Fork};
use meta::Txn;
use sim::{Limits, Simulation, Site, SiteImage, SiteSpec};
use units::{BLOCK, BLOCK_U64, DiskId, PAGE};

/// A run that takes so many steps hangs.
pub(super) const STEPS: u64 = 2_000_000;
/// What blocks are made from.
pub(super) const VALUES: std::ops::Range<u64> = 0..1002;
/// Blocks of the two disks; the second needs map pages of two levels.
const DISK_BLOCKS: [u64; 2] = [12, 70];
/// Holes written to fill a segment: far more than it can take.
const FILL_MAX: usize = 100;

/// What the disks hold.
pub(super) type Contents = Vec<(DiskId, Vec<u8>)>;

/// A complete store.
pub(super) struct Store {
    pub(super) spec: SiteSpec,
    pub(super) image: SiteImage,
    /// The containers that were committed then; those of commits in the newest segment come besides.
    pub(super) ledger: Vec<journal::LedgerRun>,
    /// What was acknowledged.
    pub(super) now: Contents,
    /// The same before the last requests, which are all on different blocks.
    pub(super) older: Contents,
}

fn spec(media: usize) -> SiteSpec {
    let params = Params {
        container_bytes: 64 * 1024,
        segment_bytes: 80 * 1024,
        segments_max: 8,
        log_pages: 16,
        fragments_max: 64,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + 32 * layout.largest_extent());
    SiteSpec {
        nodes: 0,
        spares: 0,
        rebuild_after: std::time::Duration::from_secs(600),
        rebuild_bytes_per_second: 100 << 20,
        media,
        medium_bytes: least.next_multiple_of(PAGE as u64),
        params,
        // Next to none: every read reaches the media.
        block_cache_bytes: 1,
        page_cache_bytes: 1 << 20,
        overlay_entries_max: 1000,
        commits_max: 64,
        start_backlog_bytes: 16 << 10,
        meta_keys_per_chunk: 4,
        lost_answers: false,
        index_tag_bits: 32,
    }
}

/// A block that compresses to about a hundred bytes.
pub(super) fn block(value: u64) -> Vec<u8> {
    let mut word = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = vec![0; BLOCK];
    for byte in &mut out[..48] {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        *byte = word as u8;
    }
    out
}

/// One life's guest.
struct Guest<'a> {
    engine: Engine,
    contents: &'a mut Contents,
}

impl Guest<'_> {
    fn set(&mut self, disk: usize, lba: u64, bytes: &[u8]) -> DiskId {
        let (id, contents) = &mut self.contents[disk];
        contents[lba as usize * BLOCK..][..BLOCK].copy_from_slice(bytes);
        *id
    }

    async fn write(&mut self, disk: usize, lba: u64, value: u64) {
        let data = block(value);
        let id = self.set(disk, lba, &data);
        self.engine.write(id, lba * BLOCK_U64, &data).await.expect("writes");
    }

    async fn punch(&mut self, disk: usize, lba: u64) {
        let id = self.set(disk, lba, &[0; BLOCK]);
        self.engine.punch(id, lba * BLOCK_U64, BLOCK_U64, true).await.expect("punches");
    }

    /// Blocks on both disks, some equal to others there or in older containers, and holes.
    async fn some(&mut self, step: u64) {
        for (disk, blocks) in DISK_BLOCKS.into_iter().enumerate() {
            // Both ends: the leaves of the larger disk are two.
            self.write(disk, blocks - 1 - step, 100 + step).await;
            self.write(disk, step, step / 2).await;
        }
        self.punch(step as usize % 2, step.saturating_sub(1)).await;
    }

    async fn make_disk(&mut self, blocks: u64) -> DiskId {
        let disk = self.engine.new_disk_id().await.expect("an id");
        let made = self.engine.apply(Txn::new(), &[(disk, blocks * BLOCK_U64)], &[]).await;
        assert!(made.expect("a disk"));
        disk
    }

    async fn make_and_remove_disk(&mut self) {
        let disk = self.make_disk(3).await;
        assert!(self.engine.apply(Txn::new(), &[], &[disk]).await.expect("removes"));
    }

    /// A snapshot of the first disk.
    async fn snapshot(&mut self) {
        let (source, contents) = self.contents[0].clone();
        let target = self.engine.new_disk_id().await.expect("an id");
        let fork = Fork { source, target, read_only: true };
        assert!(self.engine.fork(Txn::new(), &[fork], &[]).await.expect("a snapshot"));
        self.contents.push((target, contents));
    }

    /// Requests at once: the journal takes them in few batches, each on a block of its own.
    async fn at_once(&mut self) {
        let (first, second) = (block(1000), block(1001));
        let disks = [self.set(0, 2, &first), self.set(1, 3, &second), self.set(1, 5, &[0; BLOCK])];
        let engine = &self.engine;
        let requests: [seam::BoxFuture<'_, _>; 3] = [
            Box::pin(engine.write(disks[0], 2 * BLOCK_U64, &first)),
            Box::pin(engine.write(disks[1], 3 * BLOCK_U64, &second)),
            Box::pin(engine.punch(disks[2], 5 * BLOCK_U64, BLOCK_U64, true)),
        ];
        for done in seam::join_all(requests).await {
            done.expect("writes");
        }
    }
}

/// Punches the same hole until a new segment is open.
async fn fill_segment(site: &Site, guest: &mut Guest<'_>) {
    let segment = site.image().witness().last;
    for round in 0.. {
        guest.punch(0, 11).await;
        if site.image().witness().last != segment {
            return;
        }
        assert!(round < FILL_MAX, "the segment does not fill");
    }
}

/// The first life: disks, and three segments of a journal that no container covers. Two of their slots are used again
/// in the second life, which leaves the last as it was freed.
async fn first_life(site: &Site, guest: &mut Guest<'_>) {
    for blocks in DISK_BLOCKS {
        let disk = guest.make_disk(blocks).await;
        guest.contents.push((disk, vec![0; blocks as usize * BLOCK]));
    }
    guest.make_and_remove_disk().await;
    guest.some(0).await;
    fill_segment(site, guest).await;
    fill_segment(site, guest).await;
    guest.some(1).await;
}

/// The second life takes these over into its first container. Then containers, a checkpoint, commits and metadata behind
/// it, writes that no commit covers in two segments, and with `late` a checkpoint in the newest.
async fn second_life(site: &Site, guest: &mut Guest<'_>, late: bool) {
    guest.some(2).await;
    guest.engine.drain().await.expect("drains");
    guest.engine.checkpoint().await.expect("a checkpoint");
    guest.make_and_remove_disk().await;
    guest.snapshot().await;
    guest.some(3).await;
    guest.engine.drain().await.expect("drains");
    let cleaned = guest.engine.clean(0, &engine::Progress::default()).await.expect("cleans");
    assert!(cleaned.moved > 0, "a stub and a delete record: {cleaned:?}");
    guest.some(4).await;
    guest.snapshot().await;
    fill_segment(site, guest).await;
    guest.make_and_remove_disk().await;
    if late {
        guest.engine.checkpoint().await.expect("a checkpoint");
    }
    guest.some(5).await;
}

/// Makes the store.
pub(super) fn make(media: usize) -> Store {
    let sim = Simulation::new(1, Limits { steps: STEPS, ..Limits::default() });
    let control = (*sim).clone();
    let work = async {
        let site = Site::format(&control, spec(media)).await;
        let mut now: Contents = Vec::new();
        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        first_life(&site, &mut Guest { engine, contents: &mut now }).await;
        site.end(life, false);

        let mut life = site.boot();
        let engine = life.opened().await.expect("it lives").expect("a sound site opens");
        let mut guest = Guest { engine, contents: &mut now };
        second_life(&site, &mut guest, media.is_multiple_of(3)).await;
        let older = guest.contents.clone();
        let ledger = guest.engine.ledger();
        guest.at_once().await;
        site.end(life, false);
        Store { spec: spec(media), image: site.image(), ledger, now, older }
    };
    sim.run_until(work).expect("the store is made")
}
