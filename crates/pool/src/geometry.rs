//! Geometry classes, and which media a stripe turns to.

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

/// The class of new containers when `up` media are up (section 4.6 of docs/design.md); `None` without media.
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

/// Longest circle of the media of one domain: more would be rows nobody can count.
const CIRCLE_MAX: u64 = 1 << 16;

/// Media of the stripe of turn `turn`, by fragment index: one of each of `width` of the n failure domains.
///
/// Stripes lie end to end around the circle of domains, so that in any run of turns no domain gets more than two
/// fragments beyond its share; after each whole tiling the start moves on by one, so that every domain holds each
/// fragment index, parity too, in turn. A domain gives its media in turn. Where each has one medium there are n rows in
/// all; where each has several, that often as many.
pub(crate) fn turn_over(domains: &[Vec<MediumId>], width: usize, turn: u64) -> Vec<MediumId> {
    let count = domains.len() as u64;
    if width == 0 || domains.len() < width || domains.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let tiling = count / common_divisor(count, width as u64);
    let circle = domains
        .iter()
        .map(|media| media.len() as u64)
        .fold(1, |all, media| if all > CIRCLE_MAX { all } else { all / common_divisor(all, media) * media });
    let turn = turn % (tiling * count * circle);
    let tilings = turn / tiling;
    let start = turn * width as u64 + tilings;
    let member = |at: u64| {
        let domain = at % count;
        // Where a tiling began, one domain was passed over.
        let passed_over = (tilings + count - 1 - domain) / count;
        let media = &domains[domain as usize];
        media[((at / count - passed_over) % media.len() as u64) as usize]
    };
    (start..start + width as u64).map(member).collect()
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
