//! For tests of the rooms above: a runtime driven by a seed, and hostile input for decoders. The program has none of it.

mod replay;
mod runtime;

pub use replay::replay;
pub use runtime::run;

/// A step of xorshift64 (Marsaglia 2003): numbers only have to be many and the same in every run. `state` is not 0.
fn roll(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A state for [`roll`] that differs much between seeds that differ little.
fn scatter(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

#[cfg(test)]
mod tests;
