//! What a VM was at a snapshot, or is now: names for both.

use std::fmt;

use crate::error::Result;
use crate::names::VmName;

/// A VM, or one of its snapshots: `web01`, `web01@s1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The VM.
    pub vm: VmName,
    /// The snapshot; `None` for the VM as it is now.
    pub snapshot: Option<VmName>,
}

impl Version {
    /// Reads `VM` or `VM@SNAPSHOT`.
    ///
    /// # Errors
    /// `invalid_name`.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('@') {
            None => Ok(Self { vm: VmName::parse(text)?, snapshot: None }),
            Some((vm, snapshot)) => {
                let vm = VmName::parse(vm)?;
                Ok(Self { vm, snapshot: Some(VmName::parse_for("a snapshot", snapshot)?) })
            }
        }
    }

    /// Reads the same with a disk, `VM/DISK` or `VM@SNAPSHOT/DISK`; the disk is `None` when no `/` is there.
    ///
    /// # Errors
    /// `invalid_name`.
    pub fn parse_with_disk(text: &str) -> Result<(Self, Option<&str>)> {
        match text.split_once('/') {
            None => Ok((Self::parse(text)?, None)),
            Some((version, disk)) => Ok((Self::parse(version)?, Some(disk))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.vm),
            None => write!(f, "{}", self.vm),
        }
    }
}
