//! Disks as NBD exports: `VM/DISK`, and `VM@SNAPSHOT/DISK` to read; files in the same way, to read; what an export reads as
//! `VM/DISK:TASK`. Lists leave out snapshots, of which there may be millions, and what tasks have.
//!
//! What changed on an export is told as a metadata context: `holdfast:changed-since:SNAPSHOT` compares it with its own disk
//! at a snapshot of its VM, `holdfast:changed-since:VM@SNAPSHOT/DISK` with any. State 1 is changed, 0 is the same (R126).

use std::sync::Arc;

use api::{Error, ErrorKind, Version, VmName};
use bytes::Bytes;
use engine::{Engine, EngineError, EngineErrorKind, OpenDisk};
use nbd::{
    Context, Device, DeviceError, DeviceErrorKind, ExportInfo, Exports, Extent, OpenError, OpenErrorKind,
};
use seam::BoxFuture;
use units::DiskId;

use crate::catalog::Catalog;
use crate::uses::{InUse, Passing};

impl Exports for Catalog {
    fn list(&self) -> BoxFuture<'_, Vec<ExportInfo>> {
        Box::pin(async move {
            let records = self.records().await.unwrap_or_else(|error| {
                tracing::error!(%error, "exports cannot be listed");
                Vec::new()
            });
            let names = records
                .iter()
                .filter(|(_, record)| record.import.is_none())
                .flat_map(|(vm, record)| record.whole().map(move |disk| format!("{vm}/{}", disk.name)));
            names.map(|name| ExportInfo { name, description: String::new() }).collect()
        })
    }

    fn open(&self, name: &str) -> BoxFuture<'_, Result<Arc<dyn Device>, OpenError>> {
        let name = name.to_owned();
        Box::pin(async move {
            let disk = self.export(&name).await?;
            Ok(Arc::new(disk) as Arc<dyn Device>)
        })
    }

    fn contexts(&self, export: &str, prefix: &str, limit: usize) -> BoxFuture<'_, Vec<String>> {
        let (export, prefix) = (export.to_owned(), prefix.to_owned());
        Box::pin(async move {
            if !CHANGED_SINCE.starts_with(&prefix) {
                return Vec::new();
            }
            let found = self.snapshots_with_disk_of(&export, limit).await;
            found.into_iter().map(|snapshot| format!("{CHANGED_SINCE}{snapshot}")).collect()
        })
    }

    fn open_context(
        &self,
        export: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Option<Arc<dyn Context>>, OpenError>> {
        let (export, name) = (export.to_owned(), name.to_owned());
        Box::pin(async move {
            let Some(since) = name.strip_prefix(CHANGED_SINCE) else { return Ok(None) };
            let Some((version, disk)) = parts(&export) else { return Ok(None) };
            let since = match parts(since) {
                Some(_) => since.to_owned(),
                None => format!("{}@{since}/{disk}", version.vm),
            };
            // Of a VM as it is now nothing can be said since when.
            if parts(&since).is_none_or(|(since, _)| since.snapshot.is_none()) {
                return Ok(None);
            }
            let old = match self.export(&since).await {
                Ok(old) => old,
                Err(error) if error.kind == OpenErrorKind::Unknown => return Ok(None),
                Err(error) => return Err(error),
            };
            let new = self.export(&export).await?;
            Ok(Some(Arc::new(ChangedSince { old, new }) as Arc<dyn Context>))
        })
    }
}

/// What names of metadata contexts that tell of changes begin with.
const CHANGED_SINCE: &str = "holdfast:changed-since:";
/// State of what changed.
const CHANGED: u32 = 1;

/// What changed on a disk since a snapshot. Both stay as long as a client has this.
struct ChangedSince {
    old: ExportedDisk,
    new: ExportedDisk,
}

impl Context for ChangedSince {
    fn status(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, u32)>, DeviceError>> {
        Box::pin(async move {
            let _passing = (self.old.pass()?, self.new.pass()?);
            let found = self.new.engine.diff(Some(self.old.id), self.new.id, offset, length, limit).await;
            let found = found.map_err(device_error)?;
            // Behind the last of a full answer nothing is known.
            let known = match found.last() {
                Some(last) if found.len() >= limit => last.offset + last.length,
                _ => offset + length,
            };
            let mut told = Vec::new();
            let mut at = offset;
            for changed in found {
                let (start, end) = (changed.offset.max(offset), changed.offset + changed.length);
                if start > at {
                    told.push((start - at, 0));
                }
                if end > start {
                    told.push((end - start, CHANGED));
                }
                at = end.max(at);
            }
            if known > at {
                told.push((known - at, 0));
            }
            Ok(told)
        })
    }
}

impl Catalog {
    /// Snapshots of the export's VM, by name, at most `limit`.
    async fn snapshots_with_disk_of(&self, export: &str, limit: usize) -> Vec<String> {
        let Some((version, disk)) = parts(export) else { return Vec::new() };
        let mut found = Vec::new();
        let mut after = None;
        while found.len() < limit {
            let Ok(page) = self.snapshots(Some(&version.vm), after.as_ref(), limit).await else { break };
            let Some(last) = page.last() else { break };
            let Ok(name) = VmName::parse(&last.name) else { break };
            after = Some(Version { vm: version.vm.clone(), snapshot: Some(name) });
            let with_disk = page.iter().filter(|snapshot| snapshot.disks.iter().any(|it| it.name == disk));
            found.extend(with_disk.map(|snapshot| snapshot.name.clone()));
        }
        found.truncate(limit);
        found
    }

    async fn export(&self, name: &str) -> Result<ExportedDisk, OpenError> {
        let unknown = || {
            let reason = format!(
                "no export is named {name:?}; exports are named VM/DISK or VM@SNAPSHOT/DISK, as web01/disk0"
            );
            OpenError { kind: OpenErrorKind::Unknown, reason }
        };
        let (version, disk) = parts(name).ok_or_else(unknown)?;
        if let Some(snapshot) = &version.snapshot {
            return self.export_snapshot(&version.vm, snapshot, disk, unknown).await;
        }
        if self.running.fork(&version, disk).is_some() {
            return self.export_fork(&version, disk, unknown).await;
        }
        let vm = version.vm;
        let (_, record) = self.find(&vm).await.map_err(|error| refusal(&error))?;
        let id = record.disks.iter().find(|record| record.export() == disk).ok_or_else(unknown)?.id();
        let being_changed = || OpenError {
            kind: OpenErrorKind::Refused,
            reason: format!("{name} is being changed or deleted"),
        };
        let in_use = self.uses.open(id).ok_or_else(being_changed)?;
        // Looked at behind the guard: from here on the disk keeps its place and its name.
        let (_, record) = self.find(&vm).await.map_err(|error| refusal(&error))?;
        let found = record.disks.iter().find(|record| record.export() == disk && record.id() == id);
        let found = found.ok_or_else(unknown)?;
        let task = record.import.or(found.storing.map(|storing| storing.task));
        if task.is_some_and(|task| !self.running.holds(task)) {
            return Err(being_changed());
        }
        let read_only = !found.is_disk() && found.storing.is_none();
        let bytes = self.engine.disk_bytes(id).ok_or_else(unknown)?;
        let of_task = task.is_some() || self.running.exports(name);
        Ok(ExportedDisk {
            engine: self.engine.clone(),
            id,
            bytes,
            read_only,
            of_task,
            _unchanging: None,
            in_use,
        })
    }

    async fn export_snapshot(
        &self,
        vm: &VmName,
        name: &VmName,
        disk: &str,
        unknown: impl Fn() -> OpenError,
    ) -> Result<ExportedDisk, OpenError> {
        let find = async || {
            let (_, _, record) = self.find_snapshot(vm, name).await.map_err(|error| refusal(&error))?;
            record.disk(disk).ok_or_else(&unknown)
        };
        let (id, bytes) = find().await?;
        let being_changed = || OpenError {
            kind: OpenErrorKind::Refused,
            reason: format!("snapshot {vm}@{name} is being renamed or deleted"),
        };
        let in_use = self.uses.open(id).ok_or_else(being_changed)?;
        // Looked at behind the guard: from here on it keeps its place and its name.
        if find().await?.0 != id {
            return Err(unknown());
        }
        let of_task = self.running.exports(&format!("{vm}@{name}/{disk}"));
        self.to_read(id, bytes, of_task, in_use).await
    }

    /// What an export that runs made for itself.
    async fn export_fork(
        &self,
        version: &Version,
        disk: &str,
        unknown: impl Fn() -> OpenError,
    ) -> Result<ExportedDisk, OpenError> {
        let find = || self.running.fork(version, disk).ok_or_else(&unknown);
        let fork = find()?;
        let in_use = self.uses.open(fork.id()).ok_or_else(&unknown)?;
        // Looked at behind the guard: its task takes it away once it has ended.
        find()?;
        self.to_read(fork.id(), fork.bytes, true, in_use).await
    }

    /// A disk that never changes, and that may not be in RAM yet.
    async fn to_read(
        &self,
        id: DiskId,
        bytes: u64,
        of_task: bool,
        in_use: InUse,
    ) -> Result<ExportedDisk, OpenError> {
        let open = self.engine.open_disk(id).await.map_err(|error| refusal(&error.into()))?;
        Ok(ExportedDisk {
            engine: self.engine.clone(),
            id,
            bytes,
            read_only: true,
            of_task,
            _unchanging: Some(open),
            in_use,
        })
    }
}

/// The VM or snapshot and the name of its disk that an export's name stands for; `None` when it is neither `VM/DISK` nor
/// `VM@SNAPSHOT/DISK`.
pub(crate) fn parts(name: &str) -> Option<(Version, &str)> {
    let (version, disk) = Version::parse_with_disk(name).ok()?;
    Some((version, disk?))
}

fn refusal(error: &Error) -> OpenError {
    let kind = match error.kind() {
        ErrorKind::NotFound => OpenErrorKind::Unknown,
        ErrorKind::Unavailable => OpenErrorKind::ShuttingDown,
        _ => OpenErrorKind::Failed,
    };
    OpenError { kind, reason: error.reason.clone() }
}

/// A disk as an NBD client has it open.
struct ExportedDisk {
    engine: Engine,
    id: DiskId,
    /// Bytes when it was opened.
    bytes: u64,
    /// A snapshot's, an export's, or a file.
    read_only: bool,
    /// A task reads or writes it.
    of_task: bool,
    /// Keeps the disk in RAM, where one that never changes may not be.
    _unchanging: Option<OpenDisk>,
    in_use: InUse,
}

impl ExportedDisk {
    /// Begins a request.
    fn pass(&self) -> Result<Passing<'_>, DeviceError> {
        self.in_use.pass().ok_or_else(|| DeviceError {
            kind: DeviceErrorKind::Io,
            reason: "the disk was taken away: its task has ended".to_owned(),
        })
    }
}

pub(crate) fn device_error(error: EngineError) -> DeviceError {
    let kind = match error.kind {
        EngineErrorKind::NoSpace => DeviceErrorKind::NoSpace,
        EngineErrorKind::Invalid => DeviceErrorKind::Invalid,
        EngineErrorKind::Closed => DeviceErrorKind::Moved,
        EngineErrorKind::NotFound
        | EngineErrorKind::Exists
        | EngineErrorKind::TooFewMedia
        | EngineErrorKind::Lost
        | EngineErrorKind::Cancelled
        | EngineErrorKind::Held
        | EngineErrorKind::Format
        | EngineErrorKind::Bug
        | EngineErrorKind::Busy => DeviceErrorKind::Io,
    };
    DeviceError { kind, reason: error.reason }
}

impl Device for ExportedDisk {
    fn size(&self) -> u64 {
        self.engine.disk_bytes(self.id).unwrap_or(self.bytes)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn of_task(&self) -> bool {
        self.of_task
    }

    fn zeroes_are_fast(&self) -> bool {
        // A punch of whole blocks is one record; at most two blocks at its ends are written.
        true
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            let read = self.engine.read(self.id, offset, length).await;
            read.map(Bytes::from).map_err(device_error)
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            self.engine.write(self.id, offset, &data).await.map_err(device_error)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            self.engine.flush(self.id).await.map_err(device_error)
        })
    }

    fn trim(&self, offset: u64, length: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            self.engine.punch(self.id, offset, length, false).await.map_err(device_error)
        })
    }

    /// Room is never reserved, whether or not holes are welcome: zeros take none.
    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        _may_punch: bool,
    ) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            self.engine.punch(self.id, offset, length, true).await.map_err(device_error)
        })
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Extent>, DeviceError>> {
        Box::pin(async move {
            let _passing = self.pass()?;
            let extents = self.engine.extents(self.id, offset, length, limit).await.map_err(device_error)?;
            let shown = |extent: engine::Extent| Extent {
                length: extent.length,
                hole: !extent.mapped,
                zero: !extent.mapped,
            };
            Ok(extents.into_iter().map(shown).collect())
        })
    }
}
