//! Goal: the records of the catalogue are stored as they were: what is written here is read, and written
//! again to the byte.

use meta::Stored;

use crate::record::Record;
use crate::snapshots::SnapshotRecord;
use crate::trash::Record as TrashRecord;

/// The least that a record has, and all that it may have.
const VMS: [&str; 2] = [
    r#"{"version":2,"created_ms":5,"disks":[],"attributes":{"folder":"/","tags":[],"labels":{}}}"#,
    r#"{"version":2,"created_ms":1767225600000,"disks":[{"name":"disk0","id":3},{"name":"debian.iso","id":4,"file_bytes":70000,"storing":{"task":12,"replace":true}}],"name":"Web01","definition":8,"import":9,"number":10,"snapshots":11,"held_until_ms":1767225699999,"attributes":{"folder":"/prod/web","tags":["gold"],"labels":{"owner":"ops"}}}"#,
];
const SNAPSHOTS: [&str; 2] = [
    r#"{"version":2,"number":9,"created_ms":5,"disks":[]}"#,
    r#"{"version":2,"number":9,"created_ms":5,"disks":[{"name":"disk0","id":3,"bytes":4096},{"name":"debian.iso","id":4,"bytes":70000,"is_file":true}],"name":"Before","definition":8,"held_until_ms":1767225699999,"group":1,"point":2,"origin":{"site":"07070707070707070707070707070707","vm":3,"number":4}}"#,
];

#[track_caller]
fn stays<T: Stored>(record: &str) {
    let read = T::decode(record.as_bytes()).expect("a sound record");
    let again = read.encode().expect("encodes");
    assert_eq!(String::from_utf8(again).expect("text"), record);
}

#[test]
fn records_are_stored_as_they_were() {
    VMS.iter().for_each(|vm| stays::<Record>(vm));
    SNAPSHOTS.iter().for_each(|snapshot| stays::<SnapshotRecord>(snapshot));
    let head = r#""deleted_ms":7,"expires_ms":8,"bytes":9,"used_bytes":10,"snapshots":1"#;
    for vm in VMS {
        stays::<TrashRecord>(&format!(r#"{{"version":1,"name":"web01",{head},"what":{{"vm":{vm}}}}}"#));
    }
    for snapshot in SNAPSHOTS {
        let what = format!(r#"{{"snapshot":{{"vm":6,"record":{snapshot}}}}}"#);
        stays::<TrashRecord>(&format!(r#"{{"version":1,"name":"web01@s1",{head},"what":{what}}}"#));
    }
}
