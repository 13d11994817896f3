//! Keys, ranges of keys, and how keys are put together from segments.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::KEY_BYTES_MAX;

/// A key: 1 to [`KEY_BYTES_MAX`] bytes, ordered bytewise. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// `Invalid` when there are none or too many.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", bytes.len())));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A stretch of keys: from `start`, included, to `end`, excluded; without `end`, to the last key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// From `start`, included, to `end`, excluded. Empty when `end` does not come after `start`.
    pub fn new(start: impl Into<Vec<u8>>, end: Option<Vec<u8>>) -> Self {
        Self { start: start.into(), end }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// Exactly one key.
    pub fn one(key: &Key) -> Self {
        Self { start: key.0.to_vec(), end: Some(after(key)) }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        // The least byte string above all with this prefix: drop trailing 0xff, count the last byte up.
        let mut end = start.clone();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Some(end)
            }
            None => None,
        };
        Self { start, end }
    }

    /// The rest of this range behind `key`: where the next page begins.
    #[must_use]
    pub fn behind(&self, key: &Key) -> Self {
        let start = after(key).max(self.start.clone());
        Self { start, end: self.end.clone() }
    }

    /// First bytes that can be in the range.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// First bytes behind the range; none when it goes to the last key.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &Key) -> bool {
        *key.0 >= *self.start && self.end.as_ref().is_none_or(|end| *key.0 < **end)
    }

    /// Bytes of both ends, as they count against the limit of a transaction.
    pub(crate) fn bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Vec::len)
    }

    /// Bounds for an ordered map. Only for a range that is not empty: the map panics on others.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.start), self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Refuses ends longer than any key and its successor.
    ///
    /// # Errors
    /// `Invalid`, and how long.
    pub fn check(&self) -> Result<()> {
        let longest = self.start.len().max(self.end.as_ref().map_or(0, Vec::len));
        if longest > KEY_BYTES_MAX + 1 {
            return Err(Error::invalid(format!("an end of a range has {longest} bytes, more than any key")));
        }
        Ok(())
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRange({}..", self.start.escape_ascii())?;
        self.end.as_ref().map_or(Ok(()), |end| write!(f, "{}", end.escape_ascii()))?;
        f.write_str(")")
    }
}

/// The least byte string above `key`.
fn after(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.0.len() + 1);
    bytes.extend_from_slice(&key.0);
    bytes.push(0);
    bytes
}

/// Ends a segment when another follows. It sorts below every byte a segment can hold, so keys sort as tuples do.
const SEPARATOR: u8 = 0;
/// Digits of a number segment: fixed width makes the order of bytes the order of numbers.
const NUMBER_DIGITS: usize = 16;

/// A family of keys: a short name and `/`, then segments. `vm/web-1` is text segment `web-1` in table `vm`.
///
/// Segments need no escaping: text may hold anything but a zero byte, a number is 16 hexadecimal digits, and a zero
/// byte stands between two segments. Keys sort by first segment, then second, and so on.
///
/// A table is of one scope, which its type says: what is of a shard moves with its disks, what is of the site does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<S>(&'static str, PhantomData<S>);

/// Scope of what belongs to the disks of a shard: disks, snapshots, stubs, holds, the trash, definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shard {}

/// Scope of what belongs to the site: nodes, media, ownership, names, tasks, settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {}

impl<S: Copy> Table<S> {
    /// A table of this name: 1 to 32 of `a-z`, `0-9` and `-`.
    ///
    /// # Panics
    /// When the name has other characters; at compile time, when used in a constant.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 32, "a table's name has 1 to 32 bytes");
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            assert!(
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
                "a-z, 0-9 and - only"
            );
            at += 1;
        }
        Self(name, PhantomData)
    }

    /// Every key of the table.
    pub fn all(self) -> KeyRange {
        KeyRange::prefix(self.lead())
    }

    /// Starts a key of the table.
    pub fn key(self) -> KeyBuilder {
        KeyBuilder { bytes: self.lead(), segments: 0, fault: None }
    }

    /// Reads the segments of a key; `None` when it belongs to another table.
    pub fn segments(self, key: &Key) -> Option<Segments<'_>> {
        let rest = key.as_bytes().strip_prefix(self.0.as_bytes())?.strip_prefix(b"/")?;
        Some(Segments { rest: Some(rest) })
    }

    fn lead(self) -> Vec<u8> {
        let mut bytes = self.0.as_bytes().to_vec();
        bytes.push(b'/');
        bytes
    }
}

/// A key being put together, segment by segment. Faults are told at the end.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
    segments: usize,
    fault: Option<&'static str>,
}

impl KeyBuilder {
    /// Adds a text segment: not empty, no zero byte.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        if text.is_empty() {
            self.fault = Some("a segment is empty");
        }
        if text.as_bytes().contains(&SEPARATOR) {
            self.fault = Some("a segment holds a zero byte");
        }
        self.push(text.as_bytes());
        self
    }

    /// Adds a number segment.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.push(format!("{number:016x}").as_bytes());
        self
    }

    /// The key.
    ///
    /// # Errors
    /// `Invalid` when it has no segment, a segment is malformed, or it is too long.
    pub fn end(self) -> Result<Key> {
        if self.segments == 0 {
            return Err(Error::invalid("a key has no segment"));
        }
        self.checked().and_then(Key::new)
    }

    /// All keys with these segments and at least one more.
    ///
    /// # Errors
    /// `Invalid` when a segment is malformed.
    pub fn beneath(self) -> Result<KeyRange> {
        let separate = self.segments > 0;
        let mut bytes = self.checked()?;
        if separate {
            bytes.push(SEPARATOR);
        }
        Ok(KeyRange::prefix(bytes))
    }

    fn push(&mut self, segment: &[u8]) {
        if self.segments > 0 {
            self.bytes.push(SEPARATOR);
        }
        self.bytes.extend_from_slice(segment);
        self.segments += 1;
    }

    fn checked(self) -> Result<Vec<u8>> {
        match self.fault {
            Some(fault) => Err(Error::invalid(format!("{fault}: {}", self.bytes.escape_ascii()))),
            None => Ok(self.bytes),
        }
    }
}

/// The segments of a key, read from the left.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Segments<'a> {
    /// The next segment as text; `None` when there is none or it is not UTF-8.
    pub fn text(&mut self) -> Option<&'a str> {
        self.next().and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// The next segment as a number; `None` when there is none or it is not one in its only spelling.
    pub fn number(&mut self) -> Option<u64> {
        let bytes = self.next()?;
        let plain =
            bytes.len() == NUMBER_DIGITS && bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| str::from_utf8(bytes).ok().and_then(|text| u64::from_str_radix(text, 16).ok()))?
    }

    /// Whether all segments were read.
    pub fn is_done(&self) -> bool {
        self.rest.is_none()
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match rest.iter().position(|byte| *byte == SEPARATOR) {
            Some(at) => {
                self.rest = Some(&rest[at + 1..]);
                Some(&rest[..at])
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

#[cfg(test)]
mod tests;
