//! Protection groups as they are stored, and how far the runs of their schedules are.
//!
//! A group is found by its name; its points and runs stand under its number, so a rename touches neither. Changes of
//! groups wait for each other.

use api::{Error, Result, code, fold};
use meta::{Compare, Key, KeyValue, Op, Revision, Stored, Txn};
use policy::Group;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::record::is_zero;
use crate::schema::{GROUPS, RUNS};

const VERSION: u32 = 1;
/// The number of the built-in group: no disk has it.
const BUILT_IN: u64 = 0;

/// A group's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    version: u32,
    number: u64,
    group: Group,
}

impl Stored for GroupRecord {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

/// A group as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    /// By which its points know it.
    pub number: u64,
    /// What it says.
    pub group: Group,
    /// When it was last changed.
    pub revision: Revision,
}

/// Most stretches of missed slots that are remembered of a schedule.
const MISSES_MAX: usize = 64;

/// How far the runs of a schedule are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    version: u32,
    /// From when on it counts, site time in ms.
    pub since_ms: u64,
    /// The slot of its last run that made a point, or found no VM to make one of; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slot_ms: u64,
    /// Slots that had no run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// The newest of these, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misses: Vec<Miss>,
}

/// Slots in a row that had no run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// The first.
    pub from_ms: u64,
    /// The last.
    pub until_ms: u64,
    /// How many.
    pub count: u64,
    /// Why.
    pub cause: String,
}

impl Run {
    /// A schedule that counts from an instant on.
    pub fn since(since_ms: u64) -> Self {
        Self { version: VERSION, since_ms, slot_ms: 0, missed: 0, misses: Vec::new() }
    }

    /// Takes note of slots that had no run.
    pub fn miss(&mut self, miss: Miss) {
        self.missed = self.missed.saturating_add(miss.count);
        self.misses.push(miss);
        let more = self.misses.len().saturating_sub(MISSES_MAX);
        self.misses.drain(..more);
    }

    /// What the next slot comes after.
    pub fn after_ms(&self) -> u64 {
        self.since_ms.max(self.slot_ms)
    }
}

impl Stored for Run {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

/// How far the runs of a schedule are, as stored: what a run's end is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// It.
    pub run: Run,
    /// When it was last changed; [`Revision::NONE`] when it is not stored yet.
    pub revision: Revision,
}

pub(crate) fn key(name: &str) -> Result<Key> {
    Ok(GROUPS.key().text(&fold(name)).end()?)
}

pub(crate) fn run_key(group: u64, schedule: &str) -> Result<Key> {
    Ok(RUNS.key().number(group).text(&fold(schedule)).end()?)
}

/// Puts how far the runs of a schedule are, when nobody did since it was read.
pub(crate) fn put_run(txn: Txn, group: u64, schedule: &str, read: &StoredRun, run: &Run) -> Result<Txn> {
    let key = run_key(group, schedule)?;
    let same = match read.revision {
        Revision::NONE => Compare::absent(key.clone()),
        revision => Compare::unchanged(key.clone(), revision),
    };
    Ok(txn.when(same).then(Op::put(key, run.encode()?)))
}

fn decode(kv: &KeyValue) -> Result<StoredGroup> {
    let record = GroupRecord::decode(&kv.value).map_err(|reason| damaged(&kv.key.to_string(), &reason))?;
    Ok(StoredGroup { number: record.number, group: record.group, revision: kv.mod_revision })
}

fn damaged(name: &str, reason: &str) -> Error {
    Error::new(code::RECORD_DAMAGED, format!("the record of group {name}: {reason}"))
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::new(code::GROUP_NOT_FOUND, format!("there is no group {name}"))
        .hint("`group list` shows those there are")
}

fn exists(name: &str) -> Error {
    Error::new(code::GROUP_EXISTS, format!("there is a group {name} already")).hint("choose another name")
}

fn changed(name: &str) -> Error {
    Error::new(code::GROUP_CHANGED, format!("group {name} was changed meanwhile"))
        .hint("look at it and try again")
}

impl Catalog {
    /// Every group that is stored, by name. The built-in one is among them once somebody has changed it.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn groups(&self) -> Result<Vec<StoredGroup>> {
        let (kvs, _) = meta::list(&*self.engine.meta(), GROUPS.all(), 2 * policy::GROUPS_MAX).await?;
        kvs.iter().map(decode).collect()
    }

    /// Stores a new group; gives it with its number.
    ///
    /// # Errors
    /// `group_exists`.
    pub async fn add_group(&self, group: &Group) -> Result<StoredGroup> {
        let number = if group.is_built_in() { BUILT_IN } else { self.engine.new_disk_id().await?.0 };
        let record = GroupRecord { version: VERSION, number, group: group.clone() };
        let key = key(&group.name)?;
        let txn = Txn::new().when(Compare::absent(key.clone())).then(Op::put(key, record.encode()?));
        if !self.engine.apply(txn, &[], &[]).await? {
            return Err(exists(&group.name));
        }
        tracing::info!(group = group.name, number, "group made");
        self.group(&group.name).await
    }

    /// A stored group by name.
    ///
    /// # Errors
    /// `group_not_found`.
    pub async fn group(&self, name: &str) -> Result<StoredGroup> {
        let found = self.engine.meta().get(&key(name)?).await?.kv;
        decode(&found.ok_or_else(|| not_found(name))?)
    }

    /// Puts what a group says in the place of what was read of it, under another name where that says so. Schedules that
    /// are gone leave nothing of how far they were.
    ///
    /// # Errors
    /// `group_changed` when somebody was faster; `group_exists`.
    pub async fn set_group(&self, read: &StoredGroup, group: &Group) -> Result<StoredGroup> {
        let (old, new) = (key(&read.group.name)?, key(&group.name)?);
        let record = GroupRecord { version: VERSION, number: read.number, group: group.clone() };
        let mut txn = Txn::new().when(Compare::unchanged(old.clone(), read.revision));
        if old != new {
            txn = txn.when(Compare::absent(new.clone())).then(Op::delete(&old));
        }
        for gone in read.group.schedules.iter().filter(|gone| group.schedule(&gone.name).is_none()) {
            txn = txn.then(Op::delete(&run_key(read.number, &gone.name)?));
        }
        let txn = txn.then(Op::put(new.clone(), record.encode()?));
        if !self.engine.apply(txn, &[], &[]).await? {
            let taken = old != new && self.engine.meta().get(&new).await?.kv.is_some();
            return Err(if taken { exists(&group.name) } else { changed(&read.group.name) });
        }
        tracing::info!(group = group.name, "group changed");
        self.group(&group.name).await
    }

    /// Deletes a group with what is stored of its runs. Its points stay.
    ///
    /// # Errors
    /// `group_changed` when somebody was faster.
    pub async fn remove_group(&self, read: &StoredGroup) -> Result<()> {
        let key = key(&read.group.name)?;
        let runs = RUNS.key().number(read.number).beneath()?;
        let txn = Txn::new()
            .when(Compare::unchanged(key.clone(), read.revision))
            .then(Op::delete(&key))
            .then(Op::Delete(runs));
        if !self.engine.apply(txn, &[], &[]).await? {
            return Err(changed(&read.group.name));
        }
        tracing::info!(group = read.group.name, "group deleted");
        Ok(())
    }

    /// How far the runs of a schedule are; from `now_ms` on when nothing is stored.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn run_of(&self, group: u64, schedule: &str, now_ms: u64) -> Result<StoredRun> {
        let found = self.engine.meta().get(&run_key(group, schedule)?).await?.kv;
        let Some(kv) = found else {
            return Ok(StoredRun { run: Run::since(now_ms), revision: Revision::NONE });
        };
        let run = Run::decode(&kv.value).map_err(|reason| damaged(&kv.key.to_string(), &reason))?;
        Ok(StoredRun { run, revision: kv.mod_revision })
    }

    /// Stores how far the runs of a schedule are, when nobody did since it was read; gives it as it is stored then.
    ///
    /// # Errors
    /// `group_changed` when somebody was faster.
    pub async fn note_run(
        &self,
        group: u64,
        schedule: &str,
        read: &StoredRun,
        run: &Run,
    ) -> Result<StoredRun> {
        let txn = put_run(Txn::new(), group, schedule, read, run)?;
        if !self.engine.apply(txn, &[], &[]).await? {
            return Err(changed(schedule));
        }
        self.run_of(group, schedule, run.since_ms).await
    }
}
