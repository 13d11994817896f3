//! Sizes as people write them.

use crate::codes::code;
use crate::error::{Error, Result};

/// Units, smallest first, each 1024 times the one before.
const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];

/// Reads a size in bytes: a whole number, then nothing, `B`, or one of `K`, `M`, `G`, `T`, `P` with or without `iB`.
/// All units are powers of 1024; case does not matter.
///
/// # Errors
/// `invalid_size` for anything else, `KB` and its like included: it means different things to different people.
pub fn parse_size(text: &str) -> Result<u64> {
    let refuse = |reason: String| {
        Err(Error::new(code::INVALID_SIZE, reason)
            .hint("write 512, 64K, 20G, 20GiB or 1T; units are powers of 1024"))
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_uppercase();
    let prefix = match unit.strip_suffix("IB") {
        Some(prefix) if !prefix.is_empty() => prefix,
        Some(_) => return refuse(format!("{text:?} is no size")),
        None if unit == "B" => "",
        None => &unit,
    };
    let power = UNITS.iter().position(|unit| *unit == prefix);
    let (Some(power), Ok(number)) = (power, number.parse::<u64>()) else {
        return refuse(format!("{text:?} is no size"));
    };
    match number.checked_mul(1 << (10 * power)) {
        Some(bytes) => Ok(bytes),
        None => refuse(format!("{text:?} is too large")),
    }
}

/// A size for people: `20.0 GiB`, or bytes below 1 KiB.
pub fn format_size(bytes: u64) -> String {
    let power = (1..UNITS.len()).rev().find(|power| bytes >> (10 * power) > 0);
    match power {
        // Ten digits of precision are plenty for one decimal.
        Some(power) => format!("{:.1} {}iB", bytes as f64 / (1_u64 << (10 * power)) as f64, UNITS[power]),
        None => format!("{bytes} B"),
    }
}
