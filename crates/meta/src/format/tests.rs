use super::*;
use crate::error::ErrorKind;

/// A name and what it breaks.
type Breaks<'a, T> = (&'a str, &'a dyn Fn(&mut T));

fn sample_record() -> Record {
    let lease = Attachment { id: LeaseId(300), ttl: Duration::from_secs(10) };
    Record {
        revision: Revision(200),
        puts: vec![
            Put { key: Key::new("vm/a").unwrap(), value: (*b"xyz").into(), lease: None },
            Put { key: Key::new("n").unwrap(), value: (*b"").into(), lease: Some(lease) },
        ],
        deletes: vec![KeyRange::prefix(*b"t/"), KeyRange::new(*b"z", None)],
    }
}

const RECORD: &[u8] = b"\x01\x00\xc8\x01\
    \x02\x04vm/a\x03xyz\x00\x01n\x00\x01\xac\x02\x0a\
    \x02\x02t/\x01\x02t0\x01z\x00";

fn sample_checkpoint() -> (Revision, Vec<(KeyValue, Option<Attachment>)>) {
    let lease = Attachment { id: LeaseId(300), ttl: Duration::from_secs(10) };
    let kv = |key: &str, value: &[u8], create, changed, version, lease| KeyValue {
        key: Key::new(key).unwrap(),
        value: value.into(),
        create_revision: Revision(create),
        mod_revision: Revision(changed),
        version,
        lease,
    };
    let entries = vec![
        (kv("a", b"one", 2, 200, 3, None), None),
        (kv("b", b"", 150, 150, 1, Some(lease.id)), Some(lease)),
    ];
    (Revision(201), entries)
}

const CHECKPOINT: &[u8] = b"HFMC\x01\xc9\x01\x02\
    \x01a\x03one\x02\xc8\x01\x03\x00\
    \x01b\x00\x96\x01\x96\x01\x01\x01\xac\x02\x0a";

#[test]
fn record_bytes_are_golden() {
    assert_eq!(encode_record(&sample_record()), RECORD);
    assert_eq!(decode_record(RECORD).unwrap(), sample_record());
}

#[test]
fn checkpoint_bytes_are_golden() {
    let (revision, entries) = sample_checkpoint();
    assert_eq!(encode_checkpoint(revision, &entries), CHECKPOINT);
    let state = decode_checkpoint(CHECKPOINT, 10, 1000).unwrap();
    let read: Vec<_> = state.entries().map(|(kv, lease)| (kv.clone(), lease)).collect();
    assert_eq!((state.revision(), read), (revision, entries));
    assert!(state.derived_agrees());
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for end in 0..RECORD.len() {
        assert_eq!(decode_record(&RECORD[..end]).unwrap_err().kind, ErrorKind::Corrupt, "{end}");
    }
    for end in 0..CHECKPOINT.len() {
        assert!(decode_checkpoint(&CHECKPOINT[..end], 10, 1000).is_err(), "{end}");
    }
    assert!(decode_record(&[RECORD, b"\0"].concat()).is_err());
    assert!(decode_checkpoint(&[CHECKPOINT, b"\0"].concat(), 10, 1000).is_err());
}

#[test]
fn records_beyond_the_rules_are_refused() {
    let broken: [Breaks<Record>; 6] = [
        ("revision 0", &|record| record.revision = Revision::NONE),
        ("a revision that overflows", &|record| record.revision = Revision(u64::MAX)),
        ("a key put twice", &|record| record.puts[1].key = record.puts[0].key.clone()),
        ("a put in a deleted range", &|record| record.deletes[0] = KeyRange::all()),
        ("lease 0", &|record| record.puts[1].lease.as_mut().unwrap().id = LeaseId(0)),
        ("a lease of no time", &|record| record.puts[1].lease.as_mut().unwrap().ttl = Duration::ZERO),
    ];
    for (what, breaks) in broken {
        let mut record = sample_record();
        breaks(&mut record);
        assert_eq!(decode_record(&encode_record(&record)).unwrap_err().kind, ErrorKind::Corrupt, "{what}");
    }
    assert!(decode_record(&[&[2], &RECORD[1..]].concat()).unwrap_err().context.contains("version 2"));
    assert!(decode_record(&vec![1; RECORD_BYTES_MAX + 1]).is_err());
}

#[test]
fn checkpoints_beyond_the_rules_are_refused() {
    type Entries = Vec<(KeyValue, Option<Attachment>)>;
    let broken: [Breaks<Entries>; 6] = [
        ("keys out of order", &|entries| entries.swap(0, 1)),
        ("a key twice", &|entries| entries[1].0.key = entries[0].0.key.clone()),
        ("an entry of the future", &|entries| entries[0].0.mod_revision = Revision(202)),
        ("changed before created", &|entries| entries[0].0.create_revision = Revision(201)),
        ("more versions than revisions", &|entries| entries[1].0.version = 2),
        ("no version", &|entries| entries[1].0.version = 0),
    ];
    for (what, breaks) in broken {
        let (revision, mut entries) = sample_checkpoint();
        breaks(&mut entries);
        let result = decode_checkpoint(&encode_checkpoint(revision, &entries), 10, 1000);
        assert_eq!(result.unwrap_err().kind, ErrorKind::Corrupt, "{what}");
    }
    // A count beyond the bytes there are costs nothing.
    let claim = append(b"HFMC\x01".to_vec(), &WireHead { revision: 9, count: u64::MAX });
    assert!(decode_checkpoint(&claim, 10, 1000).is_err());
}

/// The longest record a checked transaction can make fits the limit.
#[test]
fn the_longest_record_fits() {
    use crate::limits::{KEY_BYTES_MAX, TXN_BYTES_MAX};
    let lease = Some(Attachment { id: LeaseId(LeaseId::MAX), ttl: LEASE_TTL_MAX });
    let each = TXN_BYTES_MAX / TXN_OPS_MAX - KEY_BYTES_MAX;
    let puts = (0..TXN_OPS_MAX).map(|number| {
        let mut key = vec![1; KEY_BYTES_MAX];
        key[..2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
        Put { key: Key::new(key).unwrap(), value: vec![2; each].into(), lease }
    });
    let record = Record { revision: Revision(REVISION_MAX), puts: puts.collect(), deletes: Vec::new() };
    let bytes = encode_record(&record);
    assert!(bytes.len() > TXN_BYTES_MAX);
    assert_eq!(decode_record(&bytes).unwrap(), record);
}
