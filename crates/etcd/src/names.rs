//! A site's keys as etcd has them: with the prefix on the way out, without it on the way in.

use std::sync::Arc;

use meta::{Error, ErrorKind, Key, KeyRange, KeyValue, LeaseId, Result, Revision};

use crate::PREFIX_BYTES_MAX;

/// The prefix of a site.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: Arc<[u8]>,
    /// First bytes behind all keys of the site.
    end: Arc<[u8]>,
}

/// A range of etcd: from the first bytes, included, to the second, excluded. Never empty: etcd has no word for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Names {
    /// # Errors
    /// `Invalid` when it does not end in a slash, or is too long.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        if !prefix.ends_with('/') || prefix.len() > PREFIX_BYTES_MAX {
            let rule = format!("the prefix of a site ends in / and has at most {PREFIX_BYTES_MAX} bytes");
            return Err(Error::invalid(format!("{rule}: {prefix:?}")));
        }
        // Nothing sorts between a slash and a zero.
        let end = [&prefix.as_bytes()[..prefix.len() - 1], b"0"].concat();
        Ok(Self { prefix: prefix.as_bytes().into(), end: end.into() })
    }

    /// The prefix.
    pub(crate) fn prefix(&self) -> String {
        String::from_utf8_lossy(&self.prefix).into_owned()
    }

    /// A key of the site in etcd.
    pub(crate) fn out(&self, key: &Key) -> Vec<u8> {
        self.join(key.as_bytes())
    }

    /// A range of the site in etcd; `None` when no key can be in it.
    pub(crate) fn span(&self, range: &KeyRange) -> Option<Span> {
        if range.is_empty() {
            return None;
        }
        // No key is empty, so the prefix itself is nobody's key.
        let start = if range.start().is_empty() { &[0][..] } else { range.start() };
        let end = range.end().map_or_else(|| self.end.to_vec(), |end| self.join(end));
        let span = Span { start: self.join(start), end };
        (span.start < span.end).then_some(span)
    }

    /// A place where no key of the site can be.
    pub(crate) fn nowhere(&self) -> Span {
        Span { start: self.prefix.to_vec(), end: self.join(&[0]) }
    }

    /// A key of etcd in the site.
    ///
    /// # Errors
    /// `Corrupt` when it is none of the site's.
    pub(crate) fn back(&self, key: &[u8]) -> Result<Key> {
        let ours = key.strip_prefix(&*self.prefix).and_then(|rest| Key::new(rest).ok());
        ours.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("etcd has a key {}", key.escape_ascii())))
    }

    /// A key of etcd with its value and history.
    ///
    /// # Errors
    /// `Corrupt` when the key is none of the site's, or a number is none.
    pub(crate) fn entry(&self, kv: etcd_client::KeyValue) -> Result<KeyValue> {
        let (create_revision, mod_revision) = (revision(kv.create_revision())?, revision(kv.mod_revision())?);
        let (version, lease) = (number(kv.version())?, number(kv.lease())?);
        let (key, value) = kv.into_key_value();
        Ok(KeyValue {
            key: self.back(&key)?,
            value: value.into(),
            create_revision,
            mod_revision,
            version,
            lease: (lease != 0).then_some(LeaseId(lease)),
        })
    }

    fn join(&self, rest: &[u8]) -> Vec<u8> {
        [&*self.prefix, rest].concat()
    }
}

fn number(number: i64) -> Result<u64> {
    let bad = |_| Error::new(ErrorKind::Corrupt, format!("etcd says {number} where it counts"));
    u64::try_from(number).map_err(bad)
}

/// A revision that etcd named.
///
/// # Errors
/// `Corrupt` when it is negative.
pub(crate) fn revision(revision: i64) -> Result<Revision> {
    number(revision).map(Revision)
}

/// A number as etcd takes it. There are no keys with numbers beyond.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
