use super::*;

fn names() -> Names {
    Names::new("/holdfast/a/").expect("a prefix")
}

#[test]
fn keys_go_out_with_the_prefix_and_come_back_without() {
    let key = Key::new("vm/web-1\0x").expect("a key");
    assert_eq!(names().out(&key), b"/holdfast/a/vm/web-1\0x");
    assert_eq!(names().back(&names().out(&key)), Ok(key));
    for foreign in ["", "/holdfast/a/", "/holdfast/b/vm", "vm", "/holdfast/a"] {
        let error = names().back(foreign.as_bytes()).expect_err("none of ours");
        assert_eq!(error.kind, ErrorKind::Corrupt, "{foreign}");
    }
}

/// A range reaches exactly the keys of the site that are in it, and never a neighbour's.
#[test]
fn ranges_stay_within_the_site() {
    let ranges = [
        KeyRange::all(),
        KeyRange::new(*b"k", None),
        KeyRange::new(*b"", Some(b"k".to_vec())),
        KeyRange::prefix(*b"k"),
        KeyRange::prefix(*b"\xff\xff"),
        KeyRange::one(&Key::new("k").expect("a key")),
        KeyRange::new(*b"z", Some(b"k".to_vec())),
        KeyRange::new(*b"", Some(b"\0".to_vec())),
        KeyRange::new(*b"", Some(Vec::new())),
    ];
    let keys: [&[u8]; 8] = [b"\0", b"\0\0", b"a", b"k", b"k\0", b"kk", b"z", b"\xff\xff\xff"];
    let neighbours: [&[u8]; 5] = [b"/holdfast/a/", b"/holdfast/a", b"/holdfast/a0", b"/holdfast/b/k", b"k"];
    for range in ranges {
        let span = names().span(&range);
        let reaches = |key: &[u8]| span.as_ref().is_some_and(|span| *span.start <= *key && *key < *span.end);
        assert!(span.as_ref().is_none_or(|span| span.start < span.end), "{range:?}");
        for key in keys {
            let key = Key::new(key).expect("a key");
            assert_eq!(reaches(&names().out(&key)), range.contains(&key), "{range:?} {key}");
        }
        assert!(!neighbours.iter().any(|key| reaches(key)), "{range:?}");
    }
}

#[test]
fn a_prefix_is_a_folder_of_bounded_length() {
    for bad in ["", "a", "/holdfast/a", &format!("/{}/", "x".repeat(PREFIX_BYTES_MAX))] {
        assert_eq!(Names::new(bad).expect_err("no prefix").kind, ErrorKind::Invalid, "{bad}");
    }
    let longest = format!("/{}/", "x".repeat(PREFIX_BYTES_MAX - 2));
    assert!(Names::new(&longest).is_ok());
    // As many compares and operations in both branches as there can be, each with some 30 bytes around its key.
    let full = meta::TXN_BYTES_MAX + 3 * meta::TXN_OPS_MAX * (PREFIX_BYTES_MAX + 30);
    assert!(full < 3 << 19, "a full transaction is no longer than etcd takes");
}
