//! Calls about media that join and leave.

use api::types::{Medium, NewMedium, Task};
use hyper::Method;

use super::{Client, Result, escaped};

impl Client {
    /// Takes a medium into the site.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn add_medium(&self, new: &NewMedium) -> Result<Medium> {
        self.call(Method::POST, "media", Some(new)).await
    }

    /// Has everything moved off a medium, which then leaves.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn drain_medium(&self, id: &str) -> Result<Task> {
        self.call(Method::POST, &format!("media/{}/drain", escaped(id)), None::<&()>).await
    }

    /// Puts another in the place of a medium.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn replace_medium(&self, id: &str, new: &NewMedium) -> Result<Task> {
        self.call(Method::POST, &format!("media/{}/replace", escaped(id)), Some(new)).await
    }
}
