//! Raw bytes from standard input and to standard output.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::types::ChangeDisk;
use site::{VmName, format_size};

use super::connection::{Connection, WINDOW};
use super::program::blocking;
use super::{Counter, DISK_BYTES_MIN, SECTOR, Transfer};
use crate::failure::Failure;

/// Bytes read before they are written: a disk without a size is made larger once for each.
const CHUNK_BYTES: usize = 32 << 20;
/// Bytes of one request.
const REQUEST_BYTES: usize = 1 << 20;
/// Zeros of this length and alignment are left out: the disk is new.
const HOLE_BYTES: usize = 4096;

fn copy_failed(error: &std::io::Error) -> Failure {
    Failure::of_code("copy_failed", error.to_string())
}

/// Fills a new disk from standard input; it gets as large as what was read, unless its size is given.
pub(super) async fn import(
    transfer: &Transfer<'_>,
    name: &VmName,
    export: &str,
    bytes: Option<u64>,
    counter: &Arc<Counter>,
) -> Result<(), Failure> {
    let (_, disk) = export.split_once('/').unwrap_or(("", export));
    let mut at = 0_u64;
    let mut size = bytes.unwrap_or(DISK_BYTES_MIN);
    loop {
        let chunk =
            blocking(&transfer.rt, "standard input", || read_chunk(std::io::stdin().lock())).await??;
        if chunk.is_empty() {
            return Ok(());
        }
        let end = at + chunk.len() as u64;
        if end > size && bytes.is_some() {
            let message = format!("standard input has more than the {} of --size", format_size(size));
            return Err(Failure::of_code("copy_failed", message));
        }
        if end > size {
            size = end.next_multiple_of(SECTOR);
            let change = ChangeDisk { bytes: size, shrink: false };
            transfer
                .client
                .change_disk(name.as_str(), disk, &change)
                .await
                .map_err(|error| transfer.failed(error))?;
        }
        let (socket, export) = (transfer.socket.clone(), export.to_owned());
        let written =
            blocking(&transfer.rt, "disk", move || write_chunk(&socket, &export, at, &chunk)).await?;
        written.map_err(|error| copy_failed(&error))?;
        at = end;
        counter.set(at, bytes.unwrap_or(at));
    }
}

/// As much as a chunk holds; less at the end of the input only.
fn read_chunk(mut input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut chunk = Vec::new();
    let read = input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
    read.map_err(|error| Failure::of_code("copy_failed", format!("standard input: {error}")))?;
    Ok(chunk)
}

fn write_chunk(socket: &Path, export: &str, at: u64, chunk: &[u8]) -> std::io::Result<()> {
    // Opened for each chunk: a connection knows the size that the disk had when it began.
    let mut connection = Connection::open(socket, export)?;
    for (start, end) in data_runs(chunk) {
        connection.write(at + start as u64, &chunk[start..end])?;
    }
    connection.settle()
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

/// Writes a disk to standard output.
pub(super) async fn export(
    transfer: &Transfer<'_>,
    export: &str,
    counter: &Arc<Counter>,
) -> Result<(), Failure> {
    let (socket, export): (PathBuf, String) = (transfer.socket.clone(), export.to_owned());
    let counter = counter.clone();
    blocking(&transfer.rt, "standard output", move || read_out(&socket, &export, &counter)).await?
}

fn read_out(socket: &Path, export: &str, counter: &Counter) -> Result<(), Failure> {
    let mut connection = Connection::open(socket, export).map_err(|error| copy_failed(&error))?;
    let size = connection.size();
    let mut out = std::io::stdout().lock();
    let mut at = 0;
    while at < size {
        let mut lengths = Vec::new();
        let mut end = at;
        while end < size && lengths.len() < WINDOW {
            let length = (size - end).min(REQUEST_BYTES as u64);
            lengths.push(length as u32);
            end += length;
        }
        for piece in connection.read(at, &lengths).map_err(|error| copy_failed(&error))? {
            out.write_all(&piece)
                .map_err(|error| Failure::failed("output", format!("standard output: {error}")))?;
        }
        at = end;
        counter.set(at, size);
    }
    out.flush().map_err(|error| Failure::failed("output", format!("standard output: {error}")))
}
