mod fuzz;
mod keep;
mod members;
mod protection;
mod said;
mod simulate;
mod stored;
mod timer;

use proptest::prelude::*;

/// Zones whose clocks change by an hour, by half an hour, not at all, by a quarter and a day, and over
/// midnight.
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/St_Johns",
];

/// An instant of RFC 3339, ms.
fn ms(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().unwrap();
    at.as_millisecond().try_into().unwrap()
}

/// An instant as RFC 3339 has it.
fn text(ms: u64) -> String {
    api::format_time(ms)
}

fn zone(name: &str) -> crate::Zone {
    crate::Zone::parse(name).unwrap()
}

/// A zone to try.
fn a_zone() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(ZONES.to_vec())
}
