//! What the guest says while things fail: files that are safe, and a pulse that shows how long nothing moved.
//!
//! One loop in the guest writes files and promises them. Another writes one block after the other, each synced, and says
//! the guest's own clock after each: the longest time between two such lines is the longest pause the guest saw.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::lab::console::Console;
use crate::lab::promises::{Promises, writer};
use crate::{Result, failed};

/// Where the guest writes its files.
pub(super) const FOLDER: &str = "/srv/data";
/// An event is over for the guest after so many beats.
const BEATS: usize = 12;
const BEATS_LIMIT: Duration = Duration::from_secs(120);
const QUICK_LIMIT: Duration = Duration::from_secs(60);
/// Lines that were said already are read with this patience.
const SAID: Duration = Duration::from_millis(1);

/// Writes a block of its own, synced, again and again; says when.
const BEAT: &str = "while read t rest </proc/uptime && printf '%4096s' $t | \
     dd of=/srv/beat bs=4096 conv=notrunc,fsync 2>/dev/null && read t rest </proc/uptime; do \
     printf '@%s %s\\n' beat $t; done; printf '@%s beat\\n' stopped";

/// Whoever looks for trouble between the guest and its disk in the kernel's log.
const TROUBLE: &str =
    "! dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|[Aa]borting journal|Remounting|blocked for more'";

/// What was heard.
pub(super) struct Pulse {
    pub(super) promised: Promises,
    beats: Vec<f64>,
}

impl Pulse {
    /// Starts both loops in the guest.
    pub(super) fn start<W: Write>(console: &mut Console<W>) -> Result<Self> {
        // Each line is written at once, so two loops share the console without cutting each other's lines.
        console.run("mkdir -p /srv && : >/srv/beat", QUICK_LIMIT)?;
        console.send(&format!("( {} ) & ( {BEAT} ) &", writer(FOLDER)))?;
        let mut pulse = Self { promised: Promises::default(), beats: Vec::new() };
        pulse.go_on(console)?;
        Ok(pulse)
    }

    /// Ends both loops.
    pub(super) fn stop<W: Write>(&mut self, console: &mut Console<W>) -> Result {
        console.send("kill %1 %2; wait; printf '@%s\\n' silent")?;
        let (_, said) = console.wait_for("@silent", QUICK_LIMIT)?;
        said.iter().try_for_each(|line| self.hear(line))
    }

    /// Listens for so long.
    pub(super) fn listen<W: Write>(&mut self, console: &mut Console<W>, time: Duration) -> Result {
        let start = Instant::now();
        while let Some(line) = console.next_line(time.saturating_sub(start.elapsed()))? {
            self.hear(&line)?;
        }
        // Nothing more can come, where the guest is gone: the time passes all the same.
        std::thread::sleep(time.saturating_sub(start.elapsed()));
        Ok(())
    }

    /// Waits until the guest's writes have gone on for a while.
    pub(super) fn go_on<W: Write>(&mut self, console: &mut Console<W>) -> Result {
        self.listen(console, SAID)?;
        let (start, enough) = (Instant::now(), self.beats.len() + BEATS);
        while self.beats.len() < enough {
            match console.next_line(BEATS_LIMIT.saturating_sub(start.elapsed()))? {
                Some(line) => self.hear(&line)?,
                None => {
                    let limit = BEATS_LIMIT.as_secs();
                    return Err(failed(format!("the guest's writes did not go on within {limit} s")));
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, line: &str) -> Result {
        if let Some(time) = line.strip_prefix("@beat ") {
            let time = time.trim().parse().map_err(|_| failed(format!("the guest said {line:?}")))?;
            self.beats.push(time);
        }
        self.promised.hear(line).map(drop)
    }

    /// Now, as [`longest`](Self::longest) takes it.
    pub(super) fn mark<W: Write>(&mut self, console: &mut Console<W>) -> Result<usize> {
        self.listen(console, SAID)?;
        Ok(self.beats.len())
    }

    /// The longest time between two beats since `mark`.
    pub(super) fn longest(&self, mark: usize) -> Duration {
        longest(&self.beats[mark.saturating_sub(1)..])
    }
}

fn longest(beats: &[f64]) -> Duration {
    let pauses = beats.windows(2).map(|two| two[1] - two[0]);
    Duration::from_secs_f64(pauses.fold(0.0, f64::max))
}

/// Fails when the guest's kernel met trouble with its disk.
pub(super) fn no_trouble<W: Write>(console: &mut Console<W>) -> Result {
    console.run(TROUBLE, QUICK_LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_between_two_beats() {
        assert_eq!(longest(&[1.0, 1.25, 4.75, 5.0]), Duration::from_millis(3500));
        assert_eq!(longest(&[1.0]), Duration::ZERO);
        assert_eq!(longest(&[]), Duration::ZERO);
    }
}
