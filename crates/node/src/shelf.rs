//! The media of the node, and what is asked of the node itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Error, Result, code};
use data::{LocalTransport, OpenErrorKind, Superblock};
use machine::{OpenMedia, Opener};
use media::Medium;
use proto::{CallError, CallErrorKind, NODE, NodeMedium, Request, Response, Transport};
use seam::{BoxFuture, Rt};
use units::{Epoch, MediumId, PAGE, PageSlice, SiteId};

use crate::directory::{Directory, Entry, Record};

/// How long looking at media may take: of those that are served at each, of the others at all, but this long at each.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const LOOK_LEAST: Duration = Duration::from_millis(500);

/// A medium on the shelf.
#[derive(Default, Clone)]
struct Place {
    path: PathBuf,
    /// The site's, or else the one that the node has for it.
    id: MediumId,
    bytes: u64,
    /// Open; a medium that cannot be opened is not.
    medium: Option<Arc<dyn Medium>>,
    superblock: Option<Superblock>,
    trouble: Option<String>,
}

struct Inner {
    places: Vec<Place>,
    record: Record,
}

/// All media that the node was given.
pub(crate) struct Shelf {
    rt: Rt,
    site: SiteId,
    directory: Directory,
    opener: Opener,
    served: LocalTransport,
    inner: Mutex<Inner>,
    /// Held while media are opened, formatted and given superblocks.
    turn: tokio::sync::Mutex<()>,
}

impl Shelf {
    /// Opens the media that the node was given before, and those at `paths`.
    pub(crate) async fn open(
        rt: &Rt,
        site: SiteId,
        directory: &Directory,
        opener: Opener,
        paths: &[PathBuf],
    ) -> Result<Self> {
        let mut record = Record::load(directory)?;
        for path in paths {
            let path = std::path::absolute(path).map_err(|error| Error::file(path, &error))?;
            if !record.media.iter().any(|entry| directory.resolve(&entry.path) == path) {
                record.media.push(Entry::new(path, random_id(rt), false));
            }
        }
        if record.media.len() > api::MEDIA_MAX {
            let reason = format!("a node has at most {} media, not {}", api::MEDIA_MAX, record.media.len());
            return Err(Error::new(code::MEDIA_COUNT, reason));
        }
        record.store(directory)?;
        let places = record.media.iter().map(|entry| Place {
            path: directory.resolve(&entry.path),
            id: entry.id().unwrap_or_default(),
            ..Place::default()
        });
        let inner = Inner { places: places.collect(), record };
        let shelf = Self {
            rt: rt.clone(),
            site,
            directory: directory.clone(),
            opener,
            served: LocalTransport::with_leases(rt.clone(), proto::LEASE),
            inner: Mutex::new(inner),
            turn: tokio::sync::Mutex::default(),
        };
        let _ = shelf.list().await;
        Ok(shelf)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain data, valid after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many media there are, and how many are served.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let served =
            inner.places.iter().filter(|place| place.superblock.is_some() && place.trouble.is_none());
        (inner.places.len(), served.count())
    }

    /// All media as they are now. Those that were not there are looked for, those that are there are synced, which tells
    /// of failures that are not forgotten. One that hangs does not hold up the others.
    async fn list(&self) -> Vec<NodeMedium> {
        let _turn = self.turn.lock().await;
        let places = self.lock().places.clone();
        let (served, others): (Vec<_>, Vec<_>) =
            places.into_iter().enumerate().partition(|(_, place)| place.superblock.is_some());
        let looks = served.into_iter().map(|(number, place)| self.look_in_time(number, place, LOOK_WITHIN));
        seam::join_all(looks).await;
        // One after the other: of copies of a medium one counts.
        let each = LOOK_WITHIN / u32::try_from(others.len().max(1)).unwrap_or(u32::MAX);
        for (number, place) in others {
            self.look_in_time(number, place, each.max(LOOK_LEAST)).await;
        }
        let state = |place: &Place| NodeMedium {
            medium: place.id,
            bytes: place.bytes,
            name: place.path.display().to_string(),
            superblock: place.superblock.as_ref().map(|superblock| superblock.encode().share()),
            trouble: place.trouble.clone(),
        };
        self.lock().places.iter().map(state).collect()
    }

    async fn look_in_time(&self, number: usize, place: Place, limit: Duration) {
        let looked = seam::timeout(&*self.rt, limit, self.look(number, place.clone())).await;
        let looked = looked.unwrap_or_else(|seam::Elapsed| {
            let trouble = format!("it does not answer within {} ms", limit.as_millis());
            Place { trouble: Some(trouble), ..place }
        });
        self.lock().places[number] = looked;
    }

    async fn look(&self, number: usize, place: Place) -> Place {
        let served = place.superblock.as_ref().and_then(|_| self.served.medium(place.id));
        match &place.medium {
            // A copy has the same id.
            Some(medium) if served.is_some_and(|served| Arc::ptr_eq(served.medium(), medium)) => {
                let trouble = medium.sync().await.err().map(|error| error.to_string());
                Place { trouble, ..place }
            }
            _ => self.take_in(number, place).await,
        }
    }

    /// Opens a medium that is not served, and serves it when it is one of the site's.
    async fn take_in(&self, number: usize, place: Place) -> Place {
        let with = |trouble: String, place: Place| Place { trouble: Some(trouble), ..place };
        let medium = match place.medium.clone() {
            Some(medium) => medium,
            None => match self.open_path(&place.path).await {
                Ok(medium) => medium,
                Err(error) => return with(error.to_string(), place),
            },
        };
        let place = Place { bytes: medium.len(), medium: Some(medium.clone()), ..place };
        let superblock = match machine::peek(&*medium).await {
            Ok(superblock) => superblock,
            Err(error) => return with(error.to_string(), place),
        };
        let Some(superblock) = superblock else { return self.blank(number, place, &*medium).await };
        if superblock.site != self.site {
            // Held open it could not be used by whose it is.
            let place = Place { medium: None, ..place };
            return with(format!("it belongs to site {}: left untouched", superblock.site), place);
        }
        let place = Place { id: superblock.medium, superblock: Some(superblock.clone()), ..place };
        if superblock.released {
            return with(format!("medium {} has left the site", superblock.medium), place);
        }
        if self.has_other(number, place.id) {
            return with("a copy of another medium".to_owned(), place);
        }
        match data::open(medium, self.site).await {
            Ok(node) => {
                self.served.attach(Arc::new(node));
                self.forget_formatting(number);
                Place { trouble: None, ..place }
            }
            Err(error) => with(error.to_string(), place),
        }
    }

    /// A medium without a superblock: blank, when nothing else stands on it.
    async fn blank(&self, number: usize, place: Place, medium: &dyn Medium) -> Place {
        let entry = self.lock().record.media[number].clone();
        let place = Place { id: entry.id().unwrap_or_default(), superblock: None, ..place };
        let trouble = match entry.formatting {
            true => None,
            false => machine::check_free(medium).await.err().map(|error| error.to_string()),
        };
        Place { trouble, ..place }
    }

    /// Opens a medium off the threads that serve: that waits for locks.
    async fn open_path(&self, path: &Path) -> media::Result<Arc<dyn Medium>> {
        let (opener, path) = (self.opener.clone(), path.to_owned());
        let name = path.display().to_string();
        let (done, opened) = tokio::sync::oneshot::channel();
        let work = move || {
            // The waiter may be gone.
            let _ = done.send(opener.open(&path, None));
        };
        self.rt.spawn_blocking("medium open", Box::new(work));
        opened.await.unwrap_or_else(|_| {
            Err(media::MediaError {
                kind: media::MediaErrorKind::Gone,
                medium: name,
                operation: "open".to_owned(),
                reason: "the node is going down".to_owned(),
            })
        })
    }

    async fn format(
        &self,
        by: Epoch,
        id: MediumId,
        page: &PageSlice,
    ) -> std::result::Result<Response, CallError> {
        let error = |kind, reason: String| CallError { kind, medium: id, reason };
        let superblock = self.superblock(id, page)?;
        let _turn = self.turn.lock().await;
        self.check_newest(by, id)?;
        let (number, place) = self.find(id)?;
        match &place.superblock {
            // Asked again.
            Some(has) if *has == superblock => return Ok(Response::Done),
            Some(_) => {
                return Err(error(CallErrorKind::Invalid, "it is one of the site's already".to_owned()));
            }
            None => {}
        }
        let medium = match (&place.medium, &place.trouble) {
            (Some(medium), None) => medium.clone(),
            (_, trouble) => {
                let reason = trouble.clone().unwrap_or_else(|| "it is not open".to_owned());
                return Err(error(CallErrorKind::Failed, reason));
            }
        };
        self.note_formatting(number, true).map_err(|why| error(CallErrorKind::Failed, why.to_string()))?;
        let done = data::format(&*medium, &superblock).await;
        done.map_err(|why| match why.kind {
            OpenErrorKind::NoSpace => error(CallErrorKind::NoSpace, why.to_string()),
            OpenErrorKind::TooSmall => error(CallErrorKind::Invalid, why.to_string()),
            _ => error(CallErrorKind::Failed, why.to_string()),
        })?;
        let looked = self.take_in(number, place).await;
        if let Some(served) = self.served.medium(id) {
            served.begin_leases(self.rt.now());
        }
        let trouble = looked.trouble.clone();
        self.lock().places[number] = looked;
        trouble.map_or(Ok(Response::Done), |trouble| Err(error(CallErrorKind::Failed, trouble)))
    }

    /// A blank medium has no incarnation of its own yet: those of the node's others tell whether one of before asks.
    fn check_newest(&self, by: Epoch, id: MediumId) -> std::result::Result<(), CallError> {
        let ids: Vec<MediumId> = self.lock().places.iter().map(|place| place.id).collect();
        let newest =
            ids.into_iter().filter_map(|id| self.served.medium(id)).map(|served| served.epoch()).max();
        if newest.is_some_and(|newest| by < newest) {
            let reason = "a later incarnation has taken over".to_owned();
            return Err(CallError { kind: CallErrorKind::Fenced, medium: id, reason });
        }
        Ok(())
    }

    /// A medium of the site is not being formatted any more; what else may be found in its place one day is not blank.
    fn forget_formatting(&self, number: usize) {
        let noted = self.lock().record.media[number].formatting;
        if noted && let Err(error) = self.note_formatting(number, false) {
            tracing::warn!(%error, "that a medium was formatted is not kept");
        }
    }

    fn note_formatting(&self, number: usize, formatting: bool) -> Result<()> {
        let record = {
            let mut inner = self.lock();
            inner.record.media[number].formatting = formatting;
            inner.record.clone()
        };
        record.store(&self.directory)
    }

    async fn write_superblock(
        &self,
        by: Epoch,
        id: MediumId,
        page: &PageSlice,
    ) -> std::result::Result<Response, CallError> {
        let error = |kind, reason: String| CallError { kind, medium: id, reason };
        let superblock = self.superblock(id, page)?;
        let _turn = self.turn.lock().await;
        let missing = || error(CallErrorKind::NotFound, "it is not one of the site's".to_owned());
        let served = self.served.medium(id).ok_or_else(missing)?;
        let (number, mut place) = self.find_served(served.medium()).ok_or_else(missing)?;
        let has = place.superblock.clone().ok_or_else(missing)?;
        if superblock == has {
            // Asked again.
            return Ok(Response::Done);
        }
        if superblock.generation <= has.generation
            || (superblock.params, superblock.medium_bytes) != (has.params, has.medium_bytes)
        {
            let reason = "an older superblock, or one of other sizes, than it has".to_owned();
            return Err(error(CallErrorKind::Invalid, reason));
        }
        let write = async {
            let written = data::write_superblock(&**served.medium(), &superblock).await;
            written.map_err(|why| error(CallErrorKind::Failed, why.to_string()))
        };
        served.change(by, write).await?;
        if superblock.released {
            self.served.detach(id);
            place.trouble = Some(format!("medium {id} has left the site"));
        }
        place.superblock = Some(superblock);
        self.lock().places[number] = place;
        Ok(Response::Done)
    }

    /// A superblock for medium `id` of this site.
    fn superblock(&self, id: MediumId, page: &PageSlice) -> std::result::Result<Superblock, CallError> {
        let superblock = Superblock::decode(page.as_ref()).filter(|_| page.len() == PAGE);
        superblock.filter(|superblock| superblock.site == self.site && superblock.medium == id).ok_or_else(
            || {
                let reason = "that is no superblock of this medium and site".to_owned();
                CallError { kind: CallErrorKind::Invalid, medium: id, reason }
            },
        )
    }

    /// Whether another place than `number` has that medium.
    fn has_other(&self, number: usize, id: MediumId) -> bool {
        self.lock().places.iter().enumerate().any(|(at, other)| at != number && other.id == id)
    }

    fn find_served(&self, medium: &Arc<dyn Medium>) -> Option<(usize, Place)> {
        let inner = self.lock();
        let is_it = |place: &Place| place.medium.as_ref().is_some_and(|own| Arc::ptr_eq(own, medium));
        inner.places.iter().position(is_it).map(|number| (number, inner.places[number].clone()))
    }

    fn find(&self, id: MediumId) -> std::result::Result<(usize, Place), CallError> {
        let inner = self.lock();
        let found = inner.places.iter().enumerate().find(|(_, place)| place.id == id);
        found.map(|(number, place)| (number, place.clone())).ok_or_else(|| {
            let reason = "the node has no such medium".to_owned();
            CallError { kind: CallErrorKind::NotFound, medium: id, reason }
        })
    }
}

impl Transport for Shelf {
    fn call_by(
        &self,
        by: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, std::result::Result<Response, CallError>> {
        match request {
            Request::MediumList if medium == NODE => {
                Box::pin(async move { Ok(Response::Media(self.list().await)) })
            }
            Request::Format(page) => Box::pin(async move { self.format(by, medium, &page).await }),
            Request::SuperblockWrite(page) => {
                Box::pin(async move { self.write_superblock(by, medium, &page).await })
            }
            other => self.served.call_by(by, medium, other),
        }
    }
}

fn random_id(rt: &Rt) -> MediumId {
    let mut id = [0; 16];
    rt.fill_random(&mut id);
    MediumId(id)
}
