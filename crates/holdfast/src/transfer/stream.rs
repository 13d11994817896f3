//! Raw bytes in and out: standard input and output, and files of a VM.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use api::types::{ChangeDisk, ChangeFile};
use api::{FileName, VmName, code, format_size};

use super::connection::{Connection, WINDOW};
use super::format::HEAD_BYTES;
use super::program::blocking;
use super::{Counter, DISK_BYTES_MIN, SECTOR, Transfer};
use crate::failure::Failure;

/// Bytes read before they are written: a disk without a size is made larger once for each.
const CHUNK_BYTES: usize = 32 << 20;
/// Bytes of one request.
const REQUEST_BYTES: usize = 1 << 20;
/// Number of the error of a user who may not open the socket.
const EACCES: i32 = 13;
/// Zeros of this length and alignment are left out: the disk is new.
const HOLE_BYTES: usize = 4096;

fn copy_failed(error: &std::io::Error) -> Failure {
    Failure::of_code(code::COPY_FAILED, error.to_string())
}

/// Opens a disk at the site's socket.
fn connect(socket: &Path, export: &str) -> Result<Connection, Failure> {
    Connection::open(socket, export).map_err(|error| match error.raw_os_error() {
        Some(EACCES) => Failure::of_code(code::DENIED, format!("{}: {error}", socket.display())),
        _ => copy_failed(&error),
    })
}

/// Where bytes come from.
pub(super) enum Input {
    /// With bytes that were read from it before.
    Stdin(Arc<Mutex<Vec<u8>>>),
    File(Arc<File>),
}

/// The first bytes of standard input, as many as a header has.
pub(super) fn first_of_stdin() -> Result<Vec<u8>, Failure> {
    let mut first = Vec::new();
    let read = std::io::stdin().lock().take(HEAD_BYTES as u64).read_to_end(&mut first);
    read.map_err(|error| Failure::of_code(code::COPY_FAILED, format!("standard input: {error}")))?;
    Ok(first)
}

impl Input {
    /// Standard input, of which `first` was read already.
    pub(super) fn stdin(first: Vec<u8>) -> Self {
        Self::Stdin(Arc::new(Mutex::new(first)))
    }

    /// How many there are, where that is known.
    pub(super) fn bytes(&self) -> Result<Option<u64>, Failure> {
        let Self::File(file) = self else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| copy_failed(&error))?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    async fn next(&self, transfer: &Transfer<'_>) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Stdin(first) => {
                let first = std::mem::take(&mut *first.lock().unwrap_or_else(PoisonError::into_inner));
                blocking(&transfer.rt, "standard input", move || {
                    read_chunk(first.as_slice().chain(std::io::stdin().lock()), "standard input")
                })
                .await?
            }
            Self::File(file) => {
                let file = file.clone();
                blocking(&transfer.rt, "file", move || read_chunk(&*file, "the file")).await?
            }
        }
    }
}

/// What gets as large as what comes in.
#[derive(Clone, Copy)]
pub(super) enum Growing<'a> {
    /// A disk, in whole sectors.
    Disk { vm: &'a VmName, disk: &'a str },
    /// A file.
    File { vm: &'a VmName, name: &'a FileName },
}

impl Growing<'_> {
    /// Size of one that is new.
    fn least(self) -> u64 {
        match self {
            Self::Disk { .. } => DISK_BYTES_MIN,
            Self::File { .. } => 0,
        }
    }

    /// Makes it hold `bytes` at least; gives how many it holds then.
    async fn grow(self, transfer: &Transfer<'_>, bytes: u64) -> Result<u64, Failure> {
        let failed = |error| transfer.failed(error);
        match self {
            Self::Disk { vm, disk } => {
                let bytes = bytes.next_multiple_of(SECTOR);
                let change = ChangeDisk { bytes, shrink: false };
                transfer.client.change_disk(vm.as_str(), disk, &change).await.map_err(failed)?;
                Ok(bytes)
            }
            Self::File { vm, name } => {
                let change = ChangeFile { bytes };
                transfer.client.change_file(vm.as_str(), name.as_str(), &change).await.map_err(failed)?;
                Ok(bytes)
            }
        }
    }
}

/// Fills what is new; it gets as large as what was read, unless its size is given.
pub(super) async fn import(
    transfer: &Transfer<'_>,
    export: &str,
    input: &Input,
    growing: Growing<'_>,
    bytes: Option<u64>,
    counter: &Arc<Counter>,
) -> Result<(), Failure> {
    let mut at = 0_u64;
    let mut size = growing.least();
    // A disk whose size is given has it already.
    let limit = match growing {
        Growing::Disk { .. } => bytes.inspect(|bytes| size = *bytes),
        Growing::File { .. } => None,
    };
    loop {
        let chunk = input.next(transfer).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        let end = at + chunk.len() as u64;
        if end > size && limit.is_some() {
            let message = format!("standard input has more than the {} of --size", format_size(size));
            return Err(Failure::of_code(code::COPY_FAILED, message));
        }
        if end > size {
            size = growing.grow(transfer, end).await?;
        }
        let (socket, export) = (transfer.socket.clone(), export.to_owned());
        let written =
            blocking(&transfer.rt, "disk", move || write_chunk(&socket, &export, at, &chunk)).await?;
        written?;
        at = end;
        counter.set(at, bytes.unwrap_or(at).max(at));
    }
}

/// As much as a chunk holds; less at the end of the input only.
fn read_chunk(mut input: impl Read, what: &str) -> Result<Vec<u8>, Failure> {
    let mut chunk = Vec::new();
    let read = input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
    read.map_err(|error| Failure::of_code(code::COPY_FAILED, format!("{what}: {error}")))?;
    Ok(chunk)
}

fn write_chunk(socket: &Path, export: &str, at: u64, chunk: &[u8]) -> Result<(), Failure> {
    // Opened for each chunk: a connection knows the size that the disk had when it began.
    let mut connection = connect(socket, export)?;
    for (start, end) in data_runs(chunk) {
        connection.write(at + start as u64, &chunk[start..end]).map_err(|error| copy_failed(&error))?;
    }
    connection.settle().map_err(|error| copy_failed(&error))
}

/// Where a chunk is not zero, in pieces of at most a request.
pub(super) fn data_runs(chunk: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for start in (0..chunk.len()).step_by(HOLE_BYTES) {
        let end = (start + HOLE_BYTES).min(chunk.len());
        if chunk[start..end].iter().all(|byte| *byte == 0) {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.1 == start && end - last.0 <= REQUEST_BYTES => last.1 = end,
            _ => runs.push((start, end)),
        }
    }
    runs
}

/// Where bytes go.
pub(super) enum Output {
    Stdout,
    File(File),
}

/// Writes a disk out, or as many bytes of it as are said.
pub(super) async fn export(
    transfer: &Transfer<'_>,
    export: &str,
    output: Output,
    bytes: Option<u64>,
    counter: &Arc<Counter>,
) -> Result<(), Failure> {
    let (socket, export): (PathBuf, String) = (transfer.socket.clone(), export.to_owned());
    let counter = counter.clone();
    let copy = move || {
        let mut connection = connect(&socket, &export)?;
        let size = bytes.unwrap_or(connection.size()).min(connection.size());
        match output {
            Output::Stdout => {
                read_out(&mut connection, std::io::stdout().lock(), "standard output", size, &counter)
            }
            Output::File(file) => read_out(&mut connection, file, "the file", size, &counter),
        }
    };
    blocking(&transfer.rt, "output", copy).await?
}

fn read_out(
    connection: &mut Connection,
    mut out: impl Write,
    what: &str,
    size: u64,
    counter: &Counter,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(code::OUTPUT, format!("{what}: {error}"));
    let mut at = 0;
    while at < size {
        // Requests are of whole sectors; the last one's surplus is left out.
        let mut lengths = Vec::new();
        let mut end = at;
        while end < size && lengths.len() < WINDOW {
            let length = (size - end).next_multiple_of(SECTOR).min(REQUEST_BYTES as u64);
            lengths.push(length as u32);
            end += length;
        }
        for piece in connection.read(at, &lengths).map_err(|error| copy_failed(&error))? {
            let wanted = piece.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            out.write_all(&piece[..wanted]).map_err(failed)?;
            at += wanted as u64;
        }
        counter.set(at, size);
    }
    out.flush().map_err(failed)
}
