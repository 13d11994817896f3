//! Goal: what commits, deletions and metadata say is found behind any restart, be it in a start record, in the log or in the
//! segments that stay for it; and no start record is longer than it may be.

use std::collections::BTreeMap;

use units::{Address, ContainerId, Fingerprint, Incarnation, Seq};

use super::fake::*;
use crate::{
    Backlog, BacklogAt, BacklogPointer, CheckpointPointer, Commit, Deleted, Entry, LiveSegment, MetaPiece,
    Record, Recovered, Root, Row, START_BYTES_MAX, Start, recover,
};

fn root() -> Root {
    let container = ContainerId { incarnation: Incarnation(1), number: 1, row: 0, class: 1 };
    let address = Address { container, slot: 0, fragment_pages: 1, offset: 64, length: 9 };
    Root { piece: MetaPiece { fingerprint: Fingerprint([1; 16]), address }, levels: 0 }
}

/// What stands in the log: ordinals of commits, by the seq up to which a backlog tells.
type Log = BTreeMap<Seq, Vec<u64>>;

/// The commits that recovery knows of, behind the last checkpoint.
fn commits(recovered: &Recovered, log: &Log) -> Vec<u64> {
    let mut found: Vec<u64> = recovered.backlog.commits.iter().map(|commit| commit.ordinal).collect();
    if let BacklogAt::Log(pointer) = &recovered.told.backlog {
        found.extend(&log[&pointer.told]);
    }
    let mut before = recovered.told.checkpoint.as_ref().map_or(0, |pointer| pointer.commits_before);
    for (_, record) in &recovered.records {
        match record {
            Record::Commit(commit) => found.push(commit.ordinal),
            Record::Checkpoint(pointer) => before = before.max(pointer.commits_before),
            _ => {}
        }
    }
    found.retain(|ordinal| *ordinal >= before);
    found
}

impl SinkState {
    pub(super) fn commit(&mut self, commit: &Commit) {
        self.known.covered = self.known.covered.max(commit.covered);
        self.known.backlog.get_or_insert_default().commits.push(commit.clone());
    }

    pub(super) fn checkpointed(&mut self, pointer: &CheckpointPointer) {
        let backlog = self.known.backlog.get_or_insert_default();
        backlog.commits.retain(|commit| commit.ordinal >= pointer.commits_before);
        self.known.checkpoint = Some(pointer.clone());
    }
}

impl Site {
    /// The commits behind the last checkpoint, as the sink has them, and the seq of the next record.
    fn backlog(&self) -> Vec<u64> {
        let state = self.sink.state.lock().unwrap();
        state.known.backlog.iter().flat_map(|b| &b.commits).map(|commit| commit.ordinal).collect()
    }

    fn number(&self) -> u64 {
        let state = self.sink.state.lock().unwrap();
        state.known.checkpoint.as_ref().map_or(0, |pointer| pointer.number)
    }
}

/// Backlogs short and long, checkpoints and backlogs in the log as they like, trims as soon as they may be: at each step
/// every commit is found, whatever medium is lost, and by the next stream too.
#[test]
fn every_commit_is_found_however_the_backlog_is_kept() {
    for seed in 0..24u64 {
        run(seed, async |rt| {
            let mut media = FakeMedia::new(4);
            let options = |epoch| Options { epoch, segments_max: 200, ..Options::default() };
            let mut site = Site::open(&rt, &media, None, options(1)).await.unwrap();
            let (mut log, mut covered, mut ordinal, mut epoch) = (Log::new(), Seq(1), 0, 1);
            let mut trimmed = false;
            for step in 0..40 {
                let dice = seam::random_u64(&*rt);
                site.sink.state.lock().unwrap().is_long = !(dice >> 32).is_multiple_of(3);
                match dice % 8 {
                    0 => drop(end(site.journal.rotate()).await.unwrap()),
                    1 | 2 => {
                        covered = site.journal.next_seq();
                        end(site.journal.append_control(vec![commit(ordinal, covered)])).await.unwrap();
                        ordinal += 1;
                        let live = site.journal.used_percent();
                        site.journal.trim(covered);
                        trimmed |= site.journal.used_percent() < live;
                    }
                    3 => {
                        // The boundary, and what comes behind it before the record.
                        let (number, commits_before) = (site.number() + 1, ordinal);
                        let told = site.journal.next_seq();
                        if dice >> 40 & 1 == 1 {
                            end(site.journal.append_control(vec![commit(ordinal, covered)])).await.unwrap();
                            ordinal += 1;
                        }
                        let meta_before = Seq(0);
                        let pointer =
                            CheckpointPointer { number, root: root(), commits_before, meta_before, told };
                        end(site.journal.append_control(vec![Entry::Checkpoint(pointer)])).await.unwrap();
                    }
                    4 => {
                        let (told, behind) = (site.journal.next_seq(), site.number());
                        // One that a checkpoint overtook says what was, and counts for nothing.
                        let overtaken = u64::from(dice >> 40 & 3 == 3 && behind > 0);
                        let commits = if overtaken == 1 { Vec::new() } else { site.backlog() };
                        log.entry(told).or_insert(commits);
                        let pointer = BacklogPointer { root: root(), behind: behind - overtaken, told };
                        end(site.journal.append_control(vec![Entry::Backlog(pointer)])).await.unwrap();
                        site.journal.trim(covered);
                    }
                    _ => drop(end(site.journal.append(vec![write(step, 9000)])).await.unwrap()),
                }
                let lost = &subsets(&media.ids(), 2)[(dice >> 44) as usize % 11];
                let recovered =
                    recover(&*media, lost, &KEY, &by_last(site.witness())).await.unwrap().unwrap();
                assert_eq!(commits(&recovered, &log), site.backlog(), "seed {seed} step {step}");
                if dice >> 50 & 7 == 0 {
                    let witness = site.witness();
                    let known = site.sink.state.lock().unwrap().known.clone();
                    media = media.restarted();
                    epoch += 1;
                    let recovered =
                        recover(&*media, &media.ids(), &KEY, &by_last(witness)).await.unwrap().unwrap();
                    site = Site::open(&rt, &media, Some(&recovered), options(epoch)).await.unwrap();
                    let mut state = site.sink.state.lock().unwrap();
                    state.known.backlog = known.backlog;
                    assert_eq!(state.known.checkpoint, known.checkpoint);
                }
            }
            assert!(trimmed || seed > 0, "segments go");
        });
    }
}

/// Segments stay for what no start record tells, and go once it stands in the log.
#[test]
fn segments_stay_for_an_untold_backlog_until_it_stands_in_the_log() {
    run(1, async |rt| {
        let media = FakeMedia::new(3);
        let options = Options { segments_max: 20, ..Options::default() };
        let site = Site::open(&rt, &media, None, options).await.unwrap();
        site.sink.state.lock().unwrap().is_long = true;
        for n in 0..5 {
            end(site.journal.append(vec![write(n, 100)])).await.unwrap();
            let covered = site.journal.next_seq();
            end(site.journal.append_control(vec![commit(n, covered)])).await.unwrap();
            end(site.journal.rotate()).await.unwrap();
            site.journal.trim(covered);
        }
        let covered = site.journal.next_seq();
        assert_eq!((site.journal.used_percent(), site.journal.untold(covered)), (30, 5));
        let pointer = BacklogPointer { root: root(), behind: 0, told: covered };
        end(site.journal.append_control(vec![Entry::Backlog(pointer)])).await.unwrap();
        site.journal.trim(covered);
        assert_eq!((site.journal.used_percent(), site.journal.untold(covered)), (5, 0));
    });
}

/// The longest start record of a site: all rows that there may be on many media, as many live segments as there are slots,
/// a backlog as long as it may be.
#[test]
fn the_longest_start_record_fits_its_bound() {
    let id = |number: u32| ContainerId {
        incarnation: Incarnation(u64::MAX - u64::from(number)),
        number: u32::MAX,
        class: 6,
        row: u16::MAX,
    };
    let media: Vec<_> = (0..=255).map(medium).collect();
    let row = |row: u16| {
        let members: Vec<_> =
            (0..10).map(|at| media[usize::from(row.wrapping_mul(7) + at * 25) % 256]).collect();
        Row { version: 300, ..Row::new(6, row, members) }
    };
    let segment = |number| LiveSegment {
        epoch: units::Epoch(u64::MAX),
        stream: Incarnation(u64::MAX),
        number,
        first_seq: Seq(u64::MAX),
    };
    let deleted = |number| Deleted { container: id(number), total: u32::MAX, blocks: u32::MAX };
    let start = Start {
        covered: Seq(u64::MAX),
        live: (0..40).map(segment).collect(),
        checkpoint: Some(CheckpointPointer {
            number: u64::MAX,
            root: root(),
            commits_before: u64::MAX,
            meta_before: Seq(u64::MAX),
            told: Seq(u64::MAX),
        }),
        told: Seq(u64::MAX),
        backlog: BacklogAt::Here(Backlog {
            deleted: (0..16 * 1024 / 29).map(deleted).collect(),
            ..Backlog::default()
        }),
        rows: (0..1024).map(row).collect(),
    };
    let mut bytes = Vec::new();
    start.encode(&mut bytes);
    assert!(bytes.len() < START_BYTES_MAX - 4096, "{} bytes", bytes.len());
    let records = crate::decode_records(Seq(1), 0, &bytes).unwrap();
    assert_eq!(records[0].1, Record::Start(Box::new(start)));
}

/// A journal of an earlier format is refused by name.
#[test]
fn a_journal_of_an_earlier_format_is_named() {
    run(1, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        drop(site);
        assert!(crate::newest_epoch(&*media, &media.ids(), &KEY).await.is_ok());
        media.with(|inner| {
            for media in inner.media.values_mut() {
                media.segments.values_mut().for_each(|bytes| age(bytes));
            }
        });
        let error = crate::newest_epoch(&*media, &media.ids(), &KEY).await.unwrap_err();
        assert_eq!(error.kind, crate::RecoverErrorKind::Format);
        assert!(error.reason.contains("format 1"), "{error}");
    });
}

/// Makes a segment header one of version 1.
fn age(page: &mut [u8]) {
    page[4] = 1;
    let crc = crate::format::SEGMENT_FIXED - 4;
    page[crc..crc + 4].fill(0);
    let sum = units::crc32c(&page[..crate::format::SEGMENT_FIXED]);
    page[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
}
