//! An administrator of VMs: what the catalogue says is what was acknowledged, with the data, whatever ends the server.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::types::{ChangeAttributes, ListVms};
use api::{Version, VmName};
use catalog::Deletion;
use engine::Engine;
use seam::Runtime;
use units::{BLOCK, BLOCK_U64, DiskId, Epoch};

use crate::ground::{Life, engine_error};
use crate::rng::Rng;

use model::{Change, Model, View};

use super::judge::in_life;
use super::world::{Serving, World, look_again};

const NAMES: [&str; 4] = ["web", "db", "mail", "ci"];
const SNAPSHOTS: [&str; 3] = ["a", "b", "c"];
/// Blocks of a disk.
const BLOCKS: u64 = 4;
/// How long the trash keeps things, ms: some go within a schedule.
const KEEP_MS: [u64; 3] = [2000, 100_000, 30 * 86_400_000];

/// What is known of the VMs.
#[derive(Debug, Default)]
pub(super) struct Known {
    model: Model,
    doubt: Option<Doubt>,
    /// The highest site time that a life reached, ms: what is over by then may have gone, also where a later
    /// life begins before it.
    reached_ms: u64,
}

impl Known {
    /// A life ended at this site time.
    pub(super) fn ended_at(&mut self, now_ms: u64) {
        self.reached_ms = self.reached_ms.max(now_ms);
    }
}

/// A change whose outcome nobody knows.
#[derive(Debug)]
struct Doubt {
    change: Change,
    /// The incarnation that was asked.
    epoch: Epoch,
    /// No sooner goes what it throws away, site time in ms.
    least_ms: u64,
}

/// What a catalogue says.
#[derive(Debug)]
struct Said {
    view: View,
    /// Numbers in the trash, each with the site time, ms, when its time is over.
    expires_ms: BTreeMap<u64, u64>,
    now_ms: u64,
}

impl Said {
    /// Numbers in the trash whose time is over at `now_ms`.
    fn over(&self, now_ms: u64) -> Vec<u64> {
        self.expires_ms.iter().filter(|(_, expires_ms)| **expires_ms <= now_ms).map(|(id, _)| *id).collect()
    }
}

pub(super) struct Vms {
    world: Arc<World>,
    rng: Rng,
    /// The incarnation whose catalogue was compared.
    seen: Option<Epoch>,
    /// How long the trash keeps things.
    keep_ms: u64,
}

impl Vms {
    pub(super) fn new(world: &Arc<World>) -> Self {
        let mut rng = world.control.rng("VMs");
        let keep_ms = KEEP_MS[rng.index(KEEP_MS.len())];
        Self { world: world.clone(), rng, seen: None, keep_ms }
    }

    pub(super) async fn run(mut self) {
        let keep = Duration::from_millis(self.keep_ms);
        let mut is_kept = false;
        while !self.world.is_over() {
            let pause = self.rng.below(2 * self.world.plan.pause.as_nanos() as u64);
            self.world.rt.sleep(Duration::from_nanos(pause).max(Duration::from_micros(100))).await;
            let Some(serving) = self.world.serving().await else { return };
            if !is_kept {
                let set = self.world.ask_site(&serving, move |site| {
                    Box::pin(async move { site.catalog().set_trash_keep(keep).await })
                });
                is_kept = set.await.is_ok();
                continue;
            }
            if !self.settle(&serving).await {
                continue;
            }
            let change = self.change();
            self.make(&serving, change).await;
        }
    }

    /// Finds out what became of a change without an answer, once another process serves; compares all once in each life.
    /// False when that has to wait.
    async fn settle(&mut self, serving: &Serving) -> bool {
        let epoch = serving.engine.epoch();
        let asked = self.world.lock().vms.doubt.as_ref().map(|doubt| doubt.epoch);
        if asked == Some(epoch) || !serving.engine.is_writable() {
            self.world.rt.sleep(look_again(Duration::from_secs(1))).await;
            return false;
        }
        if asked.is_some() || self.seen != Some(epoch) || self.rng.chance(250_000) {
            let site = serving.site.clone();
            let said = self.world.ask_site(serving, move |_| Box::pin(async move { said(&site).await }));
            match said.await {
                Ok(said) => self.world.compare_vms(&said),
                Err(_) => return false,
            }
            self.seen = Some(epoch);
        }
        true
    }

    /// One that the model takes or refuses.
    fn change(&mut self) -> Change {
        let known = self.world.lock();
        let model = known.vms.model.clone();
        drop(known);
        let vms: Vec<&String> = model.vms.keys().collect();
        let (trash, pick) = (model.trash(), self.rng.below(20));
        let new = NAMES[self.rng.index(NAMES.len())].to_owned();
        if vms.is_empty() || pick < 2 {
            if let Some(id) = trash.get(self.rng.index(trash.len().max(1))).filter(|_| self.rng.coin()) {
                return Change::Restore { id: *id };
            }
            return Change::Create { vm: new, disks: 1 + self.rng.index(2) };
        }
        let vm = vms[self.rng.index(vms.len())].clone();
        let new = if new == vm { "other".to_owned() } else { new };
        let snapshots: Vec<&String> = model.vms[&vm].snapshots.keys().collect();
        let snapshot = snapshots.get(self.rng.index(snapshots.len().max(1))).map(|name| (*name).clone());
        let name = SNAPSHOTS[self.rng.index(SNAPSHOTS.len())].to_owned();
        let item = trash.get(self.rng.index(trash.len().max(1))).copied();
        match (pick, snapshot, item) {
            (3..=6, ..) => Change::Write { vm, stamp: 1 + self.rng.below(250) as u8 },
            (7, ..) => Change::Folder { vm, folder: format!("/{}", SNAPSHOTS[self.rng.index(3)]) },
            (8, ..) => Change::Rename { vm, new },
            (9, Some(snapshot), _) if snapshot != name => {
                Change::RenameSnapshot { vm, name: snapshot, new: name }
            }
            (10, snapshot, _) => Change::Clone { vm, snapshot, new },
            (11, Some(name), _) => Change::Revert { vm, name },
            (12 | 13, ..) => Change::Delete { vm, with_snapshots: self.rng.coin() },
            (14 | 15, Some(name), _) => Change::DeleteSnapshot { vm, name, now: self.rng.coin() },
            (16 | 17, _, Some(id)) => Change::Restore { id },
            (18, _, Some(id)) => Change::Empty { id },
            _ => Change::Snapshot { vm, name },
        }
    }

    async fn make(&mut self, serving: &Serving, change: Change) {
        let refused = self.world.lock().vms.model.refuses(&change);
        self.world.note(format_args!("VMs: {change:?}, refused: {refused:?}"));
        // From here on it may be made.
        let least_ms = serving.engine.site_time_ms() + self.keep_ms;
        let doubt = Doubt { change: change.clone(), epoch: serving.engine.epoch(), least_ms };
        self.world.lock().vms.doubt = Some(doubt);
        let (site, asked) = (serving.site.clone(), change.clone());
        let work = Box::pin(async move { make(&site, &asked).await });
        let answer = self.world.ask_api(serving, work).await;
        self.world.note(format_args!("VMs: {answer:?}"));
        match (answer, refused) {
            (Ok(told), None) => {
                let mut known = self.world.lock();
                known.vms.model.make(&change, told.as_deref(), least_ms);
                known.vms.doubt = None;
            }
            (Err(Some(error)), Some(code)) if error.code == code => self.world.lock().vms.doubt = None,
            (Ok(_), Some(code)) => self.world.wrong(format_args!("{change:?} was made; right: {code}")),
            // What it was about may have gone meanwhile, its time in the trash being over.
            (Err(Some(error)), _)
                if matches!(change, Change::Restore { .. } | Change::Empty { .. })
                    && matches!(error.code, api::code::TRASH_NOT_FOUND | api::code::TRASH_EMPTYING) =>
            {
                self.world.lock().vms.doubt = None;
            }
            (Err(Some(error)), _) => {
                let unanswered = engine_error(error.clone());
                if !self.world.may_refuse(&unanswered, DiskId(0), 0, true) {
                    self.world.wrong(format_args!("{change:?} was refused: {} {error}", error.code));
                }
            }
            (Err(None), _) => {}
        }
    }
}

/// Makes a change; gives the number in the trash or the name of the snapshot that it made by itself.
async fn make(site: &::site::Site, change: &Change) -> api::Result<Option<String>> {
    let (catalog, name) = (site.catalog(), |name: &str| VmName::parse(name));
    match change {
        Change::Create { vm, disks } => {
            catalog.create_vm(&name(vm)?, &vec![BLOCKS * BLOCK_U64; *disks]).await?;
        }
        Change::Write { vm, stamp } => {
            let disks = catalog.disks_of(&[format!("{vm}/disk0")]).await?;
            site.engine().write(disks[0], 0, &[*stamp; BLOCK]).await?;
        }
        Change::Folder { vm, folder } => {
            let change = ChangeAttributes { folder: Some(folder.clone()), ..ChangeAttributes::default() };
            catalog.change_attributes(&name(vm)?, &change).await?;
        }
        Change::Rename { vm, new } => drop(catalog.rename_vm(&name(vm)?, &name(new)?).await?),
        Change::Snapshot { vm, name: new } => drop(catalog.snapshot(&name(vm)?, Some(&name(new)?)).await?),
        Change::RenameSnapshot { vm, name: old, new } => {
            catalog.rename_snapshot(&name(vm)?, &name(old)?, &name(new)?).await?;
        }
        Change::Clone { vm, snapshot, new } => {
            let snapshot = snapshot.as_deref().map(name).transpose()?;
            catalog.clone_vm(&Version { vm: name(vm)?, snapshot }, &name(new)?).await?;
        }
        Change::Revert { vm, name: to } => {
            return Ok(Some(catalog.revert(&name(vm)?, &name(to)?).await?.1.name));
        }
        Change::Delete { vm, with_snapshots } => {
            let how = Deletion { now: false, with_snapshots: *with_snapshots };
            let thrown = catalog.delete_vm(&name(vm)?, how).await?;
            return Ok(thrown.map(|item| item.id.to_string()));
        }
        Change::DeleteSnapshot { vm, name: gone, now } => {
            let thrown = catalog.delete_snapshot(&name(vm)?, &name(gone)?, *now).await?;
            return Ok(thrown.map(|item| item.id.to_string()));
        }
        Change::Restore { id } => drop(catalog.restore(*id, None).await?),
        Change::Empty { id } => catalog.empty_trash(*id).await?,
    }
    Ok(None)
}

/// What the catalogue says, with what is in the first block of each disk.
async fn said(site: &::site::Site) -> api::Result<Said> {
    let (catalog, engine) = (site.catalog(), site.engine());
    loop {
        let items = catalog.trash(0, usize::MAX).await?;
        let mut view = View::default();
        for (name, disks) in catalog.versions().await? {
            let mut stamps = Vec::new();
            for (_, disk) in disks {
                stamps.push(stamp(engine, disk).await?);
            }
            view.versions.insert(name, stamps);
        }
        for vm in catalog.vms(&ListVms::default()).await? {
            view.folders.insert(vm.name, vm.attributes.folder);
        }
        // Things may have gone for good meanwhile.
        if catalog.trash(0, usize::MAX).await? != items {
            continue;
        }
        let expires_ms = items.iter().map(|item| (item.id, item.expires_ms)).collect();
        return Ok(Said { view, expires_ms, now_ms: engine.site_time_ms() });
    }
}

async fn stamp(engine: &Engine, disk: DiskId) -> api::Result<u8> {
    let _open = engine.open_disk(disk).await?;
    let block = engine.read(disk, 0, BLOCK).await?;
    let is_whole = block.iter().all(|byte| *byte == block[0]);
    let torn = || api::Error::new(api::code::DATA_LOST, format!("disk {}: a block of two writes", disk.0));
    if is_whole { Ok(block[0]) } else { Err(torn()) }
}

impl World {
    /// A last look at what the catalogue says: what had its time in the trash is gone.
    pub(super) async fn look_at_vms(&self, life: &Life) {
        let Some(site) = life.site().filter(|_| self.plan.menu.vms) else { return };
        match in_life(life, async move { said(&site).await }).await {
            Some(Ok(said)) => {
                let over = said.over(said.now_ms);
                if !over.is_empty() && !self.plan.small {
                    self.wrong(format_args!("{over:?} should be gone from the trash"));
                }
                self.compare_vms(&said);
            }
            Some(Err(error)) => self.wrong(format_args!("the VMs of a sound site cannot be read: {error}")),
            None => {}
        }
    }

    /// Compares what a catalogue says with the model, which learns what nobody was told.
    fn compare_vms(&self, said: &Said) {
        let mut shared = self.lock();
        let known = &mut shared.vms;
        let mut view = said.view.clone();
        let before = known.model.clone();
        let now_ms = said.now_ms.max(known.reached_ms);
        let going = said.over(now_ms);
        // What is over may go at any time, and in pieces.
        let is_going = |name: &str| {
            let id = name.strip_prefix('#').and_then(|rest| rest.split('@').next()?.parse::<u64>().ok());
            id.is_some_and(|id| going.contains(&id))
        };
        view.versions.retain(|name, _| !is_going(name));
        let mut candidates = Vec::new();
        if let Some(Doubt { change, least_ms, .. }) = &known.doubt
            && before.refuses(change).is_none()
        {
            let mut after = before.clone();
            after.make(change, None, *least_ms);
            candidates.push(after);
            // A revert keeps what was there first, in a transaction of its own.
            if let Change::Revert { vm, .. } = change {
                let mut kept = before.clone();
                kept.keep(vm);
                candidates.push(kept);
            }
        }
        candidates.push(before);
        let found = candidates.iter().find_map(|candidate| {
            let mut candidate = candidate.clone();
            candidate.expire(&view, now_ms);
            candidate.as_said(&view)
        });
        let doubt = known.doubt.take();
        match found {
            Some(model) => known.model = model,
            None => {
                let right = known.model.view();
                drop(shared);
                self.wrong(format_args!(
                    "the catalogue says {:?}; right: {right:?}, in doubt: {doubt:?}",
                    said.view
                ));
            }
        }
    }
}
