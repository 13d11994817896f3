//! A running site: what looks after it, how it is, and what is asked of it.
//!
//! ```text
//!  machine ── an open engine, media, keys ──►┐
//!  catalog ── VMs and all that is theirs ────┼── Site ◄── rest, compute, holdfast
//!  task ───── work, long and watched ────────┘    │
//!                                   reconcilers: media, moves, tasks, scrubs, keys, the trash, holds, time, points
//! ```
//! Vocabulary: a **reconciler** brings about what the records say, round after round.
//!
//! Invariants: keys and passphrases are in no message. What status says of itself is what is so: each loop that fails again
//! and again is named.
//!
//! Crash rules: media that join or leave do so by `site.json`, which comes first or last as each step needs; keys are on every
//! medium before anything is sealed under them, and leave when nothing is.
//!
//! What it does not do: it knows VMs by their catalogue alone, and runs no guests.
#![forbid(unsafe_code)]

mod attach;
mod clients;
mod clock;
mod media;
mod probe;
mod protection;
mod reconcilers;
mod rekey;
mod running;
mod start;
mod status;
mod unreadable;
mod upkeep;

pub use attach::nbd_uri;
pub use running::Site;
pub use start::Started;

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    use meta::Stored;

    /// Decodes `input` as the record of scrubs, a task's, a name, a time, a span and a size.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::upkeep::ScrubState::decode(input).map(|state| state.next_ms());
        if let Ok(record) = task::Record::decode(input) {
            let _ = record.ended_task(1, "cut off");
        }
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = api::VmName::parse(text);
            let _ = (api::parse_until(text, 1 << 40), api::parse_span(text));
            if let Ok(bytes) = api::parse_size(text) {
                let _ = (api::check_disk_bytes(bytes), api::format_size(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests;
