//! Calls about protection groups, points and restores.

use api::types::{
    Deleted, Group, GroupChange, GroupSpec, HowToSet, List, ListPoints, Membership, NewHold, NewRestore,
    NewRun, Outlook, Point, Points, RestoredVms,
};
use hyper::Method;

use super::{Client, Result, also, escaped};

fn group_path(name: &str) -> String {
    format!("groups/{}", escaped(name))
}

impl Client {
    /// The groups, by name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn groups(&self) -> Result<List<Group>> {
        self.call(Method::GET, "groups", None::<&()>).await
    }

    /// A group by name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn group(&self, name: &str) -> Result<Group> {
        self.call(Method::GET, &group_path(name), None::<&()>).await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        self.call(Method::POST, "groups", Some(spec)).await
    }

    /// Puts what a group says in the place of what it said.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn set_group(&self, name: &str, spec: &GroupSpec, how: &HowToSet) -> Result<GroupChange> {
        let mut path = format!("{}?dry_run={}", group_path(name), how.dry_run);
        also(&mut path, "revision", how.revision.map(|revision| revision.to_string()).as_deref());
        self.call(Method::PUT, &path, Some(spec)).await
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn delete_group(&self, name: &str) -> Result<Deleted> {
        self.call(Method::DELETE, &group_path(name), None::<&()>).await
    }

    /// Which VMs are in a group now, or would be in one that said this.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn preview_group(&self, name: &str, spec: Option<&GroupSpec>) -> Result<List<Membership>> {
        match spec {
            Some(spec) => self.call(Method::POST, "group-previews", Some(spec)).await,
            None => self.call(Method::GET, &format!("{}/preview", group_path(name)), None::<&()>).await,
        }
    }

    /// What retention will keep.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn simulate_group(&self, name: &str, days: u32) -> Result<List<Outlook>> {
        let path = format!("{}/outlook?days={days}", group_path(name));
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// Makes a point of a group now.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn run_group(&self, name: &str, new: &NewRun) -> Result<Point> {
        self.call(Method::POST, &format!("{}/points", group_path(name)), Some(new)).await
    }

    /// Points, newest first.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn points(&self, which: &ListPoints) -> Result<Points> {
        let mut path = format!("points?locked={}&limit={}", which.locked, which.limit());
        also(&mut path, "group", which.group.as_deref());
        also(&mut path, "vm", which.vm.as_deref());
        also(&mut path, "since", which.since.as_deref());
        also(&mut path, "until", which.until.as_deref());
        also(&mut path, "zone", which.zone.as_deref());
        also(&mut path, "before", which.before.as_deref());
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// A point by number.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn point(&self, id: u64) -> Result<Point> {
        self.call(Method::GET, &format!("points/{id}"), None::<&()>).await
    }

    /// Deletes a point.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn delete_point(&self, id: u64) -> Result<Deleted> {
        self.call(Method::DELETE, &format!("points/{id}"), None::<&()>).await
    }

    /// Locks a point.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn hold_point(&self, id: u64, until: &str) -> Result<Point> {
        let hold = NewHold { until: until.to_owned() };
        self.call(Method::POST, &format!("points/{id}/hold"), Some(&hold)).await
    }

    /// Restores VMs from a point.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn restore_points(&self, asked: &NewRestore) -> Result<RestoredVms> {
        self.call(Method::POST, "restores", Some(asked)).await
    }
}
