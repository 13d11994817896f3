use std::time::Duration;

use super::*;

const GOOD: &str = "\
# what: acknowledges before the sync
# test: test -p journal -- ack
# expect: ack_waits_for_sync

diff --git a/crates/journal/src/lib.rs b/crates/journal/src/lib.rs
--- a/crates/journal/src/lib.rs
+++ b/crates/journal/src/lib.rs
@@ -1 +1 @@
-a
+# expect: not part of the header
";

fn outcome(success: bool, output: &str) -> Outcome {
    Outcome { success, timed_out: false, output: output.to_owned(), took: Duration::ZERO }
}

#[test]
fn a_header_is_read() {
    let planted = parse("ack-early", GOOD).expect("the header is whole");
    assert_eq!(planted.what, "acknowledges before the sync");
    assert_eq!(planted.test, ["test", "-p", "journal", "--", "ack"]);
    assert_eq!(planted.expect, "ack_waits_for_sync");
}

#[test]
fn a_header_that_misses_a_line_is_refused() {
    for key in ["what", "test", "expect"] {
        let broken = GOOD.replacen(&format!("# {key}:"), "# other:", 1);
        let why = parse("x", &broken).expect_err("a line is missing");
        assert!(why.contains(&format!("# {key}:")), "{why}");
        let empty: String = GOOD
            .lines()
            .map(|line| {
                if line.starts_with(&format!("# {key}:")) {
                    format!("# {key}:\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        assert!(parse("x", &empty).is_err(), "an empty {key} passed");
    }
    assert!(parse("x", &GOOD.replacen("# what", "# test: test\n# what", 1)).is_err(), "two tests passed");
    assert!(parse("x", "# what: a\n# test: test\n# expect: b\n").is_err(), "a header without a diff passed");
    assert!(parse("x", &GOOD.replace("test -p journal", "rm -p journal")).is_err(), "rm is no test");
}

#[test]
fn only_the_named_test_failing_counts() {
    let expect = "ack_waits_for_sync";
    assert!(judge(&outcome(false, "test ack_waits_for_sync ... FAILED\n"), expect).is_ok());
    assert_eq!(
        judge(&outcome(true, "test ack_waits_for_sync ... ok\n"), expect),
        Err("UNNOTICED".to_owned())
    );
    let other = "test ack_waits_for_sync ... ok\ntest other ... FAILED\n";
    assert_eq!(judge(&outcome(false, other), expect), Err("something else failed".to_owned()));
    let compile = "error: could not compile `journal`\n ack_waits_for_sync\n";
    assert_eq!(judge(&outcome(false, compile), expect), Err("does not build".to_owned()));
}
