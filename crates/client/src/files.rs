//! Calls about files of a VM.

use api::types::{Begun, ChangeFile, NewFile, Vm};
use hyper::Method;

use super::{Client, Result, escaped, vm_path};

fn file_path(vm: &str, file: &str) -> String {
    format!("{}/files/{}", vm_path(vm), escaped(file))
}

impl Client {
    /// Makes an empty file that is being stored, with its task.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind); so for every call.
    pub async fn begin_file(&self, vm: &str, new: &NewFile) -> Result<Begun> {
        self.call(Method::POST, &format!("{}/files", vm_path(vm)), Some(new)).await
    }

    /// Makes a file that is being stored longer.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn change_file(&self, vm: &str, file: &str, change: &ChangeFile) -> Result<Vm> {
        self.call(Method::PATCH, &file_path(vm, file), Some(change)).await
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// See [`ClientErrorKind`](crate::ClientErrorKind).
    pub async fn delete_file(&self, vm: &str, file: &str) -> Result<()> {
        self.call(Method::DELETE, &file_path(vm, file), None::<&()>).await
    }
}
