//! How a site is: facts, and a judgement with its reasons.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::types::{
    Clients, Geometry, Health, Keys, Medium, MediumState, Moving, ProtectionState, ProtectionTotals, Status,
    TrashTotals,
};
use api::{format_size, format_time};
use engine::{EngineError, EngineStatus};
use seam::PanicNote;
use units::{MediumId, SiteId};

use machine::Away;

/// Used journal beyond which the site counts as degraded, percent: flushing does not keep up.
const JOURNAL_PERCENT_MAX: usize = 90;
/// Writable part of the capacity without parity below which the site counts as degraded, percent: time to act before
/// guests see errors.
const USABLE_PERCENT_MIN: u128 = 5;
/// With less room, in percent of the media's, no points are made.
const ROOM_FOR_POINTS_PERCENT: u128 = 2;

/// How reasons begin that say that room is short: that of the media, or that of the file systems that hold them.
const POOL_IS: &str = "the pool is";
const BELOW_ARE: &str = "the file systems that hold media are";
/// How reasons begin that say what the start found lost.
const LOST: &str = "lost: ";

/// A judgement that is being made.
pub(crate) struct Judging(pub(crate) Status);

/// Whether room is short, wherever.
fn is_short(status: &Status) -> bool {
    status.reasons.iter().any(|reason| reason.starts_with(POOL_IS) || reason.starts_with(BELOW_ARE))
}

impl Judging {
    /// With what is in the trash, which is the first thing to go when room is short.
    pub(crate) fn add_trash(&mut self, trash: TrashTotals) {
        if trash.items > 0 && is_short(&self.0) {
            let used = format_size(trash.used_bytes);
            let next = format!(
                "`trash empty --yes`, then `clean`: frees up to {used}, the data of {} in the trash",
                trash.items
            );
            self.0.next.insert(0, next);
        }
        self.0.trash = trash;
    }

    /// What the site cannot look after, though it tries again and again.
    /// How well VMs are protected, and which runs fail.
    pub(crate) fn add_protection(&mut self, totals: ProtectionTotals, failing: &[String]) {
        let Self(status) = self;
        if let (Some(worst), Some(state)) = (&totals.worst, totals.worst_state)
            && state >= ProtectionState::Late
        {
            let told =
                format!("VMs are behind the target of their group; the worst is {worst}: {}", state.word());
            if state == ProtectionState::Late {
                status.notices.push(told);
            } else {
                status.reasons.push(told);
                status.next.push("see which and why: `vm list`, `group show`".to_owned());
                if status.health == Health::Ok {
                    status.health = Health::Degraded;
                }
            }
        }
        status.notices.extend(failing.iter().cloned());
        status.protection = totals;
    }

    pub(crate) fn add_troubles(&mut self, troubles: &[(&'static str, String)]) {
        let status = &mut self.0;
        for (what, reason) in troubles {
            status.reasons.push(format!("{what} cannot be looked after: {reason}"));
        }
        if !troubles.is_empty() && status.health == Health::Ok {
            status.health = Health::Degraded;
            status.next.push("see the server's log; it is tried again within seconds".to_owned());
        }
    }

    /// What earlier data keys stay for.
    pub(crate) fn add_keys(&mut self, keys: &Keys) {
        if let Some(until_ms) = keys.held_until_ms {
            let until = format_time(until_ms);
            self.0.notices.push(format!("earlier data keys stay on the media for held data until {until}"));
        }
    }
}

/// Puts together what the engine says and what is known of the media.
pub(crate) fn judge(
    site: SiteId,
    engine: EngineStatus,
    writable: bool,
    media: Vec<(MediumId, PathBuf, u64)>,
    (away, removed): (&BTreeMap<MediumId, Away>, &[MediumId]),
    shared_devices: &[Vec<PathBuf>],
    vms: usize,
) -> Judging {
    let place =
        |medium: &MediumId| media.iter().find(|(id, ..)| id == medium).map(|(_, path, _)| path.clone());
    let limit = engine.limit.and_then(|limit| Some((place(&limit.medium)?, limit.stranded_bytes)));
    let lacking =
        engine.lacking.iter().filter_map(|(medium, count)| Some((place(medium)?, *count))).collect();
    let removed = removed.iter().filter_map(place).collect();
    let mut status = Status {
        site: site.to_string(),
        health: Health::Ok,
        reasons: Vec::new(),
        next: Vec::new(),
        notices: Vec::new(),
        protection: ProtectionTotals::default(),
        provisioned_bytes: 0,
        logical_bytes: engine.logical_bytes,
        unique_bytes: engine.unique_bytes,
        stored_bytes: engine.stored_bytes,
        raw_bytes: engine.raw_bytes,
        raw_capacity_bytes: engine.raw_capacity,
        usable_bytes: engine.usable_bytes,
        likely_bytes: engine.likely_bytes.max(engine.usable_bytes),
        buffered_bytes: engine.buffered_bytes,
        journal_used_percent: engine.journal_used_percent,
        writable,
        faults: engine.faults,
        repaired: engine.repaired,
        geometry: engine.class.map(|class| Geometry { data: class.k, parity: class.m }),
        can_lose_now: engine.exposure.can_lose,
        unreadable: None,
        trash: TrashTotals::default(),
        clients: Clients::default(),
        tasks: Vec::new(),
        media: media.into_iter().map(|medium| medium_status(medium, &engine, away)).collect(),
        vms,
    };
    let up = status.media.iter().filter(|medium| medium.state != MediumState::Down).count();
    let is_all_readable = engine.exposure.short_containers == 0 && engine.exposure.damaged.is_empty();
    let troubles = Troubles {
        stuck: engine.stuck.filter(|_| engine.losses.is_empty()),
        checkpoint: engine.checkpoint_trouble,
        panics: engine.panics,
        losses: engine.losses,
        in_ram_alone: engine.exposure.in_ram_alone,
        lacking,
        removed,
        limit,
        below_short_bytes: engine.below_short_bytes,
        garbage_bytes: engine.garbage_bytes,
    };
    find_reasons(&mut status, up, is_all_readable, &troubles);
    find_next(&mut status, up, &troubles);
    find_notices(&mut status, engine.recovering_index, shared_devices);
    Judging(status)
}

fn medium_status(
    (id, path, bytes): (MediumId, PathBuf, u64),
    engine: &EngineStatus,
    away: &BTreeMap<MediumId, Away>,
) -> Medium {
    let health = engine.media.iter().find(|health| health.medium == id);
    let state = match health {
        Some(health) if health.up && health.full => MediumState::Full,
        Some(health) if health.up => MediumState::Up,
        _ => MediumState::Down,
    };
    let known = away.get(&id).map(|away| away.reason.clone());
    let reason = known.or_else(|| health.and_then(|health| health.reason.clone()));
    let moves = engine.moving.iter().find(|moving| moving.medium == id);
    let trouble = moves.and_then(|moving| moving.trouble.clone());
    Medium {
        id: id.to_string(),
        path: path.display().to_string(),
        bytes,
        state,
        leaving: health.is_some_and(|health| health.leaving),
        moving: moves.map(|moving| Moving { done_bytes: moving.done_bytes, left_bytes: moving.left_bytes }),
        reason: reason.filter(|_| state == MediumState::Down).or(trouble),
    }
}

/// What the engine cannot do now.
struct Troubles {
    /// Why the write buffer is not flushed.
    stuck: Option<EngineError>,
    /// Why the last checkpoint failed.
    checkpoint: Option<EngineError>,
    /// Tasks that panicked.
    panics: Vec<PanicNote>,
    /// What the start found lost.
    losses: Vec<String>,
    /// No medium that is up has all that was acknowledged.
    in_ram_alone: bool,
    /// Media that lack fragments, and how many.
    lacking: Vec<(PathBuf, u64)>,
    /// Files of media that are in use and have no name any more.
    removed: Vec<PathBuf>,
    /// The medium that is full before the others, and the bytes that stay free on these.
    limit: Option<(PathBuf, u64)>,
    /// Bytes for which media have room and the file systems below them have none.
    below_short_bytes: u64,
    /// Bytes that the cleaner left as garbage when it last looked.
    garbage_bytes: Option<u64>,
}

fn find_reasons(status: &mut Status, up: usize, is_all_readable: bool, troubles: &Troubles) {
    let reasons = &mut status.reasons;
    for medium in status.media.iter().filter(|medium| medium.state != MediumState::Up) {
        let path = &medium.path;
        reasons.push(match (medium.state, &medium.reason) {
            (MediumState::Full, _) => format!("medium {path} is full"),
            (_, Some(reason)) => format!("medium {path} is down: {reason}"),
            (_, None) => format!("medium {path} is down"),
        });
    }
    for medium in &status.media {
        if let Some(moving) = medium.moving.filter(|moving| moving.left_bytes > 0) {
            let Moving { done_bytes, left_bytes } = moving;
            let (path, done, all) =
                (&medium.path, format_size(done_bytes), format_size(done_bytes + left_bytes));
            let how = if medium.leaving { "draining" } else { "rebuilding" };
            status.notices.push(format!("{how} {path}: {done} of {all} on other media"));
        }
    }
    if up < status.media.len() && status.can_lose_now == 0 && is_all_readable {
        reasons.push("one more failed medium would lose data".to_owned());
    }
    if status.journal_used_percent > JOURNAL_PERCENT_MAX {
        reasons.push(format!("the journal is {} % full", status.journal_used_percent));
    }
    for (path, count) in &troubles.lacking {
        reasons.push(format!(
            "medium {} lacks up to {count} fragments: it is an older copy of itself, or it lost what it held",
            path.display()
        ));
    }
    for path in &troubles.removed {
        reasons.push(format!(
            "the file {} was removed or replaced: the medium goes when the server stops",
            path.display()
        ));
    }
    if let Some((path, stranded)) = &troubles.limit {
        let free = format_size(*stranded);
        status.notices.push(format!(
            "medium {} is full before the others, on which {free} stay unused: `media replace` it by one as large",
            path.display()
        ));
    }
    let Troubles { stuck, checkpoint, panics, losses, in_ram_alone, below_short_bytes, .. } = troubles;
    if *in_ram_alone {
        reasons.push(
            "all media of a part of the journal are down: what it holds is in this server's RAM alone"
                .to_owned(),
        );
    }
    reasons.extend(losses.iter().map(|what| format!("{LOST}{what}")));
    reasons.extend(stuck.iter().map(|error| format!("the journal cannot be emptied: {error}")));
    reasons.extend(checkpoint.iter().map(|error| {
        format!("checkpoints fail, and without one changes of VMs are refused in the end: {error}")
    }));
    reasons.extend(panics.iter().map(|PanicNote { task, said, count }| {
        format!("a bug: the task {task:?} panicked, {count} times so far, the last time with: {said}")
    }));
    // Where no container can be written, room says nothing of being full.
    if let Some(Geometry { data, parity }) = status.geometry {
        let share = u128::from(status.raw_capacity_bytes) * data as u128 / (data + parity) as u128;
        reasons.extend(fullness(status.usable_bytes, *below_short_bytes, share));
    }
    status.health = if reasons.is_empty() { Health::Ok } else { Health::Degraded };
    if status.geometry.is_none() || !status.writable {
        reasons.push("reads only: writes cannot be taken safely now".to_owned());
        status.health = Health::Failed;
    }
}

/// What to do about what is wrong.
fn find_next(status: &mut Status, up: usize, troubles: &Troubles) {
    if !troubles.panics.is_empty() {
        let next =
            "report the bug with the server's log; what was acknowledged is safe, and a restart does no harm";
        status.next.push(next.to_owned());
    }
    if !troubles.losses.is_empty() {
        status.next.push(
            "snapshots that were made before are served; `standalone --salvage` serves the disks too, to read, as far as \
             they are known; `site recover --accept-loss` goes on from what is left"
                .to_owned(),
        );
    }
    if troubles.in_ram_alone {
        status.next.push("leave the server running until media are back".to_owned());
    }
    if up < status.media.len() {
        status.next.push(
            "bring the media that are down back, which are taken up within seconds unless their reason says at the \
             next start; or put others in their place: `media replace`"
                .to_owned(),
        );
    }
    if !troubles.lacking.is_empty() {
        status.next.push(
            "a scrub writes what is lacking anew and begins by itself: `task list`; see why the medium lost it"
                .to_owned(),
        );
    }
    if !troubles.removed.is_empty() {
        status.next.push(
            "drain the media whose files were removed, or put others in their place, before the server stops: \
             `media drain`, `media replace`"
                .to_owned(),
        );
    }
    find_room(status, troubles);
    if status.journal_used_percent > JOURNAL_PERCENT_MAX && status.writable {
        status.next.push("wait, or slow the guests down: the journal empties into the pool".to_owned());
    }
    if status.health != Health::Ok && status.next.is_empty() {
        status.next.push("see the server's log; `media list` shows the media".to_owned());
    }
}

/// What makes room, where it is short.
fn find_room(status: &mut Status, troubles: &Troubles) {
    let is_full = status.media.iter().any(|medium| medium.state == MediumState::Full);
    let is_below = status.reasons.iter().any(|reason| reason.starts_with(BELOW_ARE));
    if is_below || is_full && troubles.below_short_bytes > 0 {
        status.next.push(
            "make room on the file systems that hold the media: writes go on by themselves within seconds"
                .to_owned(),
        );
    }
    if is_short(status) {
        // A hundredth is always there.
        let worth = |bytes: &u64| *bytes * 100 > status.stored_bytes;
        let garbage = troubles.garbage_bytes.filter(worth).map_or_else(String::new, |bytes| {
            format!(": about {} were garbage when the cleaner last looked", format_size(bytes))
        });
        status.next.push(format!("delete what is not needed, then free what it took: `clean`{garbage}"));
    }
    if !is_below && (is_full && troubles.below_short_bytes == 0 || is_short(status)) {
        status.next.push(
            "add a medium, or put larger ones in the place of full ones: `media add`, `media replace`"
                .to_owned(),
        );
    }
}

/// What is wrong with the room that is left: `usable` bytes, and `below_short` more if the file systems below had room. `share`
/// is the room of all media without parity.
fn fullness(usable: u64, below_short: u64, share: u128) -> Option<String> {
    let is_low = |bytes: u128| bytes * 100 < share * USABLE_PERCENT_MIN;
    if usable > 0 && !is_low(usable.into()) {
        return None;
    }
    let is_below = below_short > 0 && !is_low(u128::from(usable) + u128::from(below_short));
    let what = if is_below { BELOW_ARE } else { POOL_IS };
    let full = match usable {
        0 => format!("{what} full: writes are refused"),
        _ => format!("{what} nearly full: {} can be written", format_size(usable)),
    };
    let on_media = format!("; the media have room for {} more", format_size(below_short));
    Some(if is_below { full + &on_media } else { full })
}

fn find_notices(status: &mut Status, recovering_index: bool, shared_devices: &[Vec<PathBuf>]) {
    let notices = &mut status.notices;
    if status.media.len() == 1 {
        notices.push("no redundancy: the site has one medium".to_owned());
    }
    for group in shared_devices {
        let paths: Vec<String> = group.iter().map(|path| path.display().to_string()).collect();
        let joined = paths.join(", ");
        notices.push(format!("these media share one physical device and fail together: {joined}"));
    }
    if recovering_index {
        notices.push("the index is being rebuilt: fewer duplicates are found until then".to_owned());
    }
}

/// Whether there is room enough for points: what they keep cannot be written over.
pub(crate) fn has_room_for_points(status: &EngineStatus) -> bool {
    let free = u128::from(status.likely_bytes.max(status.usable_bytes));
    free * 100 >= u128::from(status.raw_capacity) * ROOM_FOR_POINTS_PERCENT
}
