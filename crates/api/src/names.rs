//! Names of VMs and sizes of disks: what is allowed.

use std::fmt;

use crate::codes::code;
use crate::error::{Error, Result};
use crate::limits::{DISK_BYTES_MAX, DISK_BYTES_MIN, FOLDER_BYTES_MAX, LABEL_CHARS_MAX};

/// Longest name of a VM, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest name of a file, in bytes: names of exports stay far below what NBD allows.
const FILE_NAME_BYTES_MAX: usize = 127;
/// A disk's size is a multiple of this: guests see sectors.
const SECTOR: u64 = 512;

/// The name of a VM, or of a snapshot: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`. Names that differ in case alone are one name,
/// which is shown as it was given first.
#[derive(Debug, Clone)]
pub struct VmName(String);

impl PartialEq for VmName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for VmName {}

impl VmName {
    /// Checks a name.
    ///
    /// # Errors
    /// `invalid_name` when it has other characters, none, or too many.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_for("a VM", text)
    }

    /// The same for what else follows these rules; `what` is what the name is for, in words: "a snapshot".
    ///
    /// # Errors
    /// `invalid_name`.
    pub fn parse_for(what: &str, text: &str) -> Result<Self> {
        let bytes = text.as_bytes();
        let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= NAME_BYTES_MAX
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        if good {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(NAME_BYTES_MAX).collect();
        Err(Error::new(code::INVALID_NAME, format!("{shown:?} is no name for {what}"))
            .hint("1 to 63 of letters, digits, '.', '_' and '-', the first a letter or digit"))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is found by: the same for all names that differ in case alone.
    pub fn folded(&self) -> String {
        fold(&self.0)
    }

    /// How it is written, where that is not how it is found.
    pub fn spelled(&self) -> Option<String> {
        (self.folded() != self.0).then(|| self.0.clone())
    }
}

/// What a name is found by.
pub fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A folder: `/`, or names of VMs' kind with a `/` before each; the same however its case.
///
/// # Errors
/// `invalid_name`.
pub fn parse_folder(text: &str) -> Result<String> {
    let wrong = || {
        let shown: String = text.chars().take(FOLDER_BYTES_MAX).collect();
        Error::new(code::INVALID_NAME, format!("{shown:?} is no folder"))
            .hint("give it as /prod/web: each part as a VM's name, 255 characters in all; / for none")
    };
    let rest = text.strip_prefix('/').filter(|_| text.len() <= FOLDER_BYTES_MAX).ok_or_else(wrong)?;
    if !rest.is_empty() && rest.split('/').any(|part| VmName::parse(part).is_err()) {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// A label's value: any text of one line, not too long.
///
/// # Errors
/// `invalid_name`.
pub fn parse_label_value(text: &str) -> Result<String> {
    if text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Error::new(code::INVALID_NAME, format!("{shown:?} is no value for a label"))
        .hint("a label's value is one line of at most 255 characters"))
}

/// The name of a file of a VM: `[A-Za-z0-9][A-Za-z0-9._+-]{0,126}`, and no name that a disk could have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// Checks a name.
    ///
    /// # Errors
    /// `invalid_name` when it has other characters, none, or too many, or is the name of a disk.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = text.as_bytes();
        let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= FILE_NAME_BYTES_MAX
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(byte));
        let of_disk = text
            .strip_prefix("disk")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        if good && !of_disk {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(FILE_NAME_BYTES_MAX).collect();
        let hint = match of_disk {
            true => "names such as disk0 are for disks: give another with --as",
            false => {
                "1 to 127 of letters, digits, '.', '_', '+' and '-', the first a letter or digit: give one with --as"
            }
        };
        Err(Error::new(code::INVALID_NAME, format!("{shown:?} is no name for a file")).hint(hint))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Size of the disk that holds a file of this length, bytes.
pub fn disk_bytes_for(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(SECTOR).saturating_mul(SECTOR).max(DISK_BYTES_MIN)
}

/// Checks the size of a disk.
pub fn check_disk_bytes(bytes: u64) -> Result<u64> {
    if (DISK_BYTES_MIN..=DISK_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(SECTOR) {
        return Ok(bytes);
    }
    Err(Error::new(code::INVALID_SIZE, format!("a disk cannot have {bytes} bytes"))
        .hint(format!("at least {DISK_BYTES_MIN} bytes, at most 64 TiB, a multiple of {SECTOR}")))
}
