//! qemu-img as a child: what it is asked, how far it is, and its end with ours.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
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
/// Characters of a file's name that its temporary shows.
const SHOWN_CHARS: usize = 40;
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
    outcome.await.map_err(|_| Failure::failed("runtime", "a thread ended without an answer"))
}

/// A value within a list of options: its commas are doubled.
pub(super) fn option(value: &str) -> String {
    value.replace(',', ",,")
}

/// Options that name a disk of the site: `--image-opts` and its value.
pub(super) fn disk_options(socket: &Path, export: &str) -> Vec<String> {
    let socket = option(&socket.display().to_string());
    let options = format!(
        "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={socket},file.export={}",
        option(export)
    );
    vec!["--image-opts".to_owned(), options]
}

/// Starts it, or says what to install.
pub(super) fn start(command: &mut Command) -> Result<Child, Failure> {
    command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::of_code("program_missing", format!("{PROGRAM} is not installed"))
                .hint(format!("install it: apt-get install {PACKAGE}"))
        }
        _ => Failure::failed("program_failed", format!("{PROGRAM}: {error}")),
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
    from: Vec<String>,
    to: Vec<String>,
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
    let status =
        child.0.wait().map_err(|error| Failure::failed("program_failed", format!("{PROGRAM}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::of_code("copy_failed", format!("{PROGRAM}: {}", last_line(&said))))
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

/// The file of an export: written beside its place, under a name that nobody has, and put in its place when it is whole and
/// nothing has come there meanwhile.
pub(super) struct Target {
    path: PathBuf,
    aside: PathBuf,
}

impl Target {
    pub(super) fn new(rt: &Rt, path: &Path) -> Result<Self, Failure> {
        let path = absolute(path)?;
        let failed =
            |error: std::io::Error| Failure::of_code("file_error", format!("{}: {error}", path.display()));
        if path.symlink_metadata().is_ok() {
            return Err(taken(&path));
        }
        let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
        // A name may be as long as it can be: what stands for it is short.
        let shown: String = name.to_string_lossy().chars().take(SHOWN_CHARS).collect();
        let aside = path.with_file_name(format!(".{shown}.{:016x}.part", seam::random_u64(&**rt)));
        // Ours alone: it follows no link and takes no file of another's.
        OpenOptions::new().write(true).create_new(true).open(&aside).map_err(failed)?;
        Ok(Self { path, aside })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The file that is written.
    pub(super) fn create(&self) -> Result<std::fs::File, Failure> {
        OpenOptions::new()
            .write(true)
            .open(&self.aside)
            .map_err(|error| Failure::of_code("file_error", format!("{}: {error}", self.aside.display())))
    }

    /// The end of a conversion's command line.
    pub(super) fn arguments(&self, format: ExportFormat) -> Vec<String> {
        let format = match format {
            ExportFormat::Raw => "raw",
            ExportFormat::Qcow2 => "qcow2",
        };
        vec!["-O".to_owned(), format.to_owned(), self.aside.display().to_string()]
    }

    /// The file is whole and durable: it goes to its place.
    pub(super) fn keep(&self) -> Result<(), Failure> {
        let synced = std::fs::File::open(&self.aside).and_then(|file| file.sync_all());
        match synced.and_then(|()| put_in_place(&self.aside, &self.path)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(&self.path)),
            Err(error) => Err(Failure::failed("output", format!("{}: {error}", self.path.display()))),
        }
    }
}

fn taken(path: &Path) -> Failure {
    Failure::of_code("file_exists", format!("{} is there already", path.display()))
}

/// Gives a file another name, unless something has it.
pub(super) fn put_in_place(from: &Path, to: &Path) -> std::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not of every file system.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already when it was kept.
        let _ = std::fs::remove_file(&self.aside);
    }
}
