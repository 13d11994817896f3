use super::*;

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected * 0.002
}

#[test]
fn quantiles_are_those_of_what_was_recorded() {
    let (mut one, mut other) = (Latencies::new(), Latencies::new());
    for microseconds in 1..=10_000 {
        let part = if microseconds % 2 == 0 { &mut one } else { &mut other };
        part.record(Duration::from_micros(microseconds));
    }
    one.add(&other);
    assert_eq!(one.0.len(), 10_000);
    let summary = one.summary();
    assert!(near(summary.mean_us, 5000.5), "{summary:?}");
    assert!(near(summary.p50_us, 5000.0), "{summary:?}");
    assert!(near(summary.p99_us, 9900.0), "{summary:?}");
    assert!(near(summary.p999_us, 9990.0), "{summary:?}");
    assert!(near(summary.max_us, 10_000.0), "{summary:?}");
}

#[test]
fn what_is_out_of_bounds_is_counted_at_the_bound() {
    let mut latencies = Latencies::new();
    latencies.record(Duration::ZERO);
    latencies.record(Duration::from_secs(86_400));
    assert_eq!(latencies.0.len(), 2);
    assert!(near(latencies.summary().max_us, 600e6), "{:?}", latencies.summary());
    assert_eq!(Latencies::new().summary(), Summary::default());
}
