//! The last changes, bounded: feeds watches, and undoes changes for reads at an older revision.
//!
//! It holds whole revisions only. A watch holds nothing but a cursor into it, so a slow watcher costs no memory: it
//! falls behind the floor and is told.

use std::collections::{BTreeMap, VecDeque};

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyRange};
use crate::store::{Batch, Event, KeyValue, Revision};

/// One key changed: `old` became `new`. One of them is present.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) revision: Revision,
    pub(crate) old: Option<KeyValue>,
    pub(crate) new: Option<KeyValue>,
}

impl Change {
    fn bytes(&self) -> usize {
        let value = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len());
        size_of::<Self>() + self.key.as_bytes().len() + value(&self.old) + value(&self.new)
    }

    fn event(&self) -> Event {
        match &self.new {
            Some(kv) => Event::Put(kv.clone()),
            None => Event::Delete { key: self.key.clone(), revision: self.revision },
        }
    }
}

/// What a watch finds when it looks.
#[derive(Debug)]
pub(crate) enum Found {
    /// Events for it.
    Events(Batch),
    /// None up to this revision.
    Nothing(Revision),
}

#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Change>,
    /// All changes behind this revision are here.
    floor: Revision,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(floor: Revision, events_max: usize, bytes_max: usize) -> Self {
        Self { changes: VecDeque::new(), floor, bytes: 0, events_max, bytes_max }
    }

    /// Takes the changes of one revision, behind all others; forgets the oldest revisions beyond the bounds.
    pub(crate) fn push(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.bytes += change.bytes();
            self.changes.push_back(change);
        }
        while self.changes.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.changes.front().map(|change| change.revision) else { return };
            while let Some(change) = self.changes.pop_front_if(|change| change.revision == oldest) {
                self.bytes -= change.bytes();
            }
            self.floor = oldest;
        }
    }

    /// The changes behind `revision`, oldest first.
    fn behind(&self, revision: Revision) -> Result<impl DoubleEndedIterator<Item = &Change>> {
        if revision < self.floor {
            let context = format!("revision {revision} is forgotten, the oldest kept is {}", self.floor);
            return Err(Error::new(ErrorKind::Compacted, context));
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Ok(self.changes.range(start..))
    }

    /// The events in `range` behind `cursor`, whole revisions, at least `enough` when there are; `newest` is the
    /// revision of the state.
    pub(crate) fn events(
        &self,
        range: &KeyRange,
        cursor: Revision,
        enough: usize,
        newest: Revision,
    ) -> Result<Found> {
        let mut events: Vec<Event> = Vec::new();
        for change in self.behind(cursor)?.filter(|change| range.contains(&change.key)) {
            if let Some(last) = events.last().map(Event::revision)
                && events.len() >= enough
                && last < change.revision
            {
                return Ok(Found::Events(Batch { events, revision: last }));
            }
            events.push(change.event());
        }
        let revision = newest.max(cursor);
        Ok(if events.is_empty() {
            Found::Nothing(revision)
        } else {
            Found::Events(Batch { events, revision })
        })
    }

    /// What the keys of `range` that changed behind `revision` were at it.
    pub(crate) fn undo(
        &self,
        range: &KeyRange,
        revision: Revision,
    ) -> Result<BTreeMap<&[u8], Option<&KeyValue>>> {
        let newest_first = self.behind(revision)?.rev().filter(|change| range.contains(&change.key));
        Ok(newest_first.map(|change| (change.key.as_bytes(), change.old.as_ref())).collect())
    }
}

#[cfg(test)]
mod tests;
