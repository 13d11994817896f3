//! What does the work behind the interface.

use seam::BoxFuture;
use site::{Site, VmName};

use crate::problem::Problem;
use crate::types::{CreateVm, Disk, Geometry, Health, Medium, MediumState, Status, Vm, VmSummary};

/// Answer of a backend.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// What the interface offers, done.
pub trait Backend: Send + Sync + 'static {
    /// How the site is.
    fn status(&self) -> Answer<'_, Status>;
    /// Every VM, by name.
    fn vms(&self) -> Answer<'_, Vec<VmSummary>>;
    /// A VM by name.
    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm>;
    /// Makes a VM.
    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm>;
    /// Deletes a VM with its disks.
    fn delete_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
}

impl Backend for Site {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move { Ok(Self::status(self).await?.into()) })
    }

    fn vms(&self) -> Answer<'_, Vec<VmSummary>> {
        Box::pin(async move { Ok(Self::vms(self).await?.into_iter().map(VmSummary::from).collect()) })
    }

    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm> {
        Box::pin(async move { Ok(Self::vm(self, &VmName::parse(name)?).await?.into()) })
    }

    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm> {
        Box::pin(async move {
            let sizes: Vec<u64> = new.disks.iter().map(|disk| disk.bytes).collect();
            Ok(Self::create_vm(self, &VmName::parse(&new.name)?, &sizes).await?.into())
        })
    }

    fn delete_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { Ok(Self::delete_vm(self, &VmName::parse(name)?).await?) })
    }
}

impl From<site::Status> for Status {
    fn from(status: site::Status) -> Self {
        Self {
            site: status.site.to_string(),
            health: match status.health {
                site::Health::Ok => Health::Ok,
                site::Health::Degraded => Health::Degraded,
                site::Health::Failed => Health::Failed,
            },
            reasons: status.reasons,
            notices: status.notices,
            writable: status.writable,
            can_lose_now: status.can_lose_now,
            geometry: status.geometry.map(|(data, parity)| Geometry { data, parity }),
            vms: status.vms,
            logical_bytes: status.logical_bytes,
            unique_bytes: status.unique_bytes,
            stored_bytes: status.stored_bytes,
            raw_bytes: status.raw_bytes,
            raw_capacity_bytes: status.raw_capacity_bytes,
            usable_bytes: status.usable_bytes,
            buffered_bytes: status.buffered_bytes,
            journal_used_percent: status.journal_used_percent,
            faults: status.faults,
            repaired: status.repaired,
            media: status.media.into_iter().map(Medium::from).collect(),
        }
    }
}

impl From<site::MediumStatus> for Medium {
    fn from(medium: site::MediumStatus) -> Self {
        Self {
            id: medium.id.to_string(),
            path: medium.path.display().to_string(),
            bytes: medium.bytes,
            state: match medium.state {
                site::MediumState::Up => MediumState::Up,
                site::MediumState::Full => MediumState::Full,
                site::MediumState::Down => MediumState::Down,
            },
            reason: medium.reason,
        }
    }
}

impl From<site::VmSummary> for VmSummary {
    fn from(vm: site::VmSummary) -> Self {
        Self { name: vm.name, created_ms: vm.created_ms, disks: vm.disks, bytes: vm.bytes }
    }
}

impl From<site::Vm> for Vm {
    fn from(vm: site::Vm) -> Self {
        let disk = |disk: site::Disk| Disk {
            name: disk.name,
            export: disk.export,
            bytes: disk.bytes,
            used_bytes: disk.used_bytes,
            clients: disk.clients,
        };
        Self { name: vm.name, created_ms: vm.created_ms, disks: vm.disks.into_iter().map(disk).collect() }
    }
}
