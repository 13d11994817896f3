//! What a schedule does, drawn from its seed. Each kind of fault is on in about half the seeds: many at once hide
//! what few find.

use std::collections::BTreeSet;
use std::time::Duration;

use data::{Layout, Params};

use crate::ground::{Member, SiteSpec};
use crate::model::Fill;
use crate::rng::Rng;

/// Which promise a schedule puts to the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Faults within what the geometry tolerates: nothing may be lost.
    Within,
    /// Faults beyond it: right bytes, or an error that names what is lost.
    Beyond,
    /// Several compute nodes that take the site over from each other: one history.
    Takeover,
    /// Shapes of data at the sizes of a real site: all that grows with them keeps its bound.
    Bulk,
}

/// Of so many seeds one goes beyond, and another has compute nodes take over.
const FAMILIES_IN: u64 = 8;
/// Of so many seeds one has data in bulk, which takes as long as a hundred others.
const BULK_IN: u64 = 128;
const BULK: u64 = 100;
/// Numbers of media, the usual ones several times.
const MEDIA: [usize; 12] = [1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 10];

/// How many times as long discards take as writes, most often no longer.
const DISCARDS: [u32; 4] = [1, 1, 50, 500];

impl Family {
    /// The family of a seed when none is asked for.
    pub fn of(seed: u64) -> Self {
        match seed % FAMILIES_IN {
            _ if seed % BULK_IN == BULK => Self::Bulk,
            7 => Self::Beyond,
            3 => Self::Takeover,
            _ => Self::Within,
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Beyond => "beyond",
            Self::Takeover => "takeover",
            Self::Bulk => "bulk",
        }
    }
}

/// What may happen to victims, or to all media.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Menu {
    /// Victims go and come back.
    pub(super) gone: bool,
    /// Bits of victims flip.
    pub(super) rot: bool,
    /// Operations on victims fail.
    pub(super) errors: bool,
    /// Writes to victims are lost or land elsewhere; reads of them lie.
    pub(super) lies: bool,
    /// Messages to and from victims are lost, or take longer than the deadline.
    pub(super) drops: bool,
    /// Messages of all media arrive twice, late and out of order.
    pub(super) disorder: bool,
    /// Any medium is slow for a while.
    pub(super) slow: bool,
    /// The file system below is full for a while.
    pub(super) host_full: bool,
    /// Disks are created, resized and deleted.
    pub(super) disks: bool,
    /// Guests give up on requests.
    pub(super) impatient: bool,
    /// Disks begin as others are: snapshots, clones, reverts.
    pub(super) forks: bool,
    /// The cleaner runs.
    pub(super) cleaner: bool,
    /// Media join and leave, and some never come back.
    pub(super) media: bool,
    /// VMs are made, changed, deleted and restored.
    pub(super) vms: bool,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Kill,
    PowerCut,
}

/// A schedule.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) family: Family,
    pub(super) spec: SiteSpec,
    pub(super) fill: Fill,
    /// Media that faults may strike, never more than the geometry tolerates unless the family goes beyond.
    pub(super) victims: Vec<usize>,
    pub(super) menu: Menu,
    /// Media so small that the guests fill them.
    pub(super) small: bool,
    /// How each life ends, and how many operations it lasts.
    pub(super) lives: Vec<(End, u64)>,
    pub(super) disks: usize,
    pub(super) guests: usize,
    /// Blocks of a disk at the start.
    pub(super) blocks: u64,
    /// Most blocks of a request.
    pub(super) request_blocks: u64,
    /// Longest pause between requests of a guest.
    pub(super) pause: Duration,
    /// Longest pause between acts of the nemesis.
    pub(super) calm: Duration,
    /// How many times as long discards take as writes.
    pub(super) discards: u32,
    /// Ends with a restart before the final look.
    pub(super) restart_at_end: bool,
    /// Recovery from parts of the media is compared at the end.
    pub(super) subsets: usize,
}

impl Plan {
    pub(super) fn new(rng: &mut Rng, family: Family) -> Self {
        let media = match family {
            Family::Within | Family::Takeover | Family::Bulk => MEDIA[rng.index(MEDIA.len())],
            Family::Beyond => MEDIA[2 + rng.index(MEDIA.len() - 2)],
        };
        let menu = Menu {
            gone: rng.coin(),
            rot: rng.coin(),
            errors: rng.coin(),
            lies: rng.coin(),
            drops: rng.chance(300_000),
            disorder: rng.coin(),
            slow: rng.coin(),
            host_full: rng.chance(150_000),
            disks: rng.coin(),
            impatient: rng.chance(300_000),
            forks: rng.chance(600_000),
            cleaner: rng.chance(600_000),
            media: false,
            vms: family == Family::Within && rng.coin(),
        };
        let small = family == Family::Within && rng.chance(120_000);
        let menu = Menu { media: rng.chance(500_000) && !small && !menu.host_full, ..menu };
        let lives = 1 + rng.index(4);
        let ends = [End::Close, End::Kill, End::Kill, End::PowerCut, End::PowerCut];
        let request_blocks = [2, 4, 8, 64][rng.index(4)];
        // Media are looked at and moved in the time of media.
        let pauses =
            if menu.media { [2000, 50_000, 200_000, 1_000_000] } else { [100, 2000, 50_000, 1_000_000] };
        let pause = Duration::from_micros(pauses[rng.index(4)]);
        let ops = 400 / (request_blocks + 4);
        let nodes = if media > 2 && rng.chance(400_000) { 2 + rng.index(media - 2) } else { 0 };
        let spec = SiteSpec { nodes, ..spec(rng, media, small, if menu.media { 3 } else { 0 }) };
        Self {
            family,
            fill: Fill {
                seed: rng.next_u64(),
                compressible_percent: [0, 30, 80][rng.index(3)],
                duplicate_percent: [0, 20, 70][rng.index(3)],
                duplicates: 1 + rng.below(40),
            },
            victims: victims(rng, &spec.domains(), family),
            spec,
            menu,
            small,
            lives: (0..lives).map(|_| (ends[rng.index(5)], 1 + rng.below(2 * ops))).collect(),
            disks: 1 + rng.index(3),
            guests: 1 + rng.index(3),
            blocks: [8, 40, 40, 64, 200, 600, 2100, 5000][rng.index(8)],
            request_blocks,
            pause,
            calm: pause.max(Duration::from_millis(1)) * [1, 4, 20][rng.index(3)],
            restart_at_end: rng.coin(),
            subsets: usize::from(rng.chance(250_000)) * 2,
            discards: DISCARDS[rng.index(DISCARDS.len())],
        }
    }

    /// Whether so few failure domains are left without the victims that no write can be acknowledged: of the media that
    /// the site began with, since one that joins takes part only from some moment on, or of these, since one that left
    /// may have left a domain with a victim alone.
    pub(super) fn can_starve(&self, members: &[Member]) -> bool {
        let first: Vec<usize> = (0..self.spec.media).collect();
        let now: Vec<usize> = members.iter().map(|member| member.number).collect();
        self.starved(&first) || self.starved(&now)
    }

    fn starved(&self, media: &[usize]) -> bool {
        let node = |medium: usize| self.spec.node_of(medium);
        let is_one = media.windows(2).all(|pair| node(pair[0]) == node(pair[1]));
        let domain = |medium: usize| if is_one { medium } else { node(medium) };
        let is_left = |medium: &usize| !self.victims.contains(medium);
        let left: BTreeSet<usize> = media.iter().copied().filter(is_left).map(domain).collect();
        media.len() > 1 && left.len() < 2
    }
}

/// How many failure domains may fail at once without a loss.
pub(super) fn tolerance(domains: usize) -> usize {
    match domains {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    }
}

/// Of some failure domains, a medium each or all that there are.
fn victims(rng: &mut Rng, domains: &[Vec<usize>], family: Family) -> Vec<usize> {
    let most = tolerance(domains.len());
    let count = match family {
        // Where nodes fail whole, most that may.
        Family::Within if domains.iter().any(|media| media.len() > 1) => most - rng.index(most + 1) / 2,
        Family::Within | Family::Takeover | Family::Bulk => rng.index(most + 1),
        Family::Beyond => (most + 1 + rng.index(2)).min(domains.len()),
    };
    let mut all: Vec<usize> = (0..domains.len()).collect();
    rng.shuffle(&mut all);
    let mut victims = Vec::new();
    for domain in all.into_iter().take(count) {
        let media = &domains[domain];
        if media.len() == 1 || rng.chance(700_000) {
            victims.extend(media);
        } else {
            victims.push(media[rng.index(media.len())]);
        }
    }
    victims
}

/// What a start record carries: all there may be, little, or none, so that it goes to the log.
pub(super) fn start_backlog_bytes(params: Params) -> usize {
    [16 << 10, 1 << 10, 0][params.segments_max as usize % 3]
}

fn spec(rng: &mut Rng, media: usize, small: bool, spares: usize) -> SiteSpec {
    let container_bytes = [64, 96, 128][rng.index(3)] << 10;
    let params = Params {
        container_bytes,
        segment_bytes: [64, 128][rng.index(2)] << 10,
        segments_max: 6 + rng.below(5) as u32,
        log_pages: [16, 32, 64][rng.index(3)],
        fragments_max: 1024,
    };
    let least = Layout::new(params, 1 << 30).map_or(0, |layout| layout.data + layout.largest_extent());
    let room = if small { u64::from(container_bytes) * (6 + rng.below(12)) } else { 32 << 20 };
    SiteSpec {
        media,
        nodes: 0,
        spares,
        rebuild_after: Duration::from_millis([500, 5000, 60_000][rng.index(3)]),
        // Slow enough that most moves are cut short.
        rebuild_bytes_per_second: [64 << 10, 512 << 10, 100 << 20][rng.index(3)],
        medium_bytes: (least + room).next_multiple_of(units::PAGE as u64),
        params,
        block_cache_bytes: [8 << 10, 1 << 20][rng.index(2)],
        page_cache_bytes: [8 << 10, 1 << 20][rng.index(2)],
        overlay_entries_max: [32, 256, 100_000][rng.index(3)],
        commits_max: [16, 24, 64][rng.index(3)],
        start_backlog_bytes: start_backlog_bytes(params),
        // One each, or a few: what a checkpoint takes over ends between any two keys.
        meta_keys_per_chunk: [1, 2, 4][rng.index(3)],
        lost_answers: params.segments_max.is_multiple_of(2),
        // Few bits: the index guesses wrong all the time.
        index_tag_bits: [32, 3][rng.index(2)],
    }
}
