//! Emptying the trash: what it decides first, and what a kill leaves goes on.
//!
//! What is emptied is **condemned** first, all of it, in its records: it expires at 0. Then one after the other goes, by
//! whoever asked or, where that one or the server is gone, by the next round of the keeper, which takes what has expired.

use api::{Error, ErrorKind, Result, code, held};
use meta::{Compare, KeyValue, Op, Stored, Txn};

use super::record::{Record, What};
use super::{Changing, damaged};
use crate::catalog::Catalog;
use crate::definition;
use crate::record::Record as VmRecord;
use crate::snapshots::{self, SnapshotRecord};

/// Things condemned in one transaction: a few kilobytes each, and a transaction takes 512 compares.
const CONDEMNED_AT_ONCE: usize = 64;
/// Attempts at condemning or emptying what others change too.
const TRIES: usize = 16;
/// Snapshots of a VM that is emptied, read at a time.
const SNAPSHOTS_READ: usize = 256;

impl Catalog {
    /// Decides that things go for good: from here on none of them can be restored, and each goes whatever becomes of who
    /// asked and of the server. What is not in the trash any more is passed over.
    ///
    /// # Errors
    /// `snapshot_held`.
    pub async fn condemn_trash(&self, ids: &[u64]) -> Result<()> {
        for id in ids {
            match self.find_trashed(*id).await {
                Ok((_, record)) => self.check_held(&record)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let _changing = Changing(self.trash.clone());
        let (mut left, mut tries) = (ids, 0);
        while !left.is_empty() {
            let seen = self.condemn_some(left).await?;
            left = &left[seen..];
            tries = if seen > 0 { 0 } else { tries + 1 };
            if tries == TRIES {
                let reason = "what is to be emptied from the trash keeps changing";
                return Err(Error::new(code::VM_CHANGED, reason));
            }
        }
        Ok(())
    }

    /// Condemns the first of `ids`, as many as go into one transaction; gives how many. Where there is no room to say so, they
    /// go without.
    async fn condemn_some(&self, ids: &[u64]) -> Result<usize> {
        let _turn = self.definitions.lock().await;
        let (mut txn, mut bytes, mut seen) = (Txn::new(), 0, 0);
        for id in ids.iter().take(CONDEMNED_AT_ONCE) {
            let found = match self.find_trashed(*id).await {
                Ok((kv, record)) if !record.is_being_emptied() => Some((kv, record.going().encode()?)),
                Ok(_) => None,
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if let Some((kv, going)) = found {
                bytes += going.len();
                if bytes > self.engine.transaction_bytes() && seen > 0 {
                    break;
                }
                txn = txn
                    .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                    .then(Op::put(kv.key, going));
            }
            seen += 1;
        }
        match self.engine.apply(txn, &[], &[]).await.map_err(Error::from) {
            Err(error) if error.kind() == ErrorKind::NoSpace => Ok(seen),
            Err(error) => Err(error),
            Ok(true) => Ok(seen),
            // One of them went meanwhile: they are looked at again.
            Ok(false) => Ok(0),
        }
    }

    fn check_held(&self, record: &Record) -> Result<()> {
        let until_ms = match &record.what {
            What::Vm(vm) => vm.held_until_ms,
            What::Snapshot { record, .. } => record.held_until_ms,
        };
        if until_ms <= self.engine.site_time_ms() {
            return Ok(());
        }
        let what = match &record.what {
            What::Vm(_) => format!("a snapshot of VM {}", record.name),
            What::Snapshot { .. } => format!("snapshot {}", record.name),
        };
        Err(held(&what, until_ms))
    }

    /// Empties something from the trash, for good. Two do not get into each other's way.
    ///
    /// # Errors
    /// `trash_not_found`, `snapshot_held`.
    pub async fn empty_trash(&self, id: u64) -> Result<()> {
        let _alone = self.trash.emptying.lock().await;
        let mut done = self.try_empty_trash(id).await;
        for _ in 1..TRIES {
            match &done {
                // It was condemned, restored or held meanwhile: what there is now tells.
                Err(error) if error.code == code::VM_CHANGED => done = self.try_empty_trash(id).await,
                _ => break,
            }
        }
        done
    }

    async fn try_empty_trash(&self, id: u64) -> Result<()> {
        let (kv, record) = self.find_trashed(id).await?;
        let _changing = Changing(self.trash.clone());
        match &record.what {
            What::Snapshot { vm, record: snapshot } => {
                let _turn = self.definitions.lock().await;
                let owner = self.definition_of(*vm).await?;
                self.remove_snapshot(&kv, snapshot, owner, Txn::new()).await?;
            }
            What::Vm(vm) => self.purge_vm(id, kv, &record, vm).await?,
        }
        tracing::info!(what = record.name, "emptied from the trash");
        Ok(())
    }

    async fn purge_vm(&self, id: u64, mut kv: KeyValue, record: &Record, vm: &VmRecord) -> Result<()> {
        self.check_held(record)?;
        if record.snapshots > 0 && !record.is_being_emptied() {
            self.condemn_trash(&[id]).await?;
            kv = self.find_trashed(id).await?.0;
        }
        self.purge_snapshots(&kv, vm).await?;
        let _turn = self.definitions.lock().await;
        self.purge_trashed_snapshots(vm.number).await?;
        let mut txn =
            Txn::new().when(Compare::unchanged(kv.key.clone(), kv.mod_revision)).then(Op::delete(&kv.key));
        if let Some(definition) = vm.definition {
            txn = txn.then(Op::delete(&definition::key(definition)?));
        }
        if self.engine.apply(txn, &[], &vm.ids()).await? {
            return Ok(());
        }
        let reason = format!("{} was changed meanwhile", record.name);
        Err(Error::new(code::VM_CHANGED, reason))
    }

    /// Deletes all snapshots of a VM, as long as its record in the trash is the one at `kv`.
    async fn purge_snapshots(&self, kv: &KeyValue, vm: &VmRecord) -> Result<()> {
        let Some(number) = vm.number else { return Ok(()) };
        loop {
            let _turn = self.definitions.lock().await;
            let page = self.engine.meta().range(snapshots::all_of(number)?, SNAPSHOTS_READ, None).await?;
            if page.kvs.is_empty() {
                return Ok(());
            }
            for found in &page.kvs {
                let snapshot = SnapshotRecord::decode(&found.value).map_err(|reason| damaged(&reason))?;
                let still = Txn::new().when(Compare::unchanged(kv.key.clone(), kv.mod_revision));
                self.remove_snapshot(found, &snapshot, vm.definition, still).await?;
            }
        }
    }

    /// Snapshots of a VM that were put into the trash before it go before it does: nobody could restore them.
    pub(super) async fn purge_trashed_snapshots(&self, vm: Option<u64>) -> Result<()> {
        let Some(vm) = vm else { return Ok(()) };
        for (id, record) in self.trash_records().await? {
            if let What::Snapshot { vm: of, record: snapshot } = &record.what
                && *of == vm
            {
                let _changing = Changing(self.trash.clone());
                let (kv, _) = self.find_trashed(id).await?;
                let owner = self.definition_of(vm).await?;
                self.remove_snapshot(&kv, snapshot, owner, Txn::new()).await?;
            }
        }
        Ok(())
    }

    /// The definition that a VM has now, there or in the trash.
    async fn definition_of(&self, number: u64) -> Result<Option<u64>> {
        let live = self.records().await?.into_iter().find(|(_, record)| record.number == Some(number));
        if let Some((_, record)) = live {
            return Ok(record.definition);
        }
        let trashed = self.trash_records().await?.into_iter().find_map(|(_, record)| match record.what {
            What::Vm(vm) if vm.number == Some(number) => Some(vm.definition),
            _ => None,
        });
        Ok(trashed.flatten())
    }

    /// Empties what has been in the trash for long enough; gives how many there were.
    ///
    /// # Errors
    /// When the metadata cannot be read or changed.
    pub async fn expire_trash(&self) -> Result<usize> {
        if self.trash_in_sum().await?.1 > self.engine.site_time_ms() {
            return Ok(0);
        }
        let (mut done, mut failed) = (0, None);
        for (id, record) in self.trash_records().await? {
            if record.expires_ms > self.engine.site_time_ms() {
                continue;
            }
            if let What::Vm(vm) = &record.what
                && !record.is_being_emptied()
                && self.is_in_points(vm).await?
            {
                continue;
            }
            match self.empty_trash(id).await {
                Ok(()) => done += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(done), Err)
    }

    /// Whether a VM is in points: as long as there is one, its data is kept by that one's rule.
    async fn is_in_points(&self, vm: &VmRecord) -> Result<bool> {
        let Some(number) = vm.number else { return Ok(false) };
        let mut range = snapshots::all_of(number)?;
        loop {
            let page = self.engine.meta().range(range, SNAPSHOTS_READ, None).await?;
            for kv in &page.kvs {
                let snapshot = SnapshotRecord::decode(&kv.value).map_err(|reason| damaged(&reason))?;
                if snapshot.point.is_some() {
                    return Ok(true);
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => range = snapshots::all_of(number)?.behind(&last.key),
                _ => return Ok(false),
            }
        }
    }
}
