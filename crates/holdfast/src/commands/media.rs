//! Commands about media.

use std::path::Path;

use api::code;
use api::types::{List, Medium, NewMedium};

use super::{Asking, really};
use crate::arguments::{MediaCommand, NewMediumArguments};
use crate::failure::Failure;

impl Asking {
    pub(super) async fn media(&self, command: MediaCommand) -> Result<(), Failure> {
        let failed = |error| self.failed(error);
        match command {
            MediaCommand::List => self.printer.media(&self.client.media().await.map_err(failed)?),
            MediaCommand::Add(new) => {
                let medium = self.client.add_medium(&new_medium(new)?).await.map_err(failed)?;
                self.printer.media(&List { items: vec![medium] })
            }
            MediaCommand::Drain { medium, yes, waiting } => {
                let id = self.medium_named(&medium).await?;
                really(yes, || {
                    format!("everything would be moved off medium {medium}, and it would leave the site")
                })?;
                let task = self.client.drain_medium(&id).await.map_err(failed)?;
                self.follow(task, waiting).await
            }
            MediaCommand::Replace { old, new, yes, waiting } => {
                let id = self.medium_named(&old).await?;
                really(yes, || {
                    let new = new.path.display();
                    format!("{new} would take the place of medium {old}, which would leave the site")
                })?;
                let task = self.client.replace_medium(&id, &new_medium(new)?).await.map_err(failed)?;
                self.follow(task, waiting).await
            }
        }
    }

    /// The id of a medium that is named by id, path, or the last part of its path.
    async fn medium_named(&self, name: &str) -> Result<String, Failure> {
        let media = self.client.media().await.map_err(|error| self.failed(error))?.items;
        let path = std::path::absolute(name).unwrap_or_default();
        let is_it = |medium: &&Medium| {
            let known = Path::new(&medium.path);
            medium.id == name
                || medium.path == name
                || known == path
                || known.file_name().is_some_and(|last| last == name)
        };
        let found: Vec<&Medium> = media.iter().filter(is_it).collect();
        match found.as_slice() {
            [one] => Ok(one.id.clone()),
            [] => Err(Failure::of_code(code::MEDIUM_NOT_FOUND, format!("the site has no medium {name}"))
                .hint("`media list -o json` shows paths and ids")),
            _ => Err(Failure::usage(
                format!("{} media are called {name}", found.len()),
                "give the whole path or the id: `media list -o json`",
            )),
        }
    }
}

/// A path on this host is made whole. `NODE:PATH`, of a medium of a data node, stays as it is.
fn new_medium(new: NewMediumArguments) -> Result<NewMedium, Failure> {
    let of_node = new.path.to_str().and_then(|text| text.split_once(':'));
    if of_node.is_some_and(|(node, path)| !node.contains('/') && path.starts_with('/')) {
        return Ok(NewMedium { path: new.path.display().to_string(), file_bytes: new.file });
    }
    let path = std::path::absolute(&new.path)
        .map_err(|error| Failure::of_io(code::FILE_ERROR, new.path.display(), &error))?;
    let text = path
        .to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not UTF-8", path.display()), "give a path that is"))?;
    Ok(NewMedium { path: text.to_owned(), file_bytes: new.file })
}
