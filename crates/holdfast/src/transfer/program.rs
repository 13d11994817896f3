//! qemu-img as a child: what it is asked, how far it is, and its end with ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use api::code;
use machine::Aside;
use seam::Rt;

use super::{Counter, absolute};
use crate::arguments::ExportFormat;
use crate::failure::Failure;

pub(super) const PROGRAM: &str = "qemu-img";
/// Debian's package of it.
const PACKAGE: &str = "qemu-utils";
/// Requests at once while it copies: enough to keep fingerprints and media busy.
const AT_ONCE: &str = "8";
/// Most that is read of what it says, bytes.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// Permissions of a file that is written, as the process's mask leaves them.
const MODE: u32 = 0o666;
/// Progress in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// Runs blocking work off the thread that serves.
pub(super) async fn blocking<T: Send + 'static>(
    rt: &Rt,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    rt.spawn_blocking(
        name,
        Box::new(move || {
            // The waiter may be gone.
            let _ = done.send(work());
        }),
    );
    outcome.await.map_err(|_| Failure::failed(code::RUNTIME, "a thread ended without an answer"))
}

/// A value within a list of options: its commas are doubled.
pub(super) fn option(value: &OsStr) -> OsString {
    let doubled = |byte: &u8| if *byte == b',' { vec![b','; 2] } else { vec![*byte] };
    OsString::from_vec(value.as_bytes().iter().flat_map(doubled).collect())
}

/// The value that names a disk of the site where qemu-img takes options of an image.
pub(super) fn disk_options(socket: &Path, export: &str) -> OsString {
    let mut options = OsString::from("driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=");
    options.push(option(socket.as_os_str()));
    options.push(",file.export=");
    options.push(option(export.as_ref()));
    options
}

/// Starts it, or says what to install.
pub(super) fn start(command: &mut Command) -> Result<Child, Failure> {
    command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::of_code(code::PROGRAM_MISSING, format!("{PROGRAM} is not installed"))
                .hint(format!("install it: apt-get install {PACKAGE}"))
        }
        _ => Failure::failed(code::PROGRAM_FAILED, format!("{PROGRAM}: {error}")),
    })
}

/// The last line of what it said, without its name.
pub(super) fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    let line = line.strip_prefix(PROGRAM).map_or(line, |rest| rest.trim_start_matches([':', ' ']));
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

/// A child that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies from one image to another; dropping the future ends the copy.
pub(super) async fn convert(
    rt: &Rt,
    from: Vec<OsString>,
    to: Vec<OsString>,
    counter: &Arc<Counter>,
) -> Result<(), Failure> {
    let mut command = Command::new(PROGRAM);
    command.args(["convert", "-p", "-m", AT_ONCE]).args(from).args(to);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running(start(&mut command)?);
    let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
    let counter = counter.clone();
    let shown = blocking(rt, "qemu-img progress", move || {
        if let Some(stdout) = stdout {
            follow(stdout, &counter);
        }
    });
    let said = blocking(rt, "qemu-img errors", move || {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            // What cannot be read is not said.
            let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut said);
        }
        said
    });
    let (shown, said) = tokio::join!(shown, said);
    shown?;
    let said = said?;
    // It has closed both: it ends now.
    let status = child
        .0
        .wait()
        .map_err(|error| Failure::failed(code::PROGRAM_FAILED, format!("{PROGRAM}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::of_code(code::COPY_FAILED, format!("{PROGRAM}: {}", last_line(&said))))
}

/// Reads `(12.34/100%)` again and again.
fn follow(mut stdout: impl Read, counter: &Counter) {
    let total = counter.progress().total_bytes;
    let mut text = Vec::new();
    let mut piece = [0; 512];
    while let Ok(count @ 1..) = stdout.read(&mut piece) {
        text.extend_from_slice(&piece[..count]);
        if let Some(share) = latest(&text) {
            let done = u128::from(total) * u128::from(share) / u128::from(WHOLE);
            counter.set(u64::try_from(done).unwrap_or(total), total);
        }
        let keep = text.len().saturating_sub(64);
        text.drain(..keep);
    }
}

/// The newest share in a piece of its progress, in hundredths of a percent.
pub(super) fn latest(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let end = text.rfind("/100%)")?;
    let start = text[..end].rfind('(')? + 1;
    let share: f64 = text[start..end].trim().parse().ok()?;
    (0.0..=100.0).contains(&share).then_some((share * 100.0) as u64)
}

/// The file of an export, put in its place when it is whole and nothing has come there meanwhile.
pub(super) struct Target(Aside);

impl Target {
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let path = absolute(path)?;
        if path.symlink_metadata().is_ok() {
            return Err(taken(&path));
        }
        let aside = Aside::new(&path, MODE);
        Ok(Self(aside.map_err(|error| Failure::of_io(code::FILE_ERROR, path.display(), &error))?))
    }

    /// Where it is to stand, for people.
    pub(super) fn name(&self) -> String {
        self.0.place().display().to_string()
    }

    /// The file that is written.
    pub(super) fn file(&self) -> Result<File, Failure> {
        let file = self.0.file().try_clone();
        file.map_err(|error| Failure::of_io(code::FILE_ERROR, self.name(), &error))
    }

    /// The end of a conversion's command line.
    pub(super) fn arguments(&self, format: ExportFormat) -> Vec<OsString> {
        vec!["-O".into(), format.driver().into(), self.0.path().into()]
    }

    /// The file is whole: it goes to its place.
    pub(super) fn keep(&self) -> Result<(), Failure> {
        self.0.keep().map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => taken(self.0.place()),
            _ => Failure::of_io(code::OUTPUT, self.name(), &error),
        })
    }
}

/// What to say of a place where something is.
fn taken(path: &Path) -> Failure {
    let failure = Failure::of_code(code::FILE_EXISTS, format!("{} is there already", path.display()));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => failure.hint("it is a directory: name a file in it"),
        Ok(metadata) if !metadata.is_file() => failure.hint(format!(
            "it is no file: have the bytes on standard output, and lead these there: ... - > {}",
            path.display()
        )),
        _ => failure,
    }
}
