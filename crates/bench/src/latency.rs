//! Latencies of one case: a histogram of nanoseconds, and what is said of it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Below this all are one.
const LATENCY_MIN_NS: u64 = 100;
/// Figures that are right in what is said.
const FIGURES: u8 = 3;

/// A histogram being filled.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u32>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let longest = LATENCY_MAX.as_nanos() as u64;
        Self(Histogram::new_with_bounds(LATENCY_MIN_NS, longest, FIGURES).expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes in what another connection saw.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub(crate) fn summary(&self) -> Summary {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        Summary {
            mean_us: self.0.mean() / 1000.0,
            p50_us: us(self.0.value_at_quantile(0.5)),
            p99_us: us(self.0.value_at_quantile(0.99)),
            p999_us: us(self.0.value_at_quantile(0.999)),
            max_us: us(self.0.max()),
        }
    }
}

/// What is said of a case's latencies; microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}
