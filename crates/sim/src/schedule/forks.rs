//! The administrator's snapshots, clones and reverts: disks that begin as others are at one instant.

use std::time::Duration;

use engine::Fork;
use meta::Txn;
use units::{BLOCK_U64, DiskId, Epoch, Lba};

use crate::model::ReadId;

use super::admin::Admin;
use super::judge::read_disk;
use super::world::{Serving, Unanswered, look_again};
use seam::Runtime;

/// Most snapshots, and most disks that guests write to, with clones.
const SNAPSHOTS_MAX: usize = 8;
const HEADS_MAX: usize = 6;
/// Where answers are lost, some callers go away after at most so many milliseconds.
const CALLERS_MS: u64 = 30;
/// Most disks cut at one instant.
const AT_ONCE: usize = 3;

/// A fork with what the model needs to follow it.
struct Planned {
    fork: Fork,
    bytes: u64,
    /// The largest size the source ever had: the model remembers zeros that far.
    bytes_max: u64,
}

impl Admin {
    pub(super) async fn fork_something(&mut self, serving: &Serving) {
        let (heads, snapshots) = (self.disks(false), self.disks(true));
        let snapshot = snapshots.get(self.rng.index(snapshots.len().max(1))).copied();
        match (self.rng.below(11), snapshot) {
            (0..=2, _) if snapshots.len() < SNAPSHOTS_MAX => self.fork(serving, true, None).await,
            (3, _) if heads.len() < HEADS_MAX => self.fork(serving, false, None).await,
            // A revert: the disk goes, and another that begins as the snapshot comes.
            (4, Some(snapshot)) if heads.len() > 1 => {
                let head = heads[self.rng.index(heads.len())];
                self.fork(serving, false, Some((snapshot, head))).await;
            }
            (5 | 8, Some(snapshot)) => self.delete(serving, snapshot).await,
            (9 | 10, Some(snapshot)) => self.hold_something(serving, snapshot).await,
            (_, Some(snapshot)) => self.look(serving, snapshot).await,
            _ => {}
        }
    }

    /// Some disks whose size is known, to be cut at one instant.
    async fn plan_forks(
        &mut self,
        serving: &Serving,
        read_only: bool,
        revert: Option<DiskId>,
    ) -> Vec<Planned> {
        let mut sources: Vec<(DiskId, u64, u64)> = {
            let shared = self.world.lock();
            let settled = shared.disks.iter().filter(|(_, disk)| disk.is_settled());
            settled.map(|(id, disk)| (*id, disk.bytes, disk.bytes_max)).collect()
        };
        match revert {
            Some(snapshot) => sources.retain(|(id, ..)| *id == snapshot),
            None => {
                self.rng.shuffle(&mut sources);
                sources.truncate(1 + self.rng.index(AT_ONCE));
            }
        }
        let mut planned = Vec::new();
        for (source, bytes, bytes_max) in sources {
            let Some(target) = self.new_id(serving).await else { return Vec::new() };
            planned.push(Planned { fork: Fork { source, target, read_only }, bytes, bytes_max });
        }
        planned
    }

    async fn fork(&mut self, serving: &Serving, read_only: bool, revert: Option<(DiskId, DiskId)>) {
        let planned = self.plan_forks(serving, read_only, revert.map(|(snapshot, _)| snapshot)).await;
        if planned.is_empty() {
            return;
        }
        let forks: Vec<Fork> = planned.iter().map(|one| one.fork).collect();
        let removed: Vec<DiskId> = revert.iter().map(|(_, head)| *head).collect();
        self.world.note(format_args!("fork {forks:?}, remove {removed:?}"));
        if let Some(head) = removed.first()
            && let Some(disk) = self.world.lock().disks.get_mut(head)
        {
            disk.leaving = true;
        }
        let now = self.world.now();
        let cuts: Vec<ReadId> = forks.iter().map(|_| self.world.lock().model.begin_read(now)).collect();
        let (asked, remove) = (forks.clone(), removed.clone());
        let goes_away = self.world.site.spec().lost_answers && self.rng.below(4) == 0;
        let patience = goes_away.then(|| Duration::from_millis(self.rng.below(CALLERS_MS)));
        let answer = self.world.ask(serving, patience, move |engine| {
            Box::pin(async move { engine.fork(Txn::new(), &asked, &remove).await })
        });
        match answer.await {
            Ok(true) => {
                let now = self.world.now();
                for (one, cut) in planned.iter().zip(cuts) {
                    let Fork { source, target, .. } = one.fork;
                    self.world.add_disk(target, one.bytes, read_only);
                    self.world.created(target);
                    let mut shared = self.world.lock();
                    if let Some(disk) = shared.disks.get_mut(&target) {
                        disk.bytes_max = one.bytes_max;
                    }
                    shared.model.clone_disk(source, target, cut, now);
                    drop(shared);
                    if !read_only {
                        self.invite(target);
                    }
                }
                removed.iter().for_each(|head| self.world.remove_disk(*head));
                if read_only && self.rng.below(3) == 0 {
                    self.hold_something(serving, forks[0].target).await;
                }
            }
            Ok(false) => self.world.wrong(format_args!("{forks:?}: not done, and nothing was in the way")),
            Err(unanswered) => {
                for cut in cuts {
                    self.world.lock().model.abandon_read(cut);
                }
                self.judge(serving, "fork", &unanswered, forks[0].source);
                self.clear_up(serving.engine.epoch(), &forks, &removed).await;
            }
        }
    }

    /// After a fork without an answer: all of it happened or nothing. What is there goes, since nobody knows when it was
    /// cut.
    async fn clear_up(&mut self, before: Epoch, forks: &[Fork], removed: &[DiskId]) {
        let begun = self.world.now();
        loop {
            self.world.rt.sleep(look_again(self.world.now() - begun)).await;
            let Some(serving) = self.world.serving().await else {
                // Nobody will know whether they are there.
                return removed.iter().for_each(|head| self.world.remove_disk(*head));
            };
            if serving.engine.epoch() == before || !serving.engine.is_writable() {
                continue;
            }
            let mut there = Vec::new();
            for disk in forks.iter().map(|fork| fork.target).chain(removed.iter().copied()) {
                match self.size_now(&serving, disk).await {
                    Ok(bytes) => there.push(bytes.is_some()),
                    Err(_) => break,
                }
            }
            if there.len() < forks.len() + removed.len() {
                continue;
            }
            self.world.note(format_args!("{forks:?}, {removed:?}: there {there:?}"));
            let done = there[0];
            if there[..forks.len()].iter().any(|there| *there != done) || there[forks.len()..].contains(&done)
            {
                return self.world.wrong(format_args!("half of a fork was done: {forks:?} {there:?}"));
            }
            for disk in removed {
                if done {
                    self.world.remove_disk(*disk);
                } else if let Some(disk) = self.world.lock().disks.get_mut(disk) {
                    disk.leaving = false;
                }
            }
            if done {
                let targets: Vec<DiskId> = forks.iter().map(|fork| fork.target).collect();
                let answer = self.world.ask(&serving, None, move |engine| {
                    Box::pin(async move { engine.apply(Txn::new(), &[], &targets).await })
                });
                if let Err(unanswered) = answer.await {
                    self.judge(&serving, "delete", &unanswered, forks[0].target);
                }
            }
            return;
        }
    }

    /// A snapshot reads exactly as at its cut, for ever.
    async fn look(&mut self, serving: &Serving, snapshot: DiskId) {
        let read = self.world.lock().model.begin_read(self.world.now());
        let found = self.world.ask(serving, None, move |engine| {
            Box::pin(async move { Ok((read_disk(&engine, snapshot).await, engine.is_writable())) })
        });
        let (mut bytes, settled) = match found.await {
            Ok((Ok(bytes), settled)) => (bytes, settled),
            Ok((Err(error), _)) => {
                self.world.lock().model.abandon_read(read);
                return self.world.note(format_args!("disk {}: {error}", snapshot.0));
            }
            Err(Unanswered::Refused(_) | Unanswered::Died | Unanswered::GaveUp) => {
                return self.world.lock().model.abandon_read(read);
            }
        };
        bytes.resize(bytes.len().next_multiple_of(BLOCK_U64 as usize), 0);
        let now = self.world.now();
        let verdict = if settled {
            self.world.lock().model.check_read(read, snapshot, Lba(0), &bytes, now)
        } else {
            self.world.lock().model.check_unsettled(read, snapshot, Lba(0), &bytes, now)
        };
        if let Err(violation) = verdict {
            self.world.wrong(format_args!("a snapshot: {violation}"));
        }
    }
}
