//! The server of the management interface: REST over a unix socket.
//!
//! ```text
//!  /api/v1/openapi.json                 all of it, described
//!  /api/v1/status, media                how the site is
//!  /api/v1/vms, vms/{name}              VMs: list, make, show, rename, delete
//!  /api/v1/vms/{name}/attributes        its folder, tags and labels
//!  /api/v1/vms/{name}/definition        a text stored with a VM
//!  /api/v1/vms/{name}/disks, {disk}     add, resize, remove; {disk}/attach: how a guest gets it
//!  /api/v1/vms/{name}/snapshots         make; {snapshot}: show, rename, delete; {snapshot}/changes, hold
//!  /api/v1/vms/{name}/changes, revert   what changed since a snapshot; put a VM back to one
//!  /api/v1/snapshots, clones            those of all VMs; VMs that begin as another is
//!  /api/v1/trash, {id}, {id}/restore   what was deleted and is not gone yet
//!  /api/v1/tasks, tasks/{id}            long work: list, show, cancel
//!  /api/v1/imports, exports, {id}       work that a client does: begin, say how far it is, finish, fail, cancel
//! ```
//!
//! Vocabulary: a **problem** is an error as RFC 9457 has it, with a stable `code`, the cause in `detail` and the next
//! step in `hint`.
//!
//! Invariants: every answer that is no success is a problem. A connection carries one request, has a limit in time,
//! and its body one in bytes; connections at once are bounded, further clients wait. A change that was begun goes on to
//! its end even when its client leaves. The socket's mode is 0600: who may open it may do everything.
//!
//! Crash rules: none of its own. The socket appears by a rename, so that whoever sees it is answered; one that a
//! killed server left answers nobody.
//!
//! What it does not do: no users, no TLS, no TCP.
#![forbid(unsafe_code)]

mod description;
mod memory;
mod refused;
mod routes;
mod server;

pub use server::{REQUEST_TIME, Server};

/// Longest body of a request, bytes: a VM with all its disks is a hundredth of it.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest body with a definition, bytes: JSON takes two for each line's end and quote, and the text should be refused
/// for its own length.
pub(crate) const DEFINITION_BODY_BYTES_MAX: usize = 4 * api::DEFINITION_BYTES_MAX;

/// The description of the interface: OpenAPI 3.1, as JSON.
pub fn openapi() -> String {
    description::text(routes::description())
}

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    use api::types::{
        AddDisk, ChangeDisk, ChangeSnapshot, ChangeVm, CreateVm, Definition, GiveUp, HowToDelete,
        ListSnapshots, ListTrash, NewClone, NewExport, NewHold, NewImport, NewSnapshot, Progress, Restore,
        Revert, TrashSetting, WhichChanges,
    };

    /// Decodes `input` as the body of a request and as what stands behind its `?`.
    pub fn fuzz_body(input: &[u8]) {
        let _ = serde_json::from_slice::<CreateVm>(input);
        let _ = serde_json::from_slice::<(ChangeVm, ChangeDisk, Definition)>(input);
        let _ = serde_json::from_slice::<(NewImport, NewExport, Progress, GiveUp)>(input);
        let _ = serde_json::from_slice::<(AddDisk, NewSnapshot, ChangeSnapshot, Revert, NewClone)>(input);
        let _ = serde_json::from_slice::<(NewHold, Restore, TrashSetting)>(input);
        if let Ok(question) = std::str::from_utf8(input)
            && let Ok(uri) = format!("/?{question}").parse()
        {
            let _ = (crate::routes::asked::<ListSnapshots>(&uri), crate::routes::asked::<WhichChanges>(&uri));
            let _ = (crate::routes::asked::<ListTrash>(&uri), crate::routes::asked::<HowToDelete>(&uri));
        }
    }
}

#[cfg(test)]
mod tests;
