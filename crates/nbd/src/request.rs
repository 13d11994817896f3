//! One request: what it asks for, whether it may, and what the device answers.

use std::sync::Arc;

use bytes::Bytes;

use crate::device::{Context, Device, DeviceError, DeviceErrorKind, Extent};
use crate::proto::{self, MAX_REQUEST, Request, cmd, cmd_flag, errno, export_flag};
use crate::reply::{Answer, Piece};

/// Extents in one block status reply, at most: 32 KiB of reply. A client asks again for the rest.
const MAX_EXTENTS: usize = 4096;
/// Zeros inside a READ are found in steps of this many bytes, a block.
const ZERO_STEP: usize = 4096;
/// Fewer zeros than this inside a READ are sent as data: a chunk more costs the client more than the copy.
const MIN_HOLE: usize = 64 << 10;

/// What was agreed on in the hand-shake.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    /// Structured replies.
    pub(crate) structured: bool,
    /// The metadata context `base:allocation`.
    pub(crate) allocation: bool,
    /// Other metadata contexts.
    pub(crate) contexts: bool,
}

/// The metadata contexts that were agreed on besides `base:allocation`, in the order of their numbers; `None` for none.
pub(crate) type Contexts = Option<Arc<[Arc<dyn Context>]>>;

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) size: u64,
    pub(crate) read_only: bool,
    pub(crate) zeroes_are_fast: bool,
}

impl Facts {
    /// The facts of a device as it is now.
    pub(crate) fn of(device: &dyn Device) -> Self {
        Self { size: device.size(), read_only: device.read_only(), zeroes_are_fast: device.zeroes_are_fast() }
    }

    /// The transmission flags that tell them to a client.
    pub(crate) fn export_flags(self) -> u16 {
        let mut flags = export_flag::HAS_FLAGS
            | export_flag::SEND_FLUSH
            | export_flag::SEND_FUA
            | export_flag::SEND_TRIM
            | export_flag::SEND_WRITE_ZEROES
            | export_flag::SEND_DF
            | export_flag::CAN_MULTI_CONN
            | export_flag::SEND_CACHE;
        if self.read_only {
            flags |= export_flag::READ_ONLY;
        }
        if self.zeroes_are_fast {
            flags |= export_flag::SEND_FAST_ZERO;
        }
        flags
    }
}

/// A request refused before it reached the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: u32,
    pub(crate) text: &'static str,
}

/// A checked request. Offsets and lengths are bytes within the device, lengths not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    Read { offset: u64, length: u32, one_chunk: bool },
    Write { offset: u64, length: u32, fua: bool },
    Flush,
    Trim { offset: u64, length: u32, fua: bool },
    Cache,
    WriteZeroes { offset: u64, length: u32, may_punch: bool, fua: bool },
    Status { offset: u64, length: u32, one: bool },
}

impl Plan {
    /// Bytes of data the request holds, at most, until its reply is out.
    pub(crate) fn cost(self) -> usize {
        match self {
            Self::Read { length, .. } | Self::Write { length, .. } => length as usize,
            Self::Status { .. } => MAX_EXTENTS * size_of::<Extent>(),
            Self::Flush | Self::Trim { .. } | Self::Cache | Self::WriteZeroes { .. } => 0,
        }
    }
}

/// Checks a request. The payload of a refused WRITE follows all the same.
pub(crate) fn check(request: &Request, facts: Facts, terms: Terms) -> Result<Plan, Refusal> {
    let refuse = |error, text| Err(Refusal { error, text });
    // FUA is valid with every command, and means nothing where nothing is written.
    let known = match request.command {
        cmd::READ if terms.structured => cmd_flag::DF,
        cmd::READ | cmd::WRITE | cmd::FLUSH | cmd::TRIM | cmd::CACHE => 0,
        cmd::WRITE_ZEROES if facts.zeroes_are_fast => cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO,
        cmd::WRITE_ZEROES => cmd_flag::NO_HOLE,
        cmd::BLOCK_STATUS => cmd_flag::REQ_ONE,
        _ => return refuse(errno::EINVAL, "unknown command"),
    };
    let has = |flag| request.flags & flag != 0;
    if has(!(known | cmd_flag::FUA)) {
        return refuse(errno::EINVAL, "flag not valid with this command");
    }
    let Request { command, offset, length, .. } = *request;
    if command == cmd::FLUSH {
        return if offset == 0 && length == 0 {
            Ok(Plan::Flush)
        } else {
            refuse(errno::EINVAL, "a flush has no offset and no length")
        };
    }
    if facts.read_only && matches!(command, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES) {
        return refuse(errno::EPERM, "the export is read-only");
    }
    if length == 0 {
        return refuse(errno::EINVAL, "length 0");
    }
    if length > MAX_REQUEST && matches!(command, cmd::READ | cmd::WRITE) {
        return refuse(errno::EINVAL, "longer than the maximum block size");
    }
    if offset.checked_add(u64::from(length)).is_none_or(|end| end > facts.size) {
        let grows = matches!(command, cmd::WRITE | cmd::WRITE_ZEROES);
        return refuse(if grows { errno::ENOSPC } else { errno::EINVAL }, "past the end of the export");
    }
    let fua = has(cmd_flag::FUA);
    Ok(match command {
        cmd::READ => Plan::Read { offset, length, one_chunk: has(cmd_flag::DF) },
        cmd::WRITE => Plan::Write { offset, length, fua },
        cmd::TRIM => Plan::Trim { offset, length, fua },
        cmd::CACHE => Plan::Cache,
        cmd::WRITE_ZEROES => Plan::WriteZeroes { offset, length, may_punch: !has(cmd_flag::NO_HOLE), fua },
        _ if !terms.allocation && !terms.contexts => {
            return refuse(errno::EINVAL, "no metadata context was negotiated");
        }
        _ => Plan::Status { offset, length, one: has(cmd_flag::REQ_ONE) },
    })
}

/// The answer to a refused request.
pub(crate) fn refused(refusal: Refusal, terms: Terms) -> Answer {
    failed(refusal.error, terms, || refusal.text.to_owned())
}

fn failed(error: u32, terms: Terms, text: impl FnOnce() -> String) -> Answer {
    if terms.structured { Answer::Explained(error, text()) } else { Answer::Failed(error) }
}

/// Runs a checked request on the device. `payload` is the data of a WRITE. `None` when the device is served elsewhere.
pub(crate) async fn run(
    device: Arc<dyn Device>,
    contexts: Contexts,
    plan: Plan,
    payload: Bytes,
    terms: Terms,
) -> Option<Answer> {
    match attempt(&*device, &contexts, plan, payload, terms).await {
        Ok(answer) => Some(answer),
        Err(error) => Some(failed(error_number(error.kind)?, terms, || error.reason)),
    }
}

async fn attempt(
    device: &dyn Device,
    contexts: &Contexts,
    plan: Plan,
    payload: Bytes,
    terms: Terms,
) -> Result<Answer, DeviceError> {
    let durable = match plan {
        Plan::Read { offset, length, one_chunk } => {
            let data = device.read(offset, length as usize).await?;
            if data.len() != length as usize {
                return Err(broken("a read of another length than asked for"));
            }
            return Ok(if terms.structured { pieces(offset, data, one_chunk) } else { Answer::Data(data) });
        }
        Plan::Status { offset, length, one } => {
            let contexts = contexts.as_deref().unwrap_or_default();
            let count = contexts.len() + usize::from(terms.allocation);
            let limit = if one { 1 } else { MAX_EXTENTS / count.max(1) };
            let mut told = Vec::with_capacity(count);
            if terms.allocation {
                let extents = device.extents(offset, u64::from(length), limit).await?;
                let states = extents.iter().map(|extent| (extent.length, state_of(extent)));
                told.push((proto::ALLOCATION_CONTEXT, status(states, length, limit)));
            }
            for (number, context) in (proto::FIRST_CONTEXT..).zip(contexts) {
                let extents = context.status(offset, u64::from(length), limit).await?;
                told.push((number, status(extents.into_iter(), length, limit)));
            }
            return if told.iter().any(|(_, extents)| extents.is_empty()) {
                Err(broken("no extent for a range within the device"))
            } else {
                Ok(Answer::Status(told))
            };
        }
        Plan::Write { offset, fua, .. } => {
            device.write(offset, payload).await?;
            fua
        }
        Plan::Trim { offset, length, fua } => {
            device.trim(offset, u64::from(length)).await?;
            fua
        }
        Plan::WriteZeroes { offset, length, may_punch, fua } => {
            device.write_zeroes(offset, u64::from(length), may_punch).await?;
            fua
        }
        Plan::Flush => true,
        // A hint; what was read before is in the cache already.
        Plan::Cache => false,
    };
    if durable {
        device.flush().await?;
    }
    Ok(Answer::Done)
}

/// The device broke its contract.
fn broken(what: &str) -> DeviceError {
    DeviceError { kind: DeviceErrorKind::Io, reason: format!("the device gave {what}") }
}

fn error_number(kind: DeviceErrorKind) -> Option<u32> {
    match kind {
        DeviceErrorKind::Io => Some(errno::EIO),
        DeviceErrorKind::NoSpace => Some(errno::ENOSPC),
        DeviceErrorKind::Invalid => Some(errno::EINVAL),
        DeviceErrorKind::NotPermitted => Some(errno::EPERM),
        DeviceErrorKind::ShuttingDown => Some(errno::ESHUTDOWN),
        DeviceErrorKind::NoMemory => Some(errno::ENOMEM),
        DeviceErrorKind::Moved => None,
    }
}

/// An extent's state as `base:allocation` has it.
fn state_of(extent: &Extent) -> u32 {
    let hole = if extent.hole { proto::STATE_HOLE } else { 0 };
    hole | if extent.zero { proto::STATE_ZERO } else { 0 }
}

/// Extents as descriptors: neighbours of one state joined, cut at `length` bytes and at `limit` descriptors.
fn status(extents: impl Iterator<Item = (u64, u32)>, length: u32, limit: usize) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut rest = length;
    for (bytes, state) in extents {
        let covered = u32::try_from(bytes).unwrap_or(u32::MAX).min(rest);
        rest -= covered;
        let full = found.len() == limit;
        match found.last_mut() {
            _ if covered == 0 => {}
            Some((known, same)) if *same == state => *known += covered,
            _ if full => break,
            _ => found.push((covered, state)),
        }
    }
    found
}

/// Cuts data into chunks: zeros go out as holes where that pays.
fn pieces(offset: u64, data: Bytes, one_chunk: bool) -> Answer {
    if is_zero(&data) {
        let zeros = u32::try_from(data.len()).expect("a READ is at most 32 MiB");
        return Answer::Chunks { offset, first: Piece::Zeros(zeros), rest: Vec::new() };
    }
    if one_chunk || data.len() < MIN_HOLE {
        return Answer::Chunks { offset, first: Piece::Data(data), rest: Vec::new() };
    }
    let mut found = Vec::new();
    let mut done = 0;
    for hole in holes(offset, &data) {
        if hole.start > done {
            found.push(Piece::Data(data.slice(done..hole.start)));
        }
        found.push(Piece::Zeros(u32::try_from(hole.len()).expect("a READ is at most 32 MiB")));
        done = hole.end;
    }
    if done < data.len() {
        found.push(Piece::Data(data.slice(done..)));
    }
    let first = found.remove(0);
    Answer::Chunks { offset, first, rest: found }
}

/// Runs of whole zero blocks, each at least [`MIN_HOLE`] bytes. At most one per [`MIN_HOLE`], so 512 in a READ.
fn holes(offset: u64, data: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let misaligned = (offset % ZERO_STEP as u64) as usize;
    let mut at = (ZERO_STEP - misaligned) % ZERO_STEP;
    let mut run = at;
    while at + ZERO_STEP <= data.len() {
        let zero = is_zero(&data[at..at + ZERO_STEP]);
        if !zero && at - run >= MIN_HOLE {
            found.push(run..at);
        }
        at += ZERO_STEP;
        if !zero {
            run = at;
        }
    }
    if at.min(data.len()).saturating_sub(run) >= MIN_HOLE {
        found.push(run..at);
    }
    found
}

/// Whether all bytes are 0. In strides, so that the compiler uses wide instructions and data stops it early.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|stride| stride.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests;
