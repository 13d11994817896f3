//! Geometry classes and rows.

use std::collections::{BTreeMap, BTreeSet};

use journal::Row;
use units::MediumId;

/// k data fragments and m parity fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Number of the class, as in container ids.
    pub number: u8,
    /// Data fragments.
    pub k: usize,
    /// Parity fragments: losses a stripe survives.
    pub m: usize,
}

impl Class {
    /// Fragments of a stripe.
    pub fn width(&self) -> usize {
        self.k + self.m
    }
}

const fn class(number: u8, k: usize, m: usize) -> Class {
    Class { number, k, m }
}

/// All classes, by number. Numbers stand in container ids and are never given another meaning.
pub const CLASSES: [Class; 7] = [
    class(0, 1, 0),
    class(1, 1, 1),
    class(2, 1, 2),
    class(3, 2, 2),
    class(4, 3, 2),
    class(5, 4, 2),
    class(6, 8, 2),
];

/// The class of new containers when `up` media are up (DESIGN 4); `None` without media.
pub fn class_for(up: usize) -> Option<Class> {
    let number = match up {
        0 => return None,
        1 => 0,
        2 => 1,
        3 => 2,
        4 => 3,
        5 => 4,
        6..=9 => 5,
        _ => 6,
    };
    Some(CLASSES[number])
}

/// Media of the stripe of turn `turn`, by fragment index: `width` of the n in `media`.
///
/// Stripes lie end to end around the circle of media, so that in any run of turns no medium gets more than two
/// fragments beyond its share; after each whole tiling the start moves on by one, so that every medium holds each
/// fragment index, parity too, in turn. There are n rows in all.
pub(crate) fn turn_over(media: &[MediumId], width: usize, turn: u64) -> Vec<MediumId> {
    let count = media.len() as u64;
    if width == 0 || (media.len()) < width {
        return Vec::new();
    }
    let tiling = count / common_divisor(count, width as u64);
    let turn = turn % (tiling * count);
    let start = turn * width as u64 + turn / tiling;
    (start..start + width as u64).map(|at| media[(at % count) as usize]).collect()
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Most rows of a class. A site needs one row for each medium and set of media that are up; with media that fail and
/// return, old rows add up, and the start of every journal segment lists them all.
pub(crate) const ROWS_MAX: usize = 1024;

/// The layout: rows by class.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    rows: BTreeMap<(u8, u16), Vec<MediumId>>,
    by_members: BTreeMap<(u8, Vec<MediumId>), u16>,
    /// Rows whose record is not known to be in the journal.
    fresh: BTreeSet<(u8, u16)>,
}

impl Layout {
    /// Takes over a row from the journal. Of two that bear the same number the later counts.
    pub(crate) fn load(&mut self, row: Row) {
        self.fresh.remove(&(row.class, row.row));
        self.insert(row);
    }

    fn insert(&mut self, row: Row) {
        let key = (row.class, row.row);
        if let Some(old) = self.rows.insert(key, row.members.clone())
            && old != row.members
        {
            tracing::error!(class = row.class, row = row.row, "two rows of the layout bear the same number");
            self.by_members.remove(&(row.class, old));
        }
        self.by_members.insert((row.class, row.members), row.row);
    }

    pub(crate) fn members(&self, class: u8, row: u16) -> Option<&[MediumId]> {
        self.rows.get(&(class, row)).map(Vec::as_slice)
    }

    /// All rows, in order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.iter().map(|(key, members)| row_of(*key, members)).collect()
    }

    /// The row of `class` with these members, and whether its record still has to be journalled. When the class has
    /// all the rows it may have, another one whose members are all in `media`; `None` when there is none.
    pub(crate) fn choose(
        &mut self,
        class: Class,
        members: Vec<MediumId>,
        media: &[MediumId],
    ) -> Option<(Row, bool)> {
        let key = match self.by_members.get(&(class.number, members.clone())) {
            Some(row) => (class.number, *row),
            None => match self.next_number(class) {
                Some(row) => {
                    self.insert(Row { class: class.number, row, members });
                    self.fresh.insert((class.number, row));
                    (class.number, row)
                }
                None => self.usable(class, media)?,
            },
        };
        let row = row_of(key, self.rows.get(&key)?);
        Some((row, self.fresh.contains(&key)))
    }

    /// The record of `row` is durable.
    pub(crate) fn journalled(&mut self, row: &Row) {
        if self.members(row.class, row.row) == Some(&row.members) {
            self.fresh.remove(&(row.class, row.row));
        }
    }

    /// Number of the next row of a class: never one that was used before, since containers may name it.
    fn next_number(&self, class: Class) -> Option<u16> {
        let of_class = self.rows.range((class.number, 0)..=(class.number, u16::MAX));
        if of_class.clone().count() >= ROWS_MAX {
            return None;
        }
        of_class.last().map_or(Some(0), |((_, row), _)| row.checked_add(1))
    }

    fn usable(&self, class: Class, media: &[MediumId]) -> Option<(u8, u16)> {
        let mut of_class = self.rows.range((class.number, 0)..=(class.number, u16::MAX));
        let fits = |members: &[MediumId]| {
            members.len() == class.width() && members.iter().all(|medium| media.contains(medium))
        };
        of_class.find(|(_, members)| fits(members)).map(|(key, _)| *key)
    }
}

fn row_of((class, row): (u8, u16), members: &[MediumId]) -> Row {
    Row { class, row, members: members.to_vec() }
}
