//! Counts in requests, as the description promises: what JSON Schema calls an integer, up to its format's largest.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Largest count: the format is `int64`.
const COUNT_MAX: u64 = i64::MAX as u64;
/// 2^63, the first float that is no count.
const FLOAT_END: f64 = 9_223_372_036_854_775_808.0;

/// Reads a count. `4096.0` is one: to JSON Schema, and to languages that know one kind of number.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Count)
}

/// Reads a count that may be absent or null.
pub(crate) fn whole_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let count: Option<Whole> = serde::Deserialize::deserialize(deserializer)?;
    Ok(count.map(|Whole(count)| count))
}

/// Reads a list of counts.
pub(crate) fn whole_each<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let counts: Vec<Whole> = serde::Deserialize::deserialize(deserializer)?;
    Ok(counts.into_iter().map(|Whole(count)| count).collect())
}

#[derive(serde::Deserialize)]
struct Whole(#[serde(deserialize_with = "whole")] u64);

struct Count;

impl Visitor<'_> for Count {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {COUNT_MAX}")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<u64, E> {
        let refused = || E::invalid_value(Unexpected::Unsigned(count), &self);
        if count <= COUNT_MAX { Ok(count) } else { Err(refused()) }
    }

    fn visit_f64<E: Error>(self, count: f64) -> Result<u64, E> {
        let is_count = count.fract() == 0.0 && (0.0..FLOAT_END).contains(&count);
        let refused = || E::invalid_value(Unexpected::Float(count), &self);
        if is_count { Ok(count as u64) } else { Err(refused()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn whole_numbers_are_counts() {
        for (text, count) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("4096.0", Some(4096)),
            ("4.096e3", Some(4096)),
            ("-0.0", Some(0)),
            ("9223372036854775807", Some(COUNT_MAX)),
            ("9223372036854775808", None),
            ("9223372036854775808.0", None),
            ("1e300", None),
            ("4096.5", None),
            ("-1", None),
            ("-1.0", None),
            ("true", None),
            ("null", None),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(whole(value).ok(), count, "{text}");
        }
        assert!(whole(json!("4096")).is_err());
    }
}
