//! Goal: the record of scrubs is stored as it was: what is written here is read, and written again to the
//! byte.

use super::*;

const RECORDS: [&str; 2] = [
    r#"{"version":1,"every_s":604800,"begun_ms":0,"done_ms":0,"damaged":0,"task":0}"#,
    r#"{"version":1,"every_s":0,"begun_ms":5,"done_ms":6,"damaged":7,"task":8,"cursor":{"incarnation":9,"number":10,"class":2,"row":3},"known":[[{"incarnation":9,"number":11,"class":2,"row":3},40]]}"#,
];

#[test]
fn the_record_of_scrubs_is_stored_as_it_was() {
    for record in RECORDS {
        let read = ScrubState::decode(record.as_bytes()).expect("a sound record");
        let again = read.encode().expect("encodes");
        assert_eq!(String::from_utf8(again).expect("text"), record);
    }
    assert_eq!(ScrubState::decode(RECORDS[0].as_bytes()), Ok(ScrubState::default()));
}
