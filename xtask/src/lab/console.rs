//! A shell on a serial line: send a command, read its output, learn its exit code.
//!
//! The other side may echo what is sent, print prompts or kernel messages in between. So each answer is taken from
//! the line that begins with a mark, and the mark is sent in two halves, which an echo shows apart.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Result, failed};

/// From power on to a shell: 10 s to 20 s emulated on an idle machine, far more on a busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const QUICK_LIMIT: Duration = Duration::from_secs(60);
/// Output not yet read. More is dropped: a guest gone wild must not fill this machine.
const UNREAD_BYTES_MAX: usize = 16 << 20;

/// One end of a serial line with a shell on the other.
pub(crate) struct Console<W> {
    input: W,
    feed: Arc<Feed>,
    calls: u64,
}

#[derive(Default)]
struct Feed {
    text: Mutex<Unread>,
    grew: Condvar,
}

#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    closed: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Console<W> {
    /// Reads `output` from now on, writing all of it to `transcript` too.
    pub(crate) fn new(input: W, mut output: impl Read + Send + 'static, transcript: &Path) -> Result<Self> {
        let mut transcript =
            File::create(transcript).map_err(|error| failed(format!("{}: {error}", transcript.display())))?;
        let feed = Arc::new(Feed::default());
        let filled = Arc::clone(&feed);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = output.read(&mut buffer).unwrap_or(0);
                // The transcript is for people; a full disk shows elsewhere.
                let _ = transcript.write_all(&buffer[..read]);
                let mut unread = filled.lock();
                if read == 0 {
                    unread.closed = true;
                } else if unread.bytes.len() + read <= UNREAD_BYTES_MAX {
                    unread.bytes.extend_from_slice(&buffer[..read]);
                }
                filled.grew.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Ok(Self { input, feed, calls: 0 })
    }

    /// Waits until a guest made by `tools/vm-images.sh` has booted to its shell.
    pub(crate) fn booted(&mut self) -> Result {
        self.wait_for("console-shell-ready", BOOT_LIMIT)?;
        // No echo, no prompts, no kernel messages between the answers.
        self.run("stty -echo; PS1=; PS2=; dmesg -n 1", QUICK_LIMIT)?;
        Ok(())
    }

    /// Types one line.
    pub(crate) fn send(&mut self, line: &str) -> Result {
        let sent = self.input.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.input.flush());
        sent.map_err(|error| failed(format!("the console is gone: {error}")))
    }

    /// Waits for a line that begins with `mark`; gives the rest of it and the lines before it.
    pub(crate) fn wait_for(&mut self, mark: &str, limit: Duration) -> Result<(String, Vec<String>)> {
        let start = Instant::now();
        let mut before = Vec::new();
        loop {
            match self.next_line(limit.saturating_sub(start.elapsed()))? {
                Some(line) => match line.strip_prefix(mark) {
                    Some(rest) => return Ok((rest.to_owned(), before)),
                    None => before.push(line),
                },
                None => {
                    let last = before[before.len().saturating_sub(15)..].join("\n");
                    let limit = limit.as_secs();
                    return Err(failed(format!(
                        "no line {mark:?} from the console in {limit} s; last:\n{last}"
                    )));
                }
            }
        }
    }

    /// The next whole line, without its end; `None` when none came within `limit` or none can come.
    pub(crate) fn next_line(&mut self, limit: Duration) -> Result<Option<String>> {
        let start = Instant::now();
        let mut unread = self.feed.lock();
        loop {
            if let Some(end) = unread.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = unread.bytes.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_matches(['\r', '\n']).to_owned()));
            }
            let left = limit.saturating_sub(start.elapsed());
            if unread.closed || left.is_zero() {
                return Ok(None);
            }
            unread = self.feed.grew.wait_timeout(unread, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs a command in the shell; gives what it printed. An exit code other than 0 is a failure.
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        self.calls += 1;
        let call = self.calls;
        self.send(&format!("{{ {command}"))?;
        self.send(&format!("}} ; printf '\\n%s%s %d\\n' @en d-{call} $?"))?;
        let (code, mut lines) = self.wait_for(&format!("@end-{call} "), limit)?;
        // The line break that sets the mark apart from output without one.
        if lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let output = lines.join("\n");
        if code == "0" {
            return Ok(output);
        }
        Err(failed(format!("in the guest, exit code {code}: {command}\n{output}")))
    }
}
