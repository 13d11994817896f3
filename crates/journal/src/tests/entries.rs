//! Records that tests append, and what they look for.

use std::collections::BTreeMap;

use bytes::Bytes;
use units::{DiskId, Fingerprint, Incarnation, Lba, MediumId, Seq};

use crate::{Commit, Entry, Record, Recovered};

/// A write of `bytes` bytes that nothing else equals.
pub(super) fn write(n: u64, bytes: usize) -> Entry {
    let unit: Vec<u8> = (0..bytes).map(|i| (n as usize * 31 + i * 7) as u8).collect();
    Entry::Write { disk: DiskId(1), lba: Lba(n), fingerprint: Fingerprint([n as u8; 16]), unit: unit.into() }
}

pub(super) fn hole(n: u64) -> Entry {
    Entry::Hole { disk: DiskId(2), lba: Lba(n), count: n + 1 }
}

pub(super) fn meta(n: u64, bytes: usize) -> Entry {
    Entry::Meta { fingerprint: Fingerprint([n as u8; 16]), unit: Bytes::from(vec![n as u8; bytes]) }
}

pub(super) fn commit(ordinal: u64, covered: Seq) -> Entry {
    let container =
        units::ContainerId { incarnation: Incarnation(1), number: ordinal as u32, row: 0, class: 1 };
    Entry::Commit(Commit {
        container,
        total: 4096,
        entries: 1,
        map_log_bytes: 100,
        map_log: Fingerprint([9; 16]),
        ordinal,
        covered,
        blocks: 1,
        block_bytes: 4096,
    })
}

/// What an entry reads back as.
pub(super) fn record(entry: &Entry) -> Record {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    crate::decode_records(Seq(1), 1, &bytes).unwrap().remove(0).1
}

pub(super) fn is_data(record: &Record) -> bool {
    matches!(record, Record::Write { .. } | Record::Hole { .. })
}

/// The writes and holes that were recovered.
pub(super) fn data_of(recovered: &Recovered) -> BTreeMap<Seq, Record> {
    recovered.records.iter().filter(|(_, r)| is_data(r)).cloned().collect()
}

/// All ways to leave out up to `most` of `ids`: what is left.
pub(super) fn subsets(ids: &[MediumId], most: usize) -> Vec<Vec<MediumId>> {
    (0..1u32 << ids.len())
        .filter(|out| out.count_ones() as usize <= most)
        .map(|out| {
            let here = ids.iter().enumerate().filter(|(i, _)| out >> i & 1 == 0);
            here.map(|(_, id)| *id).collect()
        })
        .collect()
}
