//! Calls about snapshots and clones.

use api::types::{
    ChangeSnapshot, Changes, ListSnapshots, NewClone, NewSnapshot, Revert, Reverted, Snapshot, Snapshots, Vm,
    WhichChanges,
};
use hyper::Method;

use super::{Client, Result, escaped, vm_path};

impl Client {
    /// Snapshots, by VM and name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn snapshots(&self, which: &ListSnapshots) -> Result<Snapshots> {
        let mut path = format!("snapshots?limit={}", which.limit);
        also(&mut path, "vm", which.vm.as_deref());
        also(&mut path, "after", which.after.as_deref());
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// Makes a snapshot of a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn snapshot(&self, vm: &str, new: &NewSnapshot) -> Result<Snapshot> {
        self.call(Method::POST, &format!("{}/snapshots", vm_path(vm)), Some(new)).await
    }

    /// A snapshot by name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn show_snapshot(&self, vm: &str, name: &str) -> Result<Snapshot> {
        self.call(Method::GET, &snapshot_path(vm, name), None::<&()>).await
    }

    /// Gives a snapshot another name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn rename_snapshot(&self, vm: &str, name: &str, new: &str) -> Result<Snapshot> {
        let change = ChangeSnapshot { name: new.to_owned() };
        self.call(Method::PATCH, &snapshot_path(vm, name), Some(&change)).await
    }

    /// What changed on a disk up to a snapshot, or up to now without one.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn changes(&self, vm: &str, snapshot: Option<&str>, which: &WhichChanges) -> Result<Changes> {
        let of = snapshot.map_or_else(|| vm_path(vm), |snapshot| snapshot_path(vm, snapshot));
        let WhichChanges { disk, against, offset, limit } = which;
        let mut path = format!("{of}/changes?offset={offset}&limit={limit}");
        also(&mut path, "disk", Some(disk));
        also(&mut path, "against", against.as_deref());
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// Puts a VM back to a snapshot.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn revert(&self, vm: &str, snapshot: &str) -> Result<Reverted> {
        let to = Revert { snapshot: snapshot.to_owned() };
        self.call(Method::POST, &format!("{}/revert", vm_path(vm)), Some(&to)).await
    }

    /// Makes a VM that begins as another is.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn clone_vm(&self, new: &NewClone) -> Result<Vm> {
        self.call(Method::POST, "clones", Some(new)).await
    }
}

pub(super) fn snapshot_path(vm: &str, name: &str) -> String {
    format!("{}/snapshots/{}", vm_path(vm), escaped(name))
}

/// One more question behind the first.
pub(super) fn also(path: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        path.push_str(&format!("&{name}={}", escaped(value)));
    }
}
