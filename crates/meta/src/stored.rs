//! Records in the store, with their version: one codec for all that are JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A record that says its version, and is read by programs that know this version alone.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version that this program writes and reads.
    const VERSION: u32;

    /// The version that the record says.
    fn version(&self) -> u32;

    /// The record as it is stored.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be written down.
    fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|error| Error::corrupt(error.to_string()))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version() != Self::VERSION {
            return Err(format!("version {}, and this program knows {}", record.version(), Self::VERSION));
        }
        Ok(record)
    }
}
