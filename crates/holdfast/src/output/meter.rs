//! How far a task is, on standard error.

use std::time::Duration;

use api::types::{Event, Task};

use super::Format;
use super::text::progress;

/// Pause between two lines where nobody watches a terminal.
const LINES_APART: Duration = Duration::from_secs(10);

/// Shows how far a task is: a line that changes on a terminal, else one now and then; events with JSON; nothing with
/// YAML, which has no place for them.
#[derive(Debug)]
pub(crate) struct Meter {
    format: Format,
    is_terminal: bool,
    /// When the last line was written.
    said: Option<Duration>,
}

impl Meter {
    pub(super) fn new(format: Format, is_terminal: bool) -> Self {
        Self { format, is_terminal, said: None }
    }

    pub(crate) fn show(&mut self, task: &Task, now: Duration) {
        match self.format {
            Format::Yaml => {}
            Format::Json => {
                if let Ok(line) = serde_json::to_string(&Event { progress: task.clone() }) {
                    eprintln!("{line}");
                }
            }
            Format::Table if self.is_terminal => {
                // Back to the start, and what stood there before goes.
                eprint!("\r\u{1b}[K{}", progress(task));
                self.said = Some(now);
            }
            Format::Table if self.said.is_none_or(|said| now.saturating_sub(said) >= LINES_APART) => {
                eprintln!("{}", progress(task));
                self.said = Some(now);
            }
            Format::Table => {}
        }
    }

    /// Leaves the line.
    pub(crate) fn end(&mut self) {
        if self.is_terminal && self.said.take().is_some() {
            eprintln!();
        }
    }
}
