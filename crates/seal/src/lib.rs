//! The sealed unit: a block, page or record fingerprinted, compressed and encrypted once, at birth (section 3 of docs/design.md).
//!
//! Vocabulary: a **fingerprint** names a plaintext under a key of its kind, so a guest block can never pass for a
//! map page. A **sealed unit** is a 16-byte header and the AES-256-GCM-SIV ciphertext of the (LZ4-compressed)
//! plaintext with its tag. A **key ring** holds the fingerprint root and the data keys by key epoch; a **KEK**
//! or the recovery key wraps it.
//!
//! ```text
//!  0        1       2      3       4            6         8             12            16
//!  | format | codec | kind | level | key epoch  | domain  | plain bytes | body bytes  | body: ciphertext, 16-byte tag
//! ```
//! The header comes first because a reader must know codec, key epoch and lengths before it can open the body.
//! The header and the fingerprint are the associated data; the nonce is the first 12 bytes of the fingerprint.
//!
//! Invariants: [`Sealer::open`] gives a plaintext only when the tag is right *and* the plaintext has the fingerprint
//! asked for: the right block, not merely a valid one (R114). Equality is by fingerprint, never by sealed bytes.
//!
//! What it does not do: it stores nothing, draws no randomness, knows no addresses.

mod epochs;
mod keys;
mod unit;

pub use epochs::{EPOCHS_BYTES, EPOCHS_MAX, EpochKeys};
pub use keys::{KEY_BYTES, Kek, KeyError, KeyRing, RecoveryKey, WRAPPED_BYTES, WrappedKeys};
pub use unit::{
    HEADER_BYTES, Header, Kind, OVERHEAD_BYTES, PLAIN_BYTES_MAX, SealError, SealErrorKind, Sealer, is_zero,
};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a unit header, a sealed unit behind its name, wrapped keys, key epochs and a recovery key.
    pub fn fuzz_body(input: &[u8]) {
        let sealer = crate::Sealer::new(&crate::KeyRing::for_tests(1));
        let _ = crate::Header::decode(input);
        if let Some((name, unit)) = input.split_first_chunk() {
            let _ = crate::Header::decode(unit);
            let _ = sealer.open(crate::Kind::Data, units::Fingerprint(*name), unit, &mut Vec::new());
        }
        if let Some(wrapped) = crate::WrappedKeys::decode(input) {
            let _ = wrapped.unwrap_with(&crate::Kek::from_bytes([1; 32]));
        }
        if let Some(epochs) = crate::EpochKeys::decode(input) {
            let _ = epochs.open(&crate::KeyRing::for_tests(1));
        }
        let _ = std::str::from_utf8(input).map(crate::RecoveryKey::parse);
    }
}

#[cfg(test)]
mod tests;
