use super::*;

#[test]
fn cargo_test_closing_lines_add_up() {
    let output = "\
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s
";
    assert_eq!(count(output), Tally { passed: 8, failed: 2 });
}

#[test]
fn nextest_closing_lines_are_read() {
    let sound = "     Summary [   1.204s] 31 tests run: 31 passed (2 slow), 7 skipped\n";
    assert_eq!(count(sound), Tally { passed: 31, failed: 0 });
    let bad =
        "     Summary [   1.2s] 9/31 tests run: 5 passed, 2 failed, 1 timed out, 1 exec failed, 7 skipped\n";
    assert_eq!(count(bad), Tally { passed: 5, failed: 4 });
}

#[test]
fn the_plain_closing_line_is_read_only_when_alone() {
    assert_eq!(count("2000 passed, 1 failed\n"), Tally { passed: 2000, failed: 1 });
    assert_eq!(count("so far 12 passed, 1 failed of many\n"), Tally::default());
    assert_eq!(count(""), Tally::default());
}

#[test]
fn what_a_failing_test_printed_is_not_counted() {
    let output = "\
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 36 filtered out; finished in 0.12s
7 passed, 7 failed
     Summary [   0.498s] 37 tests run: 36 passed, 1 failed, 0 skipped
";
    assert_eq!(count(output), Tally { passed: 36, failed: 1 });
}
