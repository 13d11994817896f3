//! Calls about what the site does for itself.

use api::types::{
    Clock, Keys, ListSpace, NewClean, NewPassphrase, NewSpace, ScrubEvery, Scrubbing, Space, Task,
};
use hyper::Method;

use super::snapshots::also;
use super::{Client, Result};

impl Client {
    /// Has the cleaner free what nothing reaches any more.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn clean(&self, new: &NewClean) -> Result<Task> {
        self.call(Method::POST, "clean", Some(new)).await
    }

    /// Has every fragment read, checked and mended.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn scrub(&self) -> Result<Task> {
        self.call(Method::POST, "scrub", None::<&()>).await
    }

    /// How often the site is scrubbed.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn scrubbing(&self) -> Result<Scrubbing> {
        self.call(Method::GET, "scrub", None::<&()>).await
    }

    /// Sets how often the site is scrubbed.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn set_scrubbing(&self, every: &ScrubEvery) -> Result<Scrubbing> {
        self.call(Method::PUT, "scrub", Some(every)).await
    }

    /// Has every block opened that anything reaches.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn verify(&self) -> Result<Task> {
        self.call(Method::POST, "verify", None::<&()>).await
    }

    /// The data keys.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn keys(&self) -> Result<Keys> {
        self.call(Method::GET, "keys", None::<&()>).await
    }

    /// Site time and the host's clock.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn clock(&self) -> Result<Clock> {
        self.call(Method::GET, "clock", None::<&()>).await
    }

    /// Has site time go on from the host's clock.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn accept_clock(&self) -> Result<Clock> {
        self.call(Method::POST, "clock/accept", None::<&()>).await
    }

    /// Has everything sealed under a new data key.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn rotate_key(&self) -> Result<Task> {
        self.call(Method::POST, "keys/rotate", None::<&()>).await
    }

    /// Has another passphrase open the site.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn change_passphrase(&self, new: &NewPassphrase) -> Result<Keys> {
        self.call(Method::POST, "keys/passphrase", Some(new)).await
    }

    /// Has space computed.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn compute_space(&self, new: &NewSpace) -> Result<Task> {
        self.call(Method::POST, "space", Some(new)).await
    }

    /// What VMs and snapshots take, as last computed.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn space(&self, which: &ListSpace) -> Result<Space> {
        let mut path = format!("space?limit={}", which.limit);
        also(&mut path, "vm", which.vm.as_deref());
        also(&mut path, "after", which.after.as_deref());
        self.call(Method::GET, &path, None::<&()>).await
    }
}
