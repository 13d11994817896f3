//! What does the work behind files.

use api::types::{Begun, ChangeFile, NewFile, Vm};
use api::{FileName, VmName};
use site::Site;

use super::Answer;

/// Files of a VM.
pub trait Filing: Send + Sync + 'static {
    /// Makes an empty file that is being stored, with its task.
    fn begin_file<'a>(&'a self, vm: &'a str, new: NewFile) -> Answer<'a, Begun>;
    /// Makes a file that is being stored longer.
    fn change_file<'a>(&'a self, vm: &'a str, file: &'a str, change: ChangeFile) -> Answer<'a, Vm>;
    /// Deletes a file.
    fn delete_file<'a>(&'a self, vm: &'a str, file: &'a str) -> Answer<'a, ()>;
}

impl Filing for Site {
    fn begin_file<'a>(&'a self, vm: &'a str, new: NewFile) -> Answer<'a, Begun> {
        Box::pin(async move {
            let (vm, file) = (VmName::parse(vm)?, FileName::parse(&new.name)?);
            let (task, disk) = Self::begin_file(self, &vm, &file, &new.source, new.replace).await?;
            Ok(Begun { task, disks: vec![disk] })
        })
    }

    fn change_file<'a>(&'a self, vm: &'a str, file: &'a str, change: ChangeFile) -> Answer<'a, Vm> {
        Box::pin(async move {
            let (vm, file) = (VmName::parse(vm)?, FileName::parse(file)?);
            Ok(Self::grow_file(self, &vm, &file, change.bytes).await?)
        })
    }

    fn delete_file<'a>(&'a self, vm: &'a str, file: &'a str) -> Answer<'a, ()> {
        Box::pin(
            async move { Ok(Self::remove_file(self, &VmName::parse(vm)?, &FileName::parse(file)?).await?) },
        )
    }
}
