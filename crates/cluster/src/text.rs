//! Bytes as hex, and names of nodes.

use std::fmt::Write as _;

use api::{Error, Result, code};
use units::NodeId;

/// Longest name of a node.
const NAME_MAX: usize = 63;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes of lower-case hex digits, `most` bytes at most.
pub(crate) fn of_hex(text: &str, most: usize) -> Option<Vec<u8>> {
    if text.len() > 2 * most || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Exactly so many bytes.
pub(crate) fn of_hex_exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    of_hex(text, N)?.try_into().ok()
}

/// A node's id.
pub(crate) fn node_id(text: &str) -> Option<NodeId> {
    of_hex_exact(text).map(NodeId)
}

/// Checks a node's name: of the same characters as a VM's, and no id.
///
/// # Errors
/// `invalid_name`.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= NAME_MAX && name.bytes().all(plain) && node_id(name).is_none() {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    Err(Error::new(code::INVALID_NAME, format!("{shown:?} is no name of a node")))
}
