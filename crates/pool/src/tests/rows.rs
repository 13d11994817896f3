//! Goal: no commit can name a row that the journal does not have.

use journal::Row;
use proto::CallErrorKind;

use super::script::{Fate, Kind};
use super::site::{alone, medium_id, site};
use crate::geometry::CLASSES;
use crate::layout::{Layout, ROWS_MAX, ROWS_OF_CLASS};

fn row(class: u8, row: u16, media: &[usize]) -> Row {
    Row::new(class, row, media.iter().map(|number| medium_id(*number)).collect())
}

#[test]
fn a_row_is_reported_until_it_is_journalled() {
    let site = site(1);
    let first = site.run(site.write(100)).unwrap().new_row.expect("nobody has this row");
    let second = site.run(site.write(100)).unwrap().new_row;
    assert_eq!(second.as_ref(), Some(&first), "the first commit may never come");
    site.pool.row_journalled(&first);
    assert_eq!(site.run(site.write(100)).unwrap().new_row, None);
}

#[test]
fn a_row_whose_first_write_failed_is_reported_by_the_next() {
    let site = site(2);
    // Both media are full for the first stripe only.
    site.script.strike(Kind::Write, 0, 2, Fate::Refused(CallErrorKind::NoSpace));
    site.run(site.write(100)).unwrap_err();
    let rows = site.pool.rows();
    assert_eq!(rows.len(), 1);
    for _ in 0..2 {
        let written = site.run(site.write(100)).unwrap();
        assert!(written.new_row.is_some(), "row {} is in no journal", written.built.head.container);
    }
}

#[test]
fn rows_of_the_journal_are_known_and_their_numbers_never_reused() {
    let mut site = site(4);
    let mut journal = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..8 {
        let written = site.run(site.write(20_000)).unwrap();
        if let Some(row) = &written.new_row
            && !journal.contains(row)
        {
            journal.push(row.clone());
            site.pool.row_journalled(row);
        }
        kept.push(site.kept(&written));
    }
    assert_eq!(journal.len(), 4, "one row for each medium to start at");
    site.restart(&journal);
    assert_eq!(site.pool.rows(), journal);
    for container in &kept {
        site.run(site.read_all(container)).unwrap();
    }
    // One more with a medium away: another class, other rows.
    site.take(medium_id(3));
    let written = site.run(site.write(100)).unwrap();
    let new = written.new_row.expect("a class never used before");
    assert!(!journal.contains(&new));
    let mut layout = Layout::default();
    layout.load(row(2, 7, &[0, 1, 2]));
    let (chosen, fresh) = layout.choose(CLASSES[2], row(2, 0, &[1, 2, 0]).members, &[], 0).unwrap();
    assert_eq!((chosen.row, fresh), (8, true), "behind the last number, not in a gap");
    assert!(!layout.choose(CLASSES[2], row(2, 0, &[0, 1, 2]).members, &[], 0).unwrap().1);
}

#[test]
fn a_container_of_an_unknown_row_is_lost_by_name() {
    let mut site = site(3);
    let kept = site.put();
    site.restart(&[]);
    super::site::assert_lost(site.run(site.read_all(&kept)), &kept);
}

#[test]
fn of_two_rows_of_one_number_the_later_counts_everywhere() {
    let mut layout = Layout::default();
    layout.load(row(1, 0, &[0, 1]));
    layout.load(row(1, 0, &[2, 3]));
    assert_eq!(layout.row((1, 0)), Some(&row(1, 0, &[2, 3])));
    let (chosen, fresh) = layout.choose(CLASSES[1], row(1, 0, &[0, 1]).members, &[], 0).unwrap();
    assert_eq!((chosen, fresh), (row(1, 1, &[0, 1]), true), "the old members need a row of their own now");
}

#[test]
fn a_full_layout_falls_back_on_rows_that_are_up() {
    let mut layout = Layout::default();
    let media: Vec<_> = (0..200).map(medium_id).collect();
    let mut pairs =
        media.iter().flat_map(|a| media.iter().map(move |b| vec![*a, *b])).filter(|p| p[0] != p[1]);
    for _ in 0..ROWS_MAX {
        layout.choose(CLASSES[1], pairs.next().unwrap(), &alone(&media), 0).unwrap();
    }
    let next = pairs.next().unwrap();
    let (fallback, _) = layout.choose(CLASSES[1], next.clone(), &alone(&media), 0).expect("many rows are up");
    assert_ne!(fallback.members, next);
    assert_eq!(layout.row((1, fallback.row)), Some(&fallback));
    let (other, _) = layout.choose(CLASSES[1], next.clone(), &alone(&media), 1).unwrap();
    assert_ne!(other, fallback, "the fallback turns over the rows there are");
    let together = [media.clone()];
    assert_eq!(layout.choose(CLASSES[1], next.clone(), &together, 0), None, "all media fail together");
    assert_eq!(layout.choose(CLASSES[1], next.clone(), &alone(&next), 0), None, "no row lies on these two");
    assert_eq!(layout.rows().len(), ROWS_MAX - CLASSES.len() * ROWS_OF_CLASS);
    // Others get some all the same, and all together no more than a start record takes.
    for class in CLASSES {
        for at in 0..2 * ROWS_OF_CLASS {
            layout.choose(class, media[at..at + class.width()].to_vec(), &alone(&media), 0).unwrap();
        }
    }
    assert_eq!(layout.rows().len(), ROWS_MAX - ROWS_OF_CLASS);
    // Numbers end before they come round.
    let mut layout = Layout::default();
    layout.load(row(1, u16::MAX, &[0, 1]));
    assert_eq!(layout.choose(CLASSES[1], next, &alone(&media), 0).map(|(row, _)| row.row), Some(u16::MAX));
}
