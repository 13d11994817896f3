use super::{duration, saved, time};

#[test]
fn times_and_durations() {
    assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00 UTC");
    assert_eq!(time(1_767_225_599_999), "2025-12-31 23:59:59 UTC");
    assert_eq!([duration(59), duration(61), duration(7260)], ["59 s", "1 min 1 s", "2 h 1 min"]);
}

#[test]
fn garbage_makes_no_ratio_below_one() {
    // Overwritten twice and not cleaned yet.
    assert_eq!(saved(1 << 20, 3 << 20), "none to be seen");
    assert_eq!(saved(3 << 20, 2 << 20), "1.50 to 1");
    assert_eq!([saved(0, 0), saved(5, 0), saved(0, 5)], ["nothing yet", "nothing yet", "none to be seen"]);
}
