//! What opens the site's keys: a key file in the directory or a passphrase; and the recovery key.
//!
//! Secrets go from here to `seal` and nowhere else: not into messages, not into logs.

use std::path::Path;

use api::{Error, Result, code};
use seal::{EpochKeys, KEY_BYTES, Kek, KeyError, KeyRing, RecoveryKey, WrappedKeys};
use seam::Runtime;

use crate::directory::{Directory, read_from};
use crate::files::{Files, named};

/// What the administrator gave to open the keys.
pub(crate) enum Unlock {
    KeyFile(Kek),
    Passphrase(Vec<u8>),
}

impl Unlock {
    /// What opens a site that `wants_passphrase` or else a key: the passphrase of `passphrase_file` where one is given,
    /// else the directory's key file.
    pub(crate) fn of_site(
        directory: &Directory,
        passphrase_file: Option<&Path>,
        wants_passphrase: bool,
    ) -> Result<Self> {
        if let Some(path) = passphrase_file {
            return Self::passphrase(directory, path);
        }
        if wants_passphrase {
            let reason = "this site is opened by a passphrase";
            return Err(Error::new(code::PASSPHRASE_WANTED, reason).hint("give --passphrase-file FILE"));
        }
        let missing = || {
            let reason = format!("{}: the site's key is not there", directory.key().display());
            Error::new(code::KEY_MISSING, reason).hint("put the key file back")
        };
        key_file(directory)?.map(Self::KeyFile).ok_or_else(missing)
    }

    fn passphrase(directory: &Directory, path: &Path) -> Result<Self> {
        let missing = || {
            Error::new(code::PASSPHRASE_MISSING, format!("{}: no such file", path.display()))
                .hint("name a file that holds the passphrase on one line")
        };
        let phrase = phrase_of(directory.read(path)?.ok_or_else(missing)?);
        if phrase.is_empty() {
            let reason = format!("{}: holds no passphrase", path.display());
            return Err(Error::new(code::PASSPHRASE_MISSING, reason)
                .hint("write the passphrase into it, on one line"));
        }
        Ok(Self::Passphrase(phrase))
    }

    /// Opens the ring of an existing site.
    pub(crate) fn open(&self, wrapped: &WrappedKeys) -> Result<KeyRing> {
        match self {
            Self::KeyFile(kek) => wrapped.unwrap_with(kek).map_err(|error| denied(&error)),
            Self::Passphrase(phrase) if wrapped.wants_passphrase() => {
                wrapped.unwrap_with_passphrase(phrase).map_err(|error| denied(&error))
            }
            Self::Passphrase(_) => {
                let reason = "this site is opened by its key file, not by a passphrase";
                Err(Error::new(code::KEY_WRONG, reason).hint("leave --passphrase-file out"))
            }
        }
    }

    /// Wraps the ring of a new site.
    pub(crate) fn wrap(
        &self,
        rt: &dyn Runtime,
        ring: &KeyRing,
        recovery: &RecoveryKey,
    ) -> Result<WrappedKeys> {
        let mut random = [0; 40];
        rt.fill_random(&mut random);
        match self {
            Self::KeyFile(kek) => Ok(WrappedKeys::by_key_file(ring, kek, recovery, &random)),
            Self::Passphrase(phrase) => {
                WrappedKeys::by_passphrase(ring, phrase, recovery, &random).map_err(|error| denied(&error))
            }
        }
    }
}

/// The ring with its later key epochs.
pub(crate) fn open_epochs(epochs: &EpochKeys, ring: &KeyRing) -> Result<KeyRing> {
    epochs.open(ring).map_err(|error| denied(&error))
}

/// The passphrase in a file's bytes: all but the ends of lines behind it.
pub fn phrase_of(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    bytes
}

/// The key in a key file's bytes; `None` when they are more or fewer than a key.
pub(crate) fn key_of(bytes: &[u8]) -> Option<Kek> {
    Some(Kek::from_bytes(<[u8; KEY_BYTES]>::try_from(bytes).ok()?))
}

/// The recovery key in a file's bytes; `None` when they are none.
pub(crate) fn recovery_of(bytes: &[u8]) -> Option<RecoveryKey> {
    RecoveryKey::parse(std::str::from_utf8(bytes).ok()?).ok()
}

fn denied(error: &KeyError) -> Error {
    Error::new(code::KEY_WRONG, error.to_string())
        .hint("check the key file or --passphrase-file; a different site's does not open this one, nor that of a directory from before `site recover` or a change of the passphrase")
}

/// The directory's key file; `None` when it is not there.
fn key_file(directory: &Directory) -> Result<Option<Kek>> {
    let path = directory.key();
    let Some(bytes) = directory.read(&path)? else { return Ok(None) };
    if directory.files().is_open_to_others(&path) {
        tracing::warn!(path = %path.display(), "others than its owner may read the key file: chmod 600 it");
    }
    let wrong = || {
        let reason = format!("{}: a key has {KEY_BYTES} bytes, not {}", path.display(), bytes.len());
        Error::new(code::KEY_WRONG, reason).hint("put the right key file back")
    };
    key_of(&bytes).map(Some).ok_or_else(wrong)
}

/// What opens a new site; makes its key file when there is no passphrase and none yet.
pub(crate) fn of_new_site(
    rt: &dyn Runtime,
    directory: &Directory,
    passphrase_file: Option<&Path>,
) -> Result<Unlock> {
    if passphrase_file.is_none() && key_file(directory)?.is_none() {
        directory.replace(&directory.key(), &random_key(rt))?;
    }
    Unlock::of_site(directory, passphrase_file, false)
}

/// Refuses early what [`of_new_site`] would refuse.
pub(crate) fn check_new_site(directory: &Directory, passphrase_file: Option<&Path>) -> Result<()> {
    match passphrase_file {
        Some(path) => Unlock::passphrase(directory, path).map(drop),
        None => key_file(directory).map(drop),
    }
}

/// A key of random bytes.
pub fn random_key(rt: &dyn Runtime) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    rt.fill_random(&mut key);
    key
}

/// Refuses a path where something is already: a recovery key never replaces a file.
///
/// # Errors
/// `recovery_key_file_exists`.
pub fn check_no_recovery_file(files: &dyn Files, path: &Path) -> Result<()> {
    if !files.is_there(path) {
        return Ok(());
    }
    Err(recovery_file_exists(path))
}

fn recovery_file_exists(path: &Path) -> Error {
    let reason = format!("{}: it exists already, and a recovery key never replaces a file", path.display());
    Error::new(code::RECOVERY_KEY_FILE_EXISTS, reason).hint("give a path where nothing is yet")
}

/// Writes the recovery key into a new file, readable by its owner only.
///
/// # Errors
/// `recovery_key_file_exists`, and when the system refuses.
pub fn write_recovery_file(files: &dyn Files, path: &Path, recovery: &RecoveryKey) -> Result<()> {
    let text = format!("{}\n", recovery.to_text());
    if files.make_new(path, text.as_bytes()).map_err(named(path))? {
        Ok(())
    } else {
        Err(recovery_file_exists(path))
    }
}

/// The recovery key an interrupted first start left in its file; a torn file is removed.
pub(crate) fn read_recovery_file(files: &dyn Files, path: &Path) -> Result<Option<RecoveryKey>> {
    let Some(bytes) = read_from(files, path)? else { return Ok(None) };
    let parsed = recovery_of(&bytes);
    if parsed.is_none() {
        files.remove(path).map_err(named(path))?;
    }
    Ok(parsed)
}
