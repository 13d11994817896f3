//! Images in and out: a task of the site, watched while an outside program or a stream moves the bytes.
//!
//! The site knows the task from its begin to its end; a client that is killed is missed after a minute, and an import
//! leaves no VM then either.

mod connection;
mod files;
mod format;
mod image;
mod program;
mod stream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::types::{Begun, Disk, GiveUp, NewDisk, NewExport, NewImport, Progress, Task, TaskKind, TaskState};
use api::{DISK_BYTES_MIN, Version, VmName, code};
use client::{Client, ClientErrorKind};
use seam::Rt;
use stream::{Growing, Input, Output};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{ExportFormat, ImageFormat};
use crate::failure::Failure;
use crate::output::{Meter, Printer};

/// Pause between two signs of life: the site waits for sixty of them.
const BEAT: Duration = Duration::from_secs(1);
/// Signs of life in a row that may fail before the transfer is given up.
const BEATS_MISSED_MAX: u32 = 5;
/// How long a signal is waited for that has already ended the program that copies.
const SIGNAL_WITHIN: Duration = Duration::from_millis(100);
const SECTOR: u64 = 512;

/// How far a transfer is.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Counter {
    fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// All that was to be done is.
    fn complete(&self) -> Progress {
        let Progress { done_bytes, total_bytes } = self.progress();
        let total_bytes = total_bytes.max(done_bytes);
        Progress { done_bytes: total_bytes, total_bytes }
    }

    fn progress(&self) -> Progress {
        let (done_bytes, total_bytes) =
            (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        Progress { done_bytes, total_bytes }
    }
}

/// Imports and exports of a site.
pub(crate) struct Transfer<'a> {
    pub(crate) rt: Rt,
    pub(crate) client: &'a Client,
    pub(crate) socket: PathBuf,
    pub(crate) printer: Printer,
    /// How the site's server is started, for errors.
    pub(crate) start: &'a str,
}

/// What an import is made from.
pub(crate) struct Source {
    pub(crate) image: PathBuf,
    pub(crate) format: Option<ImageFormat>,
    /// Size of the disk.
    pub(crate) bytes: Option<u64>,
}

impl Transfer<'_> {
    /// Makes a VM from an image. An error leaves no VM.
    pub(crate) async fn import(&self, name: &VmName, source: Source) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let from_stdin = source.image.as_os_str() == "-";
        if from_stdin && source.format.is_some_and(|format| format != ImageFormat::Raw) {
            return Err(Failure::usage("standard input takes raw bytes only", "leave -f out, or say -f raw"));
        }
        let input = match from_stdin {
            true => tokio::select! {
                input = self.stdin(source.format) => input?,
                // Nothing is begun yet.
                () = signals.wait() => return Err(Failure::of_code(code::INTERRUPTED, "interrupted by a signal")),
            },
            false => Input::stdin(Vec::new()),
        };
        let image = if from_stdin { None } else { Some(self.inspect(source.image, source.format).await?) };
        let bytes = disk_bytes(image.as_ref(), source.bytes)?;
        let from =
            image.as_ref().map_or("standard input".to_owned(), |image| image.path.display().to_string());
        let new = NewImport { name: name.to_string(), disks: vec![NewDisk { bytes }], source: from };
        let begun = self.client.begin_import(&new).await.map_err(|error| self.failed(error))?;
        let counter = Arc::new(Counter::default());
        counter.set(0, bytes);
        let export = export_of(&begun)?;
        match image {
            Some(image) => {
                let work = program::convert(&self.rt, image.arguments(), self.new_disk(&export), &counter);
                self.watched(&begun.task, &counter, &mut signals, work).await?;
            }
            None => {
                let (_, disk) = export.split_once('/').unwrap_or(("", &export));
                let growing = Growing::Disk { vm: name, disk };
                let work = stream::import(self, &export, &input, growing, source.bytes, &counter);
                self.watched(&begun.task, &counter, &mut signals, work).await?;
            }
        }
        self.client.finish(TaskKind::Import, begun.task.id).await.map_err(|error| self.failed(error))?;
        let vm = self.client.vm(name.as_str()).await.map_err(|error| self.failed(error))?;
        self.printer.vm(&vm, &self.socket)
    }

    /// Writes a disk to a file, or to standard output.
    pub(crate) async fn export(
        &self,
        from: &Version,
        disk: Option<String>,
        file: PathBuf,
        format: Option<ExportFormat>,
    ) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let to_stdout = file.as_os_str() == "-";
        let format = format::format_of(&file, format)?;
        if to_stdout && format != ExportFormat::Raw {
            return Err(Failure::usage(
                "standard output takes raw bytes only",
                "leave -f out, or name a file",
            ));
        }
        let target = if to_stdout { None } else { Some(program::Target::new(&file)?) };
        let destination = target.as_ref().map_or("standard output".to_owned(), |target| target.name());
        let new = NewExport { vm: from.to_string(), disk, destination };
        let begun = self.client.begin_export(&new).await.map_err(|error| self.failed(error))?;
        let counter = Arc::new(Counter::default());
        counter.set(0, begun.task.total_bytes);
        let done = async {
            let export = export_of(&begun)?;
            match &target {
                Some(target) => {
                    let from = program::disk_options(&self.socket, &export);
                    let from = vec!["--image-opts".into(), from];
                    program::convert(&self.rt, from, target.arguments(format), &counter).await?;
                    target.keep()
                }
                None => stream::export(self, &export, Output::Stdout, None, &counter).await,
            }
        };
        self.watched(&begun.task, &counter, &mut signals, done).await?;
        let task =
            self.client.finish(TaskKind::Export, begun.task.id).await.map_err(|error| self.failed(error))?;
        // What was exported has standard output for itself.
        if to_stdout { Ok(()) } else { self.printer.task(&task) }
    }

    /// Standard input, of which the first bytes tell that they are a disk's.
    async fn stdin(&self, format: Option<ImageFormat>) -> Result<Input, Failure> {
        let first = program::blocking(&self.rt, "standard input", stream::first_of_stdin).await??;
        let unreadable =
            |reason: &str| Failure::of_code(code::IMAGE_UNREADABLE, format!("standard input: {reason}"));
        if first.is_empty() {
            return Err(
                unreadable("it is empty").hint("see what the command before it says: it wrote nothing")
            );
        }
        if format.is_none() {
            match format::recognise(&first, &[]) {
                format::Known::Image(ImageFormat::Raw) => {}
                format::Known::Image(other) => {
                    let reason = format!("it is an image in the format {}", other.name());
                    return Err(unreadable(&reason).hint(image::raw_or("name the image as a file")));
                }
                format::Known::Wrapper(what, how) => {
                    return Err(unreadable(&format!("it is {what}")).hint(image::raw_or(how)));
                }
            }
        }
        Ok(Input::stdin(first))
    }

    async fn inspect(&self, path: PathBuf, format: Option<ImageFormat>) -> Result<image::Image, Failure> {
        program::blocking(&self.rt, "image", move || image::inspect(&path, format)).await?
    }

    /// The end of a conversion's command line: onto a disk that has nothing in it.
    fn new_disk(&self, export: &str) -> Vec<OsString> {
        let mut all: Vec<OsString> =
            ["-n", "--target-is-zero", "--target-image-opts"].map(OsString::from).to_vec();
        all.push(program::disk_options(&self.socket, export));
        all
    }

    fn failed(&self, error: client::ClientError) -> Failure {
        Failure::of_call(error, self.start)
    }

    /// Does the work while the site hears that it goes on; whatever ends it early ends the task too.
    async fn watched<T>(
        &self,
        task: &Task,
        counter: &Counter,
        signals: &mut Signals,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut meter = self.printer.meter();
        let outcome = tokio::select! {
            done = work => done,
            failure = self.beats(task, counter, &mut meter) => Err(failure),
            () = signals.wait() => Err(interrupted(task)),
        };
        meter.end();
        let mut failure = match outcome {
            Ok(done) => {
                // One that was done before the first sign of life has told of nothing yet; where this is lost its end is all
                // the same.
                let told = self.client.progress(task.kind, task.id, &counter.complete()).await;
                tracing::debug!(?told, "how much was moved in all");
                return Ok(done);
            }
            Err(failure) => failure,
        };
        // Ctrl-C reaches the program that copies too, and its end may be seen first.
        if failure.is(code::COPY_FAILED)
            && seam::timeout(&*self.rt, SIGNAL_WITHIN, signals.wait()).await.is_ok()
        {
            failure = interrupted(task);
        }
        // What an import finds no room in is the pool; it comes as the words of the system.
        if task.kind == TaskKind::Import && failure.is(code::COPY_FAILED) && is_no_space(failure.message()) {
            failure = failure.hint(self.what_makes_room().await);
        }
        if failure.is(code::IMPORT_ENDED) {
            return Err(failure);
        }
        let told = if failure.is(code::INTERRUPTED) {
            self.client.cancel_task(task.id).await
        } else {
            let why = GiveUp { error: failure.message().to_owned() };
            self.client.give_up(task.kind, task.id, &why).await
        };
        match told {
            Ok(_) => Err(failure),
            // The work failed because the task was ended.
            Err(error) if is_ended(&error) => Err(Failure::of_code(code::IMPORT_ENDED, error.reason)),
            Err(error) => {
                tracing::debug!(%error, "the site was not told");
                Err(failure)
            }
        }
    }

    /// What to do where the pool has no room: what the status says, which knows whose room is short.
    async fn what_makes_room(&self) -> String {
        let next = self.client.status().await.map_or_else(|_| Vec::new(), |status| status.next);
        match next.is_empty() {
            true => code::NO_SPACE.next.to_owned(),
            false => next.join("; "),
        }
    }

    /// Tells the site again and again how far the work is; ends when it is not to go on.
    async fn beats(&self, task: &Task, counter: &Counter, meter: &mut Meter) -> Failure {
        let mut missed = 0;
        loop {
            self.rt.sleep(BEAT).await;
            match self.client.progress(task.kind, task.id, &counter.progress()).await {
                Ok(task) if task.state == TaskState::Running => {
                    missed = 0;
                    meter.show(&task, self.rt.now());
                }
                Ok(task) => {
                    let reason = task.error.map_or("it was cancelled".to_owned(), |error| error);
                    return Failure::of_code(
                        code::IMPORT_ENDED,
                        format!("task {} has ended: {reason}", task.id),
                    );
                }
                Err(error) => {
                    missed += 1;
                    let refused = matches!(error.kind, ClientErrorKind::Refused(_));
                    if refused || missed > BEATS_MISSED_MAX {
                        return self.failed(error);
                    }
                }
            }
        }
    }
}

/// Whether these words of the system, or of a program, say that there was no room.
fn is_no_space(message: &str) -> bool {
    message.contains("No space left on device")
}

fn interrupted(task: &Task) -> Failure {
    Failure::of_code(code::INTERRUPTED, format!("task {} was interrupted", task.id))
}

fn is_ended(error: &client::ClientError) -> bool {
    matches!(&error.kind, ClientErrorKind::Refused(problem) if problem.code == code::TASK_ENDED.name)
}

/// Size of the disk that an image, or standard input, goes into; zero where it gets as large as what comes in.
fn disk_bytes(image: Option<&image::Image>, asked: Option<u64>) -> Result<u64, Failure> {
    let own = image.map_or(0, |image| image.bytes);
    if let (Some(image), Some(asked)) = (image, asked)
        && asked < own
    {
        let (own, asked) = (api::format_size(own), api::format_size(asked));
        let message =
            format!("{}: its disk has {own}, more than the {asked} of --size", image.path.display());
        return Err(Failure::of_code(code::WOULD_SHRINK, message)
            .hint("leave --size out, or make the disk in the image smaller first"));
    }
    let bytes = own.max(asked.unwrap_or(0));
    Ok(bytes.checked_next_multiple_of(SECTOR).unwrap_or(bytes).max(DISK_BYTES_MIN))
}

/// The export of the one disk that a task is about.
fn export_of(begun: &Begun) -> Result<String, Failure> {
    match begun.disks.as_slice() {
        [disk] => Ok(disk.export.clone()),
        disks => {
            let name = |disk: &Disk| format!("{}/{}", begun.task.target, disk.name);
            let names: Vec<String> = disks.iter().map(name).collect();
            let message = format!("the VM has {} disks", disks.len());
            let hint = "; for all as they are at one instant, make a snapshot and export its disks";
            Err(Failure::usage(message, format!("name one of {}{hint}", names.join(", "))))
        }
    }
}

/// The signals that end a command.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(code::SIGNALS, error.to_string()));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [first, second, third] = &mut self.0;
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
            _ = third.recv() => {}
        }
    }
}

/// A path that no program takes for anything else.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::of_io(code::FILE_ERROR, path.display(), &error))
}

#[cfg(test)]
mod tests;
