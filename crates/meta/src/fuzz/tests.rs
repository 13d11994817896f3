use super::*;
use crate::format::encode_record;
use crate::key::{Key, KeyRange};
use crate::state::{Attachment, Put, Record};
use crate::store::{LeaseId, Revision};

struct Dice(u64);

impl Dice {
    fn next(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Records of revisions 2 to 9 that fit one another.
fn records() -> Vec<Vec<u8>> {
    let put = |number: u64, name: &str, lease: u64| Put {
        key: Key::new(name).unwrap(),
        value: vec![7; (number * 3) as usize].into(),
        lease: (lease > 0)
            .then(|| Attachment { id: LeaseId(lease), ttl: std::time::Duration::from_secs(lease * 5) }),
    };
    let record = |number: u64| Record {
        revision: Revision(number),
        puts: vec![put(number, &format!("k/{number}"), number % 3), put(number, "x", number % 2)],
        deletes: vec![KeyRange::new(*b"k/", Some(format!("k/{}", number - 1).into_bytes()))],
    };
    (2..10).map(|number| encode_record(&record(number))).collect()
}

fn joined(first: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![2];
    for piece in std::iter::once(first).chain(records.iter().map(Vec::as_slice)) {
        out.extend_from_slice(&u32::try_from(piece.len()).unwrap().to_le_bytes()[..3]);
        out.extend_from_slice(piece);
    }
    out
}

fn corpus() -> Vec<Vec<u8>> {
    let records = records();
    let half = checkpoint(&rebuild(Options::default(), None, &records[..4]).unwrap());
    rebuild(Options::default(), Some(&half.bytes), &records).expect("the corpus is sound");
    vec![
        [&[0], records[0].as_slice()].concat(),
        [&[1], half.bytes.as_slice()].concat(),
        joined(&[], &records),
        joined(&half.bytes, &records[2..]),
    ]
}

#[test]
fn seeded_mutations_break_nothing() {
    let corpus = corpus();
    let mut dice = Dice(0x5eed);
    for data in &corpus {
        fuzz_body(data);
    }
    for _ in 0..20_000 {
        let mut data = corpus[dice.next(corpus.len())].clone();
        for _ in 0..=dice.next(3) {
            let at = dice.next(data.len());
            match dice.next(5) {
                0 => data[at] ^= 1 << dice.next(8),
                1 => data[at] = dice.next(256) as u8,
                2 => data.insert(at, dice.next(256) as u8),
                3 if data.len() > 1 => drop(data.remove(at)),
                _ => data.truncate(at.max(1)),
            }
        }
        fuzz_body(&data);
    }
}
