//! Media that join and leave.

use std::path::Path;

use api::types::{Medium, NewMedium, Task};
use api::{Problem, code};
use site::Site;

use super::{Answer, Backend};

/// The part of a backend that takes media in and lets go of them.
pub trait MediaChanges: Send + Sync + 'static {
    /// Takes a medium in.
    fn add_medium(&self, new: NewMedium) -> Answer<'_, Medium>;
    /// Moves everything off a medium and lets go of it.
    fn drain_medium<'a>(&'a self, id: &'a str) -> Answer<'a, Task>;
    /// Puts another in the place of a medium.
    fn replace_medium<'a>(&'a self, id: &'a str, new: NewMedium) -> Answer<'a, Task>;
}

impl MediaChanges for Site {
    fn add_medium(&self, new: NewMedium) -> Answer<'_, Medium> {
        Box::pin(async move {
            let id = Self::add_medium(self, path(&new).map_err(|problem| *problem)?, new.file_bytes)
                .await?
                .to_string();
            let media = Backend::status(self).await?.media;
            let gone = || {
                Problem::new(
                    code::MEDIUM_NOT_FOUND,
                    format!("medium {id} has left again"),
                    "see `media list`",
                )
            };
            media.into_iter().find(|medium| medium.id == id).ok_or_else(gone)
        })
    }

    fn drain_medium<'a>(&'a self, id: &'a str) -> Answer<'a, Task> {
        Box::pin(async move { Ok(Self::drain_medium(self, self.medium_id(id)?).await?) })
    }

    fn replace_medium<'a>(&'a self, id: &'a str, new: NewMedium) -> Answer<'a, Task> {
        Box::pin(async move {
            let old = self.medium_id(id)?;
            Ok(Self::replace_medium(self, old, path(&new).map_err(|problem| *problem)?, new.file_bytes)
                .await?)
        })
    }
}

fn path(new: &NewMedium) -> Result<&Path, Box<Problem>> {
    let path = Path::new(&new.path);
    // `NODE:PATH` is a medium of a data node.
    let of_node = new.path.split_once(':');
    let of_node = of_node.is_some_and(|(node, path)| !node.contains('/') && Path::new(path).is_absolute());
    if (path.is_absolute() || of_node) && new.path.len() <= 4096 && !new.path.contains('\0') {
        return Ok(path);
    }
    let detail = format!("{:?} is no absolute path", new.path);
    Err(Box::new(Problem::new(code::INVALID_REQUEST, detail, "give the path on the server, from / on")))
}
