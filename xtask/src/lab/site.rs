//! A site: one `holdfast standalone`, and its command line.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Stage;
use crate::process::{Outcome, bound, ended, must, signal};
use crate::{Result, failed};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const COPY_LIMIT: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(20);
/// Less than this may wait for more in the write buffer.
const CONTAINER: u64 = 8 << 20;
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Six media of 4 GiB: 4+2 fragments, any two media may go.
const MEDIA: &str = "6x4G";

/// A site whose server runs or not. Dropping it kills the server.
pub(crate) struct Site<'a> {
    stage: &'a Stage,
    server: Option<Child>,
    starts: u32,
}

impl<'a> Site<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        Self { stage, server: None, starts: 0 }
    }

    /// Starts the server and waits until it answers; gives the time that took.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let path = self.stage.logs.join(format!("server-{}.log", self.starts + 1));
        let log = File::create(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let log_too = log.try_clone().map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let mut command = bound(&self.stage.binary);
        command.arg("standalone").arg("--no-default-points").arg("--dir").arg(&self.stage.site);
        if self.starts == 0 {
            command.args(["--file-media", MEDIA]);
            command.arg("--recovery-key-file").arg(self.stage.logs.join("recovery-key"));
        }
        self.starts += 1;
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        let mut server = command.spawn().map_err(|error| failed(format!("holdfast: {error}")))?;
        // A socket left by a killed server is there but answers nobody.
        while UnixStream::connect(self.stage.site.join("api.sock")).is_err() {
            if let Ok(Some(status)) = server.try_wait() {
                return Err(failed(format!("the server ended at its start ({status}):\n{}", tail(&path))));
            }
            if start.elapsed() > START_LIMIT {
                let _ = server.kill();
                return Err(failed(format!("the server does not answer:\n{}", tail(&path))));
            }
            std::thread::sleep(POLL);
        }
        self.server = Some(server);
        Ok(start.elapsed())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result {
        let mut server = self.server.take().ok_or_else(|| failed("no server runs"))?;
        server.kill().and_then(|()| server.wait()).map_err(|error| failed(format!("kill -9: {error}")))?;
        Ok(())
    }

    /// A clean stop.
    pub(crate) fn stop(&mut self) -> Result {
        let mut server = self.server.take().ok_or_else(|| failed("no server runs"))?;
        signal("TERM", server.id())?;
        if !ended(&mut server, STOP_LIMIT) {
            let _ = server.kill();
            return Err(failed("the server does not stop on SIGTERM"));
        }
        match server.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("the server stopped with {status}"))),
            Err(error) => Err(failed(format!("waiting for the server: {error}"))),
        }
    }

    /// One command of the command line; gives what it printed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.run(arguments, COMMAND_LIMIT)?.output)
    }

    /// A new VM whose first disk is the image; gives the time that took.
    pub(crate) fn import(&self, vm: &str, image: &Path) -> Result<Duration> {
        let image = image.to_str().ok_or_else(|| failed(format!("{image:?} is no text")))?;
        Ok(self.run(&["vm", "import", vm, image, "-f", "raw"], COPY_LIMIT)?.took)
    }

    fn run(&self, arguments: &[&str], limit: Duration) -> Result<Outcome> {
        let mut command = Command::new(&self.stage.binary);
        must(command.arg("--site").arg(&self.stage.site).args(arguments), limit)
    }

    /// Bytes of this name in `status`.
    pub(crate) fn bytes(&self, name: &str) -> Result<u64> {
        let status = self.cli(&["status", "-o", "json"])?;
        number(&status, name).ok_or_else(|| failed(format!("status says nothing of {name}:\n{status}")))
    }

    /// Bytes needed so far, before parity. What waits for its container is counted as it is in RAM, uncompressed.
    pub(crate) fn needed_bytes(&self) -> Result<u64> {
        let start = Instant::now();
        while self.bytes("buffered_bytes")? >= CONTAINER && start.elapsed() < SETTLE_LIMIT {
            std::thread::sleep(POLL);
        }
        Ok(self.bytes("stored_bytes")? + self.bytes("buffered_bytes")?)
    }

    /// Where an NBD client finds a disk.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.stage.site.join("nbd.sock").display())
    }

    /// The media, in order of name.
    pub(crate) fn media(&self) -> Result<Vec<PathBuf>> {
        let directory = self.stage.site.join("media");
        let entries = std::fs::read_dir(&directory)
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
        let mut media: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        media.sort();
        Ok(media)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Copies a whole disk with nbdcopy; one side is a file, the other an NBD address.
pub(crate) fn copy(from: impl AsRef<std::ffi::OsStr>, to: impl AsRef<std::ffi::OsStr>) -> Result<Duration> {
    Ok(must(Command::new("nbdcopy").arg("--flush").arg(from).arg(to), COPY_LIMIT)?.took)
}

/// The whole number of that name in a JSON text, where no other member has the name.
fn number(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let digits = rest.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_name() {
        let json = "{\"a_bytes\": 17,\n \"bytes\":4, \"text\": \"x\"}";
        assert_eq!(number(json, "a_bytes"), Some(17));
        assert_eq!(number(json, "bytes"), Some(4));
        assert_eq!(number(json, "text"), None);
        assert_eq!(number(json, "c_bytes"), None);
    }
}
