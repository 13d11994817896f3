//! Holds: snapshots that nobody deletes before a time (R119).
//!
//! The record of the snapshot and that of its VM say until when, and so does the engine of each of its disks, which refuses
//! whatever way a removal comes. A hold is made longer, never shorter.

use api::types::Snapshot;
use api::{Error, Result, VmName, code, format_time, parse_until};
use meta::{Compare, Op, Stored, Txn};

use crate::catalog::Catalog;
use crate::snapshots::{changed, check_alone};

/// Attempts at a hold on something that others change too.
const TRIES: usize = 16;

impl Catalog {
    /// Holds a snapshot until a time: RFC 3339, or a span from now on.
    pub(crate) async fn try_hold_snapshot(
        &self,
        vm: &VmName,
        name: &VmName,
        until: &str,
    ) -> Result<Snapshot> {
        for _ in 0..TRIES {
            let until_ms = parse_until(until, self.engine.site_time_ms())?;
            let (_, kv, mut snapshot) = self.find_snapshot(vm, name).await?;
            let (owner, mut record) = self.find(vm).await?;
            check_alone(vm, name, &snapshot)?;
            if until_ms < snapshot.held_until_ms {
                let known = format_time(snapshot.held_until_ms);
                let reason = format!("snapshot {vm}@{name} is held until {known}: a hold is never shortened");
                return Err(Error::new(code::HOLD_SHORTER, reason));
            }
            snapshot.held_until_ms = until_ms;
            record.held_until_ms = record.held_until_ms.max(until_ms);
            let txn = Txn::new()
                .when(Compare::unchanged(kv.key.clone(), kv.mod_revision))
                .when(Compare::unchanged(owner.key.clone(), owner.mod_revision))
                .then(Op::put(kv.key.clone(), snapshot.encode()?))
                .then(Op::put(owner.key.clone(), record.encode()?));
            if self.engine.hold(txn, &snapshot.ids(), until_ms).await? {
                tracing::info!(%vm, snapshot = %name, until = format_time(until_ms), "snapshot held");
                return self.show_snapshot(vm, name).await;
            }
        }
        Err(changed(vm, name))
    }
}
