use super::*;

const VM: Table<Shard> = Table::new("vm");
const SNAP: Table<Shard> = Table::new("snap");

#[test]
fn a_key_is_table_slash_segments() {
    assert_eq!(VM.key().text("web-1").end().unwrap().as_bytes(), b"vm/web-1");
    let key = SNAP.key().number(0xab).text("a/b").end().unwrap();
    assert_eq!(key.as_bytes(), b"snap/00000000000000ab\0a/b");
    let mut segments = SNAP.segments(&key).unwrap();
    assert_eq!((segments.number(), segments.text(), segments.is_done()), (Some(0xab), Some("a/b"), true));
    assert!(VM.segments(&key).is_none());
}

#[test]
fn keys_sort_as_tuples() {
    // With `/` between segments "a-b" would sort before "a"; numbers of varying width would sort as text.
    let tuples = [("a", 2), ("a", 10), ("a-b", 1), ("a/", 0), ("ab", 0)];
    let keys: Vec<Key> = tuples.iter().map(|(t, n)| VM.key().text(t).number(*n).end().unwrap()).collect();
    assert!(keys.is_sorted());
}

#[test]
fn beneath_holds_exactly_the_children() {
    let beneath = VM.key().text("a").beneath().unwrap();
    assert!(beneath.contains(&VM.key().text("a").number(1).end().unwrap()));
    for other in
        [VM.key().text("a"), VM.key().text("a-b").number(1), VM.key().text("ab"), SNAP.key().text("a")]
    {
        assert!(!beneath.contains(&other.end().unwrap()));
    }
    assert!(VM.key().beneath().unwrap().contains(&VM.key().text("x").end().unwrap()));
}

#[test]
fn malformed_keys_are_refused() {
    assert!(VM.key().end().is_err());
    assert!(VM.key().text("").end().is_err());
    assert!(VM.key().text("a\0b").end().is_err());
    assert!(VM.key().text("a\0b").beneath().is_err());
    assert!(Key::new([]).is_err());
    assert!(Key::new([1; KEY_BYTES_MAX]).is_ok());
    assert!(Key::new([1; KEY_BYTES_MAX + 1]).is_err());
    assert_eq!(VM.segments(&Key::new(b"vm/00000000000000AB").unwrap()).unwrap().number(), None);
}

#[test]
fn prefix_ends_are_right() {
    assert_eq!(KeyRange::prefix(b"ab").end(), Some(b"ac".as_slice()));
    assert_eq!(KeyRange::prefix([b'a', 0xff]).end(), Some(b"b".as_slice()));
    assert_eq!(KeyRange::prefix([0xff, 0xff]).end(), None);
    assert_eq!(KeyRange::prefix([]), KeyRange::all());
    let key = Key::new([0xff]).unwrap();
    assert!(KeyRange::prefix([0xff]).contains(&key) && KeyRange::all().contains(&key));
}

#[test]
fn the_rest_of_a_range_begins_behind_the_key() {
    let range = KeyRange::prefix(b"b");
    let key = Key::new(b"b1").unwrap();
    let rest = range.behind(&key);
    assert!(!rest.contains(&key) && rest.contains(&Key::new(b"b1\0").unwrap()));
    assert_eq!(range.behind(&Key::new(b"a").unwrap()), range);
    assert!(KeyRange::new(*b"b", Some(b"b".to_vec())).is_empty());
}
