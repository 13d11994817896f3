//! Where a site's media are, and where it is remembered which they are: on one machine in the site's directory
//! ([`LocalHome`](crate::local_home::LocalHome)), or on data nodes with a metadata store that remembers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::Superblock;
use proto::Transport;
use seam::BoxFuture;
use units::{Epoch, MediumId, NodeId};

use crate::manifest::{Entry, Manifest};
use api::Result;

/// A medium of the site that is there, with its own word on who it is.
#[derive(Debug, Clone)]
pub struct FoundMedium {
    /// Which it is.
    pub id: MediumId,
    /// Its superblock.
    pub superblock: Superblock,
}

/// What became of the site's media when they were looked for.
#[derive(Debug, Clone, Default)]
pub struct FoundMedia {
    /// Those that are there, in the site's order.
    pub found: Vec<FoundMedium>,
    /// Those that are not, with the reason.
    pub absent: Vec<(MediumId, String)>,
}

/// A medium that is to be taken into the site.
#[derive(Debug, Clone)]
pub struct NewMedium {
    /// The id that it is to have.
    pub id: MediumId,
    /// Bytes.
    pub bytes: u64,
    /// Where it is, as it is remembered.
    pub path: PathBuf,
    /// A file that was made for it.
    pub made: bool,
    /// The data node that holds it.
    pub node: Option<NodeId>,
}

/// A medium that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Why, for people.
    pub reason: String,
    /// It may come back only at the next start.
    pub barred: bool,
    /// Part of what it held is gone, also when it comes back.
    pub robbed: bool,
}

impl Away {
    /// One that may come back at any time.
    pub fn for_now(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), barred: false, robbed: false }
    }
}

/// Tells whether a medium that was one of the site's is still named by something.
pub type IsNamed<'a> = &'a (dyn Fn(MediumId) -> bool + Send + Sync);

/// Media and the list of them. Waits are bounded by those of the media and of what remembers the list.
pub trait Home: Send + Sync {
    /// The way to the media that are attached.
    fn transport(&self) -> Arc<dyn Transport>;

    /// The site's media as they are remembered.
    fn manifest(&self) -> Manifest;

    /// Remembers another list in place of the one that [`Home::manifest`] gives, durably.
    fn set_manifest(&self, next: Manifest) -> BoxFuture<'_, Result<()>>;

    /// Looks for all media of the list.
    fn look(&self) -> BoxFuture<'_, FoundMedia>;

    /// Lets requests go to a medium that was found, or was made; the error says why it cannot serve. Its sizes must be those
    /// of `like`.
    fn attach<'a>(
        &'a self,
        medium: MediumId,
        like: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), String>>;

    /// No request goes to a medium any more.
    fn detach(&self, medium: MediumId);

    /// Whether requests can go to a medium.
    fn is_attached(&self, medium: MediumId) -> bool;

    /// The superblock of a medium that can be reached; `None` where it is not attached or has none.
    fn superblock(&self, medium: MediumId) -> BoxFuture<'_, Result<Option<Superblock>>>;

    /// Replaces the superblock of a medium that can be reached, durably.
    fn write_superblock(&self, medium: MediumId, superblock: Superblock) -> BoxFuture<'_, Result<()>>;

    /// Looks whether a medium that was away can go on, with the keys of `keys`.
    fn revive<'a>(
        &'a self,
        medium: MediumId,
        keys: &'a Superblock,
    ) -> BoxFuture<'a, std::result::Result<(), Away>>;

    /// Writes copies of superblocks anew that are damaged, on media that can be reached, with the keys of `keys`; gives
    /// these media. Nothing else may write superblocks meanwhile.
    fn mend_superblocks<'a>(&'a self, keys: &'a Superblock) -> BoxFuture<'a, Vec<MediumId>> {
        let _ = keys;
        Box::pin(async { Vec::new() })
    }

    /// Media that are in use and would not be found by the next start, as far as that can be seen.
    fn removed(&self) -> Vec<MediumId> {
        Vec::new()
    }

    /// A medium that is none of the site's and holds nothing; with `file_bytes` its file is made.
    fn find_new<'a>(
        &'a self,
        path: &'a Path,
        file_bytes: Option<u64>,
        is_named: IsNamed<'a>,
    ) -> BoxFuture<'a, Result<NewMedium>>;

    /// Makes a new medium one of the site, durably.
    fn format<'a>(&'a self, new: &'a NewMedium, superblock: Superblock) -> BoxFuture<'a, Result<()>>;

    /// Removes what was made for a new medium that is not to be one of the site.
    fn discard<'a>(&'a self, new: &'a NewMedium) -> BoxFuture<'a, ()>;

    /// A medium has left: what was made for it goes.
    fn gone<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, ()>;

    /// Where a medium is, for people.
    fn shown(&self, entry: &Entry) -> PathBuf;

    /// The site is owned by an incarnation of this process from here on: what is changed is changed on its behalf.
    fn owned(&self, by: Epoch) {
        let _ = by;
    }

    /// Data nodes that are to be emptied.
    fn draining(&self) -> Vec<NodeId> {
        Vec::new()
    }

    /// Media that share one physical device: they fail together.
    fn shared_devices(&self) -> Vec<Vec<PathBuf>>;
}
