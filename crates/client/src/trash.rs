//! Calls about the trash and holds.

use api::types::{
    Deleted, EmptyTrash, HowToDelete, ListTrash, NewHold, Restore, Restored, Snapshot, Trash, TrashSetting,
};
use hyper::Method;

use super::snapshots::snapshot_path;
use super::{Client, Result, vm_path};

fn how(how: HowToDelete) -> String {
    format!("?now={}&with_snapshots={}", how.now, how.with_snapshots)
}

impl Client {
    /// Deletes a VM with its disks: into the trash, or for good.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn delete_vm(&self, name: &str, deletion: HowToDelete) -> Result<Deleted> {
        let path = format!("{}{}", vm_path(name), how(deletion));
        self.call(Method::DELETE, &path, None::<&()>).await
    }

    /// Deletes a snapshot in the same ways.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn delete_snapshot(&self, vm: &str, name: &str, deletion: HowToDelete) -> Result<Deleted> {
        let path = format!("{}{}", snapshot_path(vm, name), how(deletion));
        self.call(Method::DELETE, &path, None::<&()>).await
    }

    /// Holds a snapshot until a time: RFC 3339 or a span.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn hold_snapshot(&self, vm: &str, name: &str, until: &str) -> Result<Snapshot> {
        let hold = NewHold { until: until.to_owned() };
        self.call(Method::PUT, &format!("{}/hold", snapshot_path(vm, name)), Some(&hold)).await
    }

    /// What is in the trash, by number.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn trash(&self, which: &ListTrash) -> Result<Trash> {
        let path = format!("trash?after={}&limit={}", which.after, which.limit);
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// Sets how long what is deleted stays in the trash.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn set_trash(&self, setting: TrashSetting) -> Result<TrashSetting> {
        self.call(Method::PATCH, "trash", Some(&setting)).await
    }

    /// Takes something out of the trash again.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn restore(&self, id: u64, new: &Restore) -> Result<Restored> {
        self.call(Method::POST, &format!("trash/{id}/restore"), Some(new)).await
    }

    /// Decides that things go from the trash for good: the server sees to it.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn condemn_trash(&self, which: &EmptyTrash) -> Result<()> {
        self.call(Method::POST, "trash/empty", Some(which)).await
    }

    /// Empties something from the trash, for good.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn empty_trash(&self, id: u64) -> Result<()> {
        self.call(Method::DELETE, &format!("trash/{id}"), None::<&()>).await
    }
}
