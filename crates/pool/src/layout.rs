//! The layout: rows by class, in their newest version, and who writes to them.

use std::collections::{BTreeMap, BTreeSet};

use journal::Row;
use units::MediumId;

use crate::geometry::{CLASSES, Class};

/// Most rows. A site needs one row for each medium and set of media that are up; with media that fail and return, old rows
/// add up, and the start of every journal segment lists them all.
pub(crate) const ROWS_MAX: usize = 1024;
/// Rows that a class may have in any case.
pub(crate) const ROWS_OF_CLASS: usize = 64;
/// Rows from which on a class with as many as that gets no more.
const ROWS_SHARED: usize = ROWS_MAX - CLASSES.len() * ROWS_OF_CLASS;

/// Class and number of a row.
pub(crate) type RowKey = (u8, u16);

pub(crate) fn key_of(row: &Row) -> RowKey {
    (row.class, row.row)
}

#[derive(Debug, Default)]
pub(crate) struct Layout {
    rows: BTreeMap<RowKey, Row>,
    /// Rows that take new containers.
    by_members: BTreeMap<(u8, Vec<MediumId>), u16>,
    /// Rows whose record is not known to be in the journal.
    fresh: BTreeSet<RowKey>,
    /// Rows about to be retired: they take no new containers.
    closed: BTreeSet<RowKey>,
    /// Containers of a row that are written and not yet committed or given up.
    users: BTreeMap<RowKey, usize>,
}

impl Layout {
    /// Takes over a row from the journal: the highest version counts, and of two that are equal in it the later.
    pub(crate) fn load(&mut self, row: Row) {
        if self.rows.get(&key_of(&row)).is_some_and(|have| have.version > row.version) {
            return;
        }
        self.fresh.remove(&key_of(&row));
        self.insert(row);
    }

    fn insert(&mut self, row: Row) {
        let key = key_of(&row);
        if let Some(old) = self.rows.get(&key) {
            if old.version == row.version && old.members != row.members {
                tracing::error!(
                    class = row.class,
                    row = row.row,
                    "two rows of the layout bear the same number"
                );
            }
            let members = (row.class, old.members.clone());
            if self.by_members.get(&members) == Some(&row.row) {
                self.by_members.remove(&members);
            }
        }
        if row.is_retired() {
            self.closed.remove(&key);
        } else if !row.is_moving() {
            self.by_members.insert((row.class, row.members.clone()), row.row);
        }
        self.rows.insert(key, row);
        // A retired row keeps its number from being given again while it is the last; nothing else tells of it.
        let last = self.of_class(key.0).next_back().map(|(key, _)| *key);
        self.rows.retain(|other, row| other.0 != key.0 || !row.is_retired() || Some(*other) == last);
    }

    fn of_class(&self, class: u8) -> impl DoubleEndedIterator<Item = (&RowKey, &Row)> {
        self.rows.range((class, 0)..=(class, u16::MAX))
    }

    pub(crate) fn row(&self, key: RowKey) -> Option<&Row> {
        self.rows.get(&key)
    }

    /// All rows, in order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.values().cloned().collect()
    }

    /// The row of `class` with these members, and whether its record still has to be journalled. When the class has
    /// all the rows it may have, another one of those with one medium in each of as many of `domains`, in turn; `None` when
    /// there is none.
    pub(crate) fn choose(
        &mut self,
        class: Class,
        members: Vec<MediumId>,
        domains: &[Vec<MediumId>],
        turn: u64,
    ) -> Option<(Row, bool)> {
        let known = self.by_members.get(&(class.number, members.clone()));
        let key = match known.map(|row| (class.number, *row)).filter(|key| !self.closed.contains(key)) {
            Some(key) => key,
            None => match self.next_number(class) {
                Some(row) => {
                    self.insert(Row::new(class.number, row, members));
                    self.fresh.insert((class.number, row));
                    (class.number, row)
                }
                None => self.usable(class, domains, turn)?,
            },
        };
        let row = self.rows.get(&key)?.clone();
        Some((row, self.fresh.contains(&key)))
    }

    /// A record of `row` is durable.
    pub(crate) fn journalled(&mut self, row: &Row) {
        match self.rows.get(&key_of(row)) {
            Some(have) if have.version > row.version => {}
            Some(have) if have == row => drop(self.fresh.remove(&key_of(row))),
            Some(have) if have.version == row.version => {}
            _ => self.load(row.clone()),
        }
    }

    /// Number of the next row of a class: never one that was used before, since containers may name it.
    fn next_number(&self, class: Class) -> Option<u16> {
        if self.of_class(class.number).count() >= ROWS_OF_CLASS && self.rows.len() >= ROWS_SHARED {
            return None;
        }
        self.of_class(class.number).last().map_or(Some(0), |((_, row), _)| row.checked_add(1))
    }

    fn usable(&self, class: Class, domains: &[Vec<MediumId>], turn: u64) -> Option<RowKey> {
        let domain_of = |medium: &MediumId| domains.iter().position(|media| media.contains(medium));
        let fits = |row: &Row| {
            let in_domains: Option<BTreeSet<usize>> = row.members.iter().map(domain_of).collect();
            !row.is_moving()
                && !self.closed.contains(&key_of(row))
                && row.members.len() == class.width()
                && in_domains.is_some_and(|domains| domains.len() == class.width())
        };
        let fit: Vec<RowKey> =
            self.of_class(class.number).filter(|(_, row)| fits(row)).map(|(key, _)| *key).collect();
        let count = fit.len() as u64;
        (count > 0).then(|| fit[(turn % count) as usize])
    }

    /// A container is about to be written to the row.
    pub(crate) fn enter(&mut self, key: RowKey) {
        *self.users.entry(key).or_default() += 1;
    }

    /// It is committed or given up.
    pub(crate) fn leave(&mut self, key: RowKey) {
        if let Some(users) = self.users.get_mut(&key) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&key);
            }
        }
    }

    /// Takes no new containers to the row from here on; false when one is being written to it.
    pub(crate) fn close(&mut self, key: RowKey) -> bool {
        !self.is_used(key) && {
            self.closed.insert(key);
            true
        }
    }

    /// Takes new containers to the row again.
    pub(crate) fn reopen(&mut self, key: RowKey) {
        self.closed.remove(&key);
    }

    pub(crate) fn is_used(&self, key: RowKey) -> bool {
        self.users.contains_key(&key)
    }
}
