use super::*;

fn change(revision: u64, name: &str, bytes: usize) -> Change {
    let key = Key::new(name).unwrap();
    let revision = Revision(revision);
    let new = KeyValue {
        key: key.clone(),
        value: vec![0; bytes].into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: None,
    };
    Change { key, revision, old: None, new: Some(new) }
}

#[test]
fn whole_revisions_are_forgotten_when_events_are_many() {
    let mut history = History::new(Revision(1), 4, usize::MAX);
    history.push(vec![change(2, "a", 0), change(2, "b", 0), change(2, "c", 0)]);
    history.push(vec![change(3, "a", 0)]);
    assert_eq!(history.floor, Revision(1));
    history.push(vec![change(4, "a", 0)]);
    assert_eq!((history.floor, history.changes.len()), (Revision(2), 2), "no half of revision 2 stays");
    assert!(history.undo(&KeyRange::all(), Revision(1)).is_err());
    assert!(history.undo(&KeyRange::all(), Revision(2)).is_ok());
    // More at once than the bound: nothing is kept, everyone is told.
    history.push((0..5).map(|n| change(5, &format!("{n}"), 0)).collect());
    assert_eq!((history.floor, history.changes.len(), history.bytes), (Revision(5), 0, 0));
}

#[test]
fn bytes_are_bounded_too() {
    let mut history = History::new(Revision(1), usize::MAX, 10_000);
    for revision in 2..100 {
        history.push(vec![change(revision, "a", 3000)]);
        assert!(history.bytes <= 10_000);
    }
    let kept: usize = history.changes.iter().map(Change::bytes).sum();
    assert_eq!((kept, history.floor), (history.bytes, Revision(96)));
}
