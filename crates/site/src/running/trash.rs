//! What can be asked of a site about its trash.

use std::time::Duration;

use api::types::{TrashItem, TrashTotals};
use api::{Result, VmName};

use super::Site;

impl Site {
    /// What is in the trash, by number: at most `limit`, and 1,000, of those behind number `after`.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash(&self, after: u64, limit: usize) -> Result<Vec<TrashItem>> {
        self.shared.vms.trash(after, limit).await
    }

    /// The trash in sum.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash_totals(&self) -> Result<TrashTotals> {
        self.shared.vms.trash_totals().await
    }

    /// Takes something out of the trash again, by another name where one is given: for a snapshot the part behind the `@`.
    /// Gives the name it has now.
    ///
    /// # Errors
    /// `trash_not_found`, `trash_emptying`; `vm_exists` or `snapshot_exists` when the name is taken; `vm_in_trash` for a
    /// snapshot whose VM is there too; `too_many_vms`.
    pub async fn restore(&self, id: u64, new: Option<&VmName>) -> Result<String> {
        self.shared.vms.restore(id, new).await
    }

    /// Decides that things go from the trash for good, all of them or, before anything is decided, none. Once that is
    /// answered they go within seconds, over a restart too.
    ///
    /// # Errors
    /// `snapshot_held`.
    pub async fn condemn_trash(&self, ids: &[u64]) -> Result<()> {
        self.shared.vms.condemn(ids).await
    }

    /// Empties something from the trash, for good.
    ///
    /// # Errors
    /// `trash_not_found`, `snapshot_held`.
    pub async fn empty_trash(&self, id: u64) -> Result<()> {
        self.shared.vms.purge(id).await
    }

    /// How long what is deleted stays in the trash.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn trash_keep(&self) -> Result<Duration> {
        self.shared.vms.trash_keep().await
    }

    /// Sets how long what is deleted from now on stays in the trash, at most 366 days; zero for no trash.
    ///
    /// # Errors
    /// `invalid_time`.
    pub async fn set_trash_keep(&self, keep: Duration) -> Result<()> {
        self.shared.vms.set_trash_keep(keep).await
    }

    /// Has what was in the trash for long enough go now; gives how many there were.
    #[cfg(test)]
    pub(crate) async fn expire_trash(&self) -> Result<usize> {
        self.shared.vms.expire_trash().await
    }
}
