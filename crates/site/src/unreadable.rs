//! What cannot be read now, and whose it is: as `status` says it, and kept over restarts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::types::{Health, Unreadable};
use api::{AFFECTED_NAMED, Result};
use engine::{Blocked, Exposure};
use units::DiskId;

use crate::running::Shared;
use crate::status::Judging;

/// Longest that a status waits for the disks that something lost is of; a site with large maps takes longer to find them.
const NAMED_WITHIN: Duration = Duration::from_secs(1);
const NAMED_PAUSE: Duration = Duration::from_millis(20);
/// Damaged containers that are remembered over restarts: of more, a scrub finds the others again.
const DAMAGED_KEPT: usize = 1000;

/// Disks that cannot be read whole, how many a reason names.
const AFFECTED_SAID: usize = 8;

/// Whose data it is, in words.
fn whose(unreadable: &Unreadable) -> String {
    let Some(count) = unreadable.affected_count else {
        return "whose data it is is being found out".to_owned();
    };
    let said: Vec<&str> = unreadable.affected.iter().take(AFFECTED_SAID).map(String::as_str).collect();
    match (count, count - said.len()) {
        (0, _) => "no VM or snapshot needs it".to_owned(),
        (_, 0) => format!("affected: {}", said.join(", ")),
        (_, more) => format!("affected: {} and {more} more", said.join(", ")),
    }
}

impl Judging {
    /// With what cannot be read now.
    pub(crate) fn add_unreadable(&mut self, unreadable: Unreadable) {
        let (short, damaged) = (unreadable.short_containers, unreadable.damaged_containers);
        let status = &mut self.0;
        if short > 0 || damaged == 0 && !unreadable.affected.is_empty() {
            let whose = whose(&unreadable);
            let what = if short > 0 { format!("{short} containers") } else { "some containers".to_owned() };
            let reason = format!("cannot be read now: {what}, too few media are up for them; {whose}");
            status.reasons.insert(0, reason);
            status.health = Health::Failed;
        }
        if damaged > 0 {
            let whose = whose(&unreadable);
            status.reasons.insert(
                0,
                format!("damaged beyond repair: {damaged} containers have lost something; {whose}"),
            );
            status.next.push(
                "restore what is affected from a copy, or delete it; `verify` names every disk and container, and \
                 clears what is whole"
                    .to_owned(),
            );
            status.health = if status.health == Health::Ok { Health::Degraded } else { status.health };
        }
        let is_some = short > 0 || damaged > 0 || !unreadable.affected.is_empty();
        status.unreadable = is_some.then_some(unreadable);
    }

    /// With what keeps the cleaner from freeing room; `names` are those of its disks.
    pub(crate) fn add_blocked(&mut self, blocked: &Blocked, names: &[String]) {
        let Blocked { pages, containers, .. } = blocked;
        let whose = match names {
            [] => "the map of a deleted disk".to_owned(),
            _ if names.len() > AFFECTED_SAID => {
                format!(
                    "maps of {} and {} more",
                    names[..AFFECTED_SAID].join(", "),
                    names.len() - AFFECTED_SAID
                )
            }
            _ => format!("maps of {}", names.join(", ")),
        };
        let status = &mut self.0;
        status.reasons.push(format!(
            "the cleaner frees nothing in {containers} containers: {pages} pages of {whose} are lost, and what they named \
             nobody knows"
        ));
        status.next.push(
            "delete the disks and snapshots whose maps are damaged, once what can be read of them is saved"
                .to_owned(),
        );
        status.health = if status.health == Health::Ok { Health::Degraded } else { status.health };
    }
}

impl Shared {
    /// Disks as `VM/DISK` or `VM@SNAPSHOT/DISK`.
    pub(crate) async fn names_of(&self, disks: &[DiskId]) -> Result<Vec<String>> {
        if disks.is_empty() {
            return Ok(Vec::new());
        }
        let mut names: BTreeMap<DiskId, String> = BTreeMap::new();
        for (version, disks) in self.catalog.versions().await? {
            names.extend(disks.into_iter().map(|(disk, id)| (id, format!("{version}/{disk}"))));
        }
        let name = |disk: &DiskId| names.remove(disk).unwrap_or_else(|| format!("disk {} of no VM", disk.0));
        Ok(disks.iter().map(name).collect())
    }

    /// Waits a moment until it is known which disks cannot be read whole.
    pub(crate) async fn named_exposure(&self, mut exposure: Exposure) -> Exposure {
        let until = self.parts.rt.now() + NAMED_WITHIN;
        while exposure.affected.is_none() && self.parts.rt.now() < until {
            self.parts.rt.sleep(NAMED_PAUSE).await;
            exposure = self.parts.engine.exposure();
        }
        exposure
    }

    /// What cannot be read now, with names.
    pub(crate) async fn unreadable(&self, exposure: &Exposure) -> Result<Unreadable> {
        let mut affected = match &exposure.affected {
            Some(disks) => self.names_of(disks).await?,
            None => Vec::new(),
        };
        affected.sort();
        affected.truncate(AFFECTED_NAMED);
        Ok(Unreadable {
            short_containers: exposure.short_containers,
            damaged_containers: exposure.damaged.len() as u64,
            affected,
            affected_count: exposure.affected.as_ref().map(Vec::len),
        })
    }

    /// Keeps what was found lost over restarts.
    pub(crate) async fn note_damaged(&self) -> Result<()> {
        let engine = &self.parts.engine;
        if !engine.is_writable() || engine.is_indexing() {
            return Ok(());
        }
        if !self.damage_is_loaded.swap(true, Ordering::Relaxed) {
            engine.load_damaged(&self.scrub_state().await?.known);
            return Ok(());
        }
        let mut known = engine.damaged();
        known.truncate(DAMAGED_KEPT);
        if !known.is_empty() {
            // Whose data it is shall be known before somebody asks.
            drop(engine.exposure());
        }
        if self.scrub_state().await?.known != known {
            self.change_scrub(|state| state.known = known).await?;
        }
        Ok(())
    }
}
