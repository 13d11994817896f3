//! Geometry classes and rows.

use std::collections::BTreeMap;

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

/// The layout: rows by class.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    rows: BTreeMap<(u8, u16), Vec<MediumId>>,
    by_members: BTreeMap<(u8, Vec<MediumId>), u16>,
}

impl Layout {
    pub(crate) fn insert(&mut self, row: Row) {
        self.by_members.insert((row.class, row.members.clone()), row.row);
        self.rows.insert((row.class, row.row), row.members);
    }

    pub(crate) fn members(&self, class: u8, row: u16) -> Option<&[MediumId]> {
        self.rows.get(&(class, row)).map(Vec::as_slice)
    }

    /// All rows, in order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((class, row), members): (&(u8, u16), &Vec<MediumId>)| Row {
            class: *class,
            row: *row,
            members: members.clone(),
        };
        self.rows.iter().map(row).collect()
    }

    /// The row of `class` with these members; a new one when there is none yet.
    pub(crate) fn row_of(&mut self, class: Class, members: &[MediumId]) -> (Row, bool) {
        let key = (class.number, members.to_vec());
        if let Some(row) = self.by_members.get(&key) {
            return (Row { class: class.number, row: *row, members: members.to_vec() }, false);
        }
        let last = self.rows.range((class.number, 0)..=(class.number, u16::MAX)).next_back();
        let row = last.map_or(0, |((_, row), _)| row + 1);
        let row = Row { class: class.number, row, members: members.to_vec() };
        self.insert(row.clone());
        (row, true)
    }
}
