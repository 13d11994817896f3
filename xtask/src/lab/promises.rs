//! Files that a guest reported as safe: what must be there, whatever happens after the report.
//!
//! A guest prints `@written DIR NUMBER SHA256` once `fsync` of the file and of its folder returned, and
//! `@found DIR NUMBER SHA256` for what it reads back. The checksums are kept outside the guest.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use super::console::Console;
use crate::{Result, failed};

const FILE_LIMIT: Duration = Duration::from_secs(120);
const READ_LIMIT: Duration = Duration::from_secs(600);
/// Reports on their way when the server died: they count as promised too.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// File, with its folder, to checksum.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    files: BTreeMap<String, String>,
}

/// A shell command that writes files into `folder` for ever, each with its own size and random contents, and reports
/// each once it is safe under its last name. It stops at the first error, and says so.
pub(crate) fn writer(folder: &str) -> String {
    format!(
        "mkdir -p {folder}; i=0; while :; do i=$((i+1)); f={folder}/$i; \
         head -c $((i % 9 * 200000 + i + 1)) /dev/urandom >$f.new && sync $f.new && mv $f.new $f && sync {folder} && \
         s=$(sha256sum <$f) || break; printf '@%s %s %s\\n' written $f \"${{s%% *}}\"; done; \
         printf '@%s %s\\n' stopped {folder}"
    )
}

/// A shell command that reads the files of `folder` back.
pub(crate) fn reader(folder: &str) -> String {
    format!(
        "for f in {folder}/*; do s=$(sha256sum <$f) || break; printf '@%s %s %s\\n' found $f \"${{s%% *}}\"; done"
    )
}

impl Promises {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// How many of them lie in `folder`.
    pub(crate) fn within(&self, folder: &str) -> usize {
        self.files.keys().filter(|file| file.starts_with(&format!("{folder}/"))).count()
    }

    /// Waits for one more report. A writer that stopped is a failure.
    pub(crate) fn take<W: Write>(&mut self, console: &mut Console<W>) -> Result {
        let start = Instant::now();
        while let Some(line) = console.next_line(FILE_LIMIT.saturating_sub(start.elapsed()))? {
            if self.hear(&line)? {
                return Ok(());
            }
        }
        Err(failed(format!("the guest reported no file in {} s", FILE_LIMIT.as_secs())))
    }

    /// Takes what a line reports; true when it reports a file. A writer that stopped is a failure.
    pub(crate) fn hear(&mut self, line: &str) -> Result<bool> {
        if let Some(folder) = line.strip_prefix("@stopped ") {
            return Err(failed(format!("in the guest, writing to {folder} failed")));
        }
        line.strip_prefix("@written ")
            .map(|report| self.record(report))
            .transpose()
            .map(|heard| heard.is_some())
    }

    /// Takes the reports that were on the line when the server died.
    pub(crate) fn take_last<W: Write>(&mut self, console: &mut Console<W>) -> Result {
        while let Some(line) = console.next_line(LAST_WORDS)? {
            if let Some(report) = line.strip_prefix("@written ") {
                self.record(report)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, report: &str) -> Result {
        match report.split_once(' ') {
            Some((file, sum)) if sum.len() == 64 => {
                self.files.insert(file.to_owned(), sum.to_owned());
                Ok(())
            }
            _ => Err(failed(format!("the guest reported {report:?}"))),
        }
    }

    /// Reads the files of these folders in the guest and compares every promised one.
    pub(crate) fn check<W: Write>(&self, console: &mut Console<W>, folders: &[&str]) -> Result {
        let mut found = Self::default();
        for folder in folders {
            for line in console.run(&reader(folder), READ_LIMIT)?.lines() {
                if let Some(report) = line.strip_prefix("@found ") {
                    found.record(report)?;
                }
            }
        }
        let broken = self.broken(&found);
        if broken.is_empty() {
            return Ok(());
        }
        Err(failed(format!("of {} promised files: {}", self.len(), broken.join(", "))))
    }

    /// Promised files that are missing or differ.
    fn broken(&self, found: &Self) -> Vec<String> {
        let judge = |(file, sum): (&String, &String)| match found.files.get(file) {
            Some(other) if other == sum => None,
            Some(_) => Some(format!("{file} differs")),
            None => Some(format!("{file} is gone")),
        };
        self.files.iter().filter_map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promises(pairs: &[(&str, &str)]) -> Promises {
        let files = pairs.iter().map(|(file, sum)| ((*file).to_owned(), (*sum).to_owned())).collect();
        Promises { files }
    }

    #[test]
    fn missing_and_different_files_are_told_apart() {
        let promised = promises(&[("/a/1", "a"), ("/a/2", "b"), ("/b/3", "c")]);
        let more = promises(&[("/a/1", "a"), ("/a/2", "b"), ("/b/3", "c"), ("/b/4", "half-written")]);
        assert!(promised.broken(&more).is_empty());
        let less = promises(&[("/a/1", "a"), ("/a/2", "x")]);
        assert_eq!(promised.broken(&less), ["/a/2 differs", "/b/3 is gone"]);
        assert_eq!((promised.within("/a"), promised.within("/b"), promised.within("/")), (2, 1, 0));
    }

    #[test]
    fn a_report_cut_short_is_no_promise() {
        let mut promised = Promises::default();
        assert!(promised.record(&format!("/a/7 {}", "0".repeat(64))).is_ok());
        assert!(promised.record("/a/8 0123").is_err());
        assert!(promised.record("9").is_err());
        assert_eq!(promised.len(), 1);
        assert!(!promised.hear("some other line").expect("it reports nothing"));
        assert!(promised.hear("@stopped /a").is_err());
    }
}
