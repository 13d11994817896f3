//! Goal: records and texts of any shape are answered with a value or an error, and what is read is bounded.

use meta::Stored;
use proptest::prelude::*;
use seam::testing::replay;

use super::stored::RECORD;
use crate::Group;
use crate::fuzz::fuzz_body;

const MUTATIONS: u64 = 2_000;

#[test]
fn damaged_input() {
    assert!(Group::decode(RECORD.as_bytes()).is_ok());
    let texts =
        ["*/5 8-18 1,L 2 1-5#2", "@weekly", "1d12h ago", "yesterday 18:00", "2026-11-29T18:00:00+01:00"];
    let more =
        ["hourly=24,daily=7", "Europe/Berlin", "w?b*", "(?x)[a-z]{2,3}|(?:b\\d+)", "application", "90m"];
    let mut corpus = vec![RECORD.as_bytes().to_vec()];
    corpus.extend(texts.into_iter().chain(more).map(|text| text.as_bytes().to_vec()));
    replay(&corpus, MUTATIONS, fuzz_body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn texts_of_any_kind(
        text in prop_oneof![
            ".{0,80}",
            "[0-9*/,@L#W?+ -]{1,30}",
            "([0-9*/,L#W?-]{1,5} ){4}[0-9*/,L#-]{1,5}",
            "[0-9]{1,20}[smhdwy]( ago)?",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?",
            "[a-z|()\\[\\]{}0-9?*+.\\\\]{1,24}",
        ],
    ) {
        fuzz_body(text.as_bytes());
    }
}
