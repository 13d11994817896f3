//! What a node joins with: where its manager is, which authority to believe, and a secret.
//!
//! ```text
//!  hfjoin- and lower-case hex digits of
//!  0           1                33          49              end - 4
//!  | version 1 | fingerprint 32 | secret 16 | address ...   | CRC-32C 4 |
//! ```
//! The fingerprint is SHA-256 of the authority's certificate, the address text as `10.0.0.7:7400`. The CRC is over all
//! before it, little-endian; it is there for typing errors.

use std::net::SocketAddr;

use api::{Error, Result, code};
use seam::Runtime;
use trust::Fingerprint;

use crate::text::{hex, of_hex};

const LEAD: &str = "hfjoin-";
const VERSION: u8 = 1;
/// Version, fingerprint and secret.
const FIXED: usize = 49;
/// The longest address, with its scope.
const ADDRESS_MAX: usize = 80;
const CRC: usize = 4;

/// A token. Its secret is shown only by [`JoinToken::to_text`].
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the manager's port is.
    pub manager: SocketAddr,
    /// The authority that the manager's certificate must lead to.
    pub authority: Fingerprint,
    secret: [u8; 16],
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken(for {})", self.manager)
    }
}

fn invalid(reason: &str) -> Error {
    Error::new(code::TOKEN_INVALID, format!("the token cannot be read: {reason}"))
}

impl JoinToken {
    /// A token with a new secret.
    pub fn new(rt: &dyn Runtime, manager: SocketAddr, authority: Fingerprint) -> Self {
        let mut secret = [0; 16];
        rt.fill_random(&mut secret);
        Self { manager, authority, secret }
    }

    /// The secret.
    pub(crate) fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// The token as it is typed. Whoever has it can join.
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(self.manager.to_string().as_bytes());
        bytes.extend_from_slice(&units::crc32c(&bytes).to_le_bytes());
        format!("{LEAD}{}", hex(&bytes))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// `token_invalid`, and what is wrong with it; never with what it says.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix(LEAD).ok_or_else(|| invalid("it begins with hfjoin-"))?;
        let bytes = of_hex(digits, FIXED + ADDRESS_MAX + CRC)
            .ok_or_else(|| invalid("behind hfjoin- there are hex digits, not this many or not only they"))?;
        if bytes.len() <= FIXED + CRC {
            return Err(invalid("its end is missing"));
        }
        let (said, crc) = bytes.split_at(bytes.len() - CRC);
        if units::crc32c(said).to_le_bytes() != crc {
            return Err(invalid("a character was mistyped"));
        }
        if said[0] != VERSION {
            return Err(invalid("it is of a newer version than this program"));
        }
        let (mut authority, mut secret) = ([0; 32], [0; 16]);
        authority.copy_from_slice(&said[1..33]);
        secret.copy_from_slice(&said[33..FIXED]);
        let manager = std::str::from_utf8(&said[FIXED..]).ok().and_then(|text| text.parse().ok());
        let manager = manager.ok_or_else(|| invalid("the manager's address is none"))?;
        Ok(Self { manager, authority: Fingerprint(authority), secret })
    }
}
