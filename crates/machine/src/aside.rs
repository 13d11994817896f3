//! Files that are whole or not there: written beside their place, under a name that nobody has, and put in place once they
//! are durable. A crash leaves the place as it was; what was begun may be left beside it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// Names that are tried: crashes leave few behind.
pub(crate) const NAMES_MAX: usize = 1000;
/// What such names end with.
const ENDING: &str = ".part";
/// Characters of a file's name that the name beside it shows: names may be as long as they can be.
const SHOWN_CHARS: usize = 40;

/// A file on its way to its place. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Aside {
    place: PathBuf,
    aside: PathBuf,
    file: File,
    /// From then on the name beside the place may be another's.
    in_place: Cell<bool>,
}

impl Aside {
    /// Begins a file that is to stand at `place`, with the permissions of `mode` that the process's mask leaves.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(place: &Path, mode: u32) -> Result<Self> {
        let name = place.file_name().ok_or(ErrorKind::InvalidFilename)?;
        let mut options = OpenOptions::new();
        // Ours alone: it follows no link and takes no file of another's.
        options.write(true).create_new(true).mode(mode);
        for number in 0..NAMES_MAX {
            let aside = place.with_file_name(format!("{}{number}{ENDING}", beginning(name)));
            match options.open(&aside) {
                Ok(file) => {
                    let in_place = Cell::new(false);
                    return Ok(Self { place: place.to_owned(), aside, file, in_place });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::other("too much is left beside it by programs that were killed"))
    }

    /// The file that is written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.aside
    }

    /// Where it is to stand.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Puts it in place, durably, unless something is there.
    ///
    /// # Errors
    /// `AlreadyExists`, and when the system refuses.
    pub fn keep(&self) -> Result<()> {
        self.file.sync_all()?;
        put_in_place(&self.aside, &self.place)?;
        self.in_place.set(true);
        sync_parent(&self.place)
    }

    /// Puts it in place, durably; what was there goes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn replace(&self) -> Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.aside, &self.place)?;
        self.in_place.set(true);
        sync_parent(&self.place)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.in_place.get() {
            // Whoever began it hears of its own error.
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

/// What names beside a file of this name begin with, before a number.
fn beginning(name: &OsStr) -> String {
    let shown: String = name.to_string_lossy().chars().take(SHOWN_CHARS).collect();
    format!(".{shown}.")
}

/// Removes what was begun for a place by those who are no more. *Requires* that nobody writes it now.
pub(crate) fn remove_leftovers(place: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return Ok(()) };
    let beginning = beginning(name);
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&beginning)?.strip_suffix(ENDING));
        if number.is_some_and(|number| number.parse::<usize>().is_ok()) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

/// Gives a file another name, unless something has it.
fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not of every file system.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

/// Makes what was done to a name durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent == Path::new("") => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_not_there_and_others_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let (place, other) = (temp.path().join("file"), temp.path().join("other"));
        std::fs::write(&other, "theirs").unwrap();
        // In the way of the first name, and of the one before exclusive ones.
        for link in [".file.0.part", "file.part"] {
            std::os::unix::fs::symlink(&other, temp.path().join(link)).unwrap();
        }
        let before = names(temp.path());
        drop(Aside::new(&place, 0o600).unwrap());
        assert_eq!(names(temp.path()), before);
        let new = || Aside::new(&place, 0o600).unwrap();
        let (first, second) = (new(), new());
        first.file().write_all(b"first").unwrap();
        second.file().write_all(b"second").unwrap();
        first.keep().unwrap();
        assert_eq!(second.keep().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&place).unwrap(), b"first");
        let third = new();
        drop(first);
        assert!(third.path().exists(), "the name is another's now");
        drop(third);
        second.replace().unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"second");
        drop(second);
        assert_eq!(names(temp.path()), [".file.0.part", "file", "file.part", "other"]);
        assert_eq!(std::fs::read(&other).unwrap(), b"theirs");
        let killed = Aside::new(&place, 0o600).unwrap();
        remove_leftovers(&place).unwrap();
        assert_eq!(names(temp.path()), ["file", "file.part", "other"]);
        drop(killed);
        let long = temp.path().join("\u{fc}".repeat(127));
        Aside::new(&long, 0o600).unwrap().keep().unwrap();
        assert!(long.exists());
    }
}
