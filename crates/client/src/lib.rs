//! The client of the management interface: a connection to the server's unix socket for each call.
//!
//! Invariants: every call ends within its limit. What a server says is bounded in bytes and believed in nothing but its types.
//!
//! Crash rules: none of its own. A call without an answer may have been done or not.
//!
//! What it does not do: no retries, nothing of the engine.
#![forbid(unsafe_code)]

mod files;
mod groups;
mod media;
mod snapshots;
mod trash;
mod upkeep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Problem;
use api::types::{
    AddDisk, AttachInfo, Begun, ChangeAttributes, ChangeDisk, ChangeVm, CreateVm, Definition, GiveUp, List,
    ListVms, Medium, NewExport, NewImport, Progress, Status, Task, TaskKind, Vm, VmSummary,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use seam::Rt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use snapshots::also;
use tokio::net::UnixStream;

/// Longest answer taken, bytes: ten thousand VMs are 2 MB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientErrorKind {
    /// Nobody listens on the socket.
    NotRunning,
    /// This user may not open the socket.
    Denied,
    /// No answer in time; what was asked may be done or not.
    TimedOut,
    /// The server refused.
    Refused(Box<Problem>),
    /// What came back is no answer of this interface.
    Protocol,
}

/// A call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct ClientError {
    /// What to do about it.
    pub kind: ClientErrorKind,
    /// What happened.
    pub reason: String,
}

impl ClientError {
    fn new(kind: ClientErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    fn protocol(reason: impl ToString) -> Self {
        Self::new(ClientErrorKind::Protocol, reason.to_string())
    }
}

/// Result of a call.
type Result<T> = std::result::Result<T, ClientError>;

/// Speaks to the server on a unix socket; a connection for each call.
#[derive(Clone)]
pub struct Client {
    rt: Rt,
    socket: PathBuf,
    limit: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.socket.display())
    }
}

impl Client {
    /// A client of the server at `socket`; a call takes no longer than `limit`.
    pub fn new(rt: Rt, socket: &Path, limit: Duration) -> Self {
        Self { rt, socket: socket.to_owned(), limit }
    }

    /// How the site is.
    ///
    /// # Errors
    /// See [`ClientErrorKind`]; so for every call.
    pub async fn status(&self) -> Result<Status> {
        self.call(Method::GET, "status", None::<&()>).await
    }

    /// The VMs that `which` asks for, by name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn vms(&self, which: &ListVms) -> Result<List<VmSummary>> {
        let mut path = "vms?".to_owned();
        let asked =
            [("name", &which.name), ("tag", &which.tag), ("folder", &which.folder), ("label", &which.label)];
        asked.into_iter().for_each(|(key, value)| also(&mut path, key, value.as_deref()));
        self.call(Method::GET, &path, None::<&()>).await
    }

    /// Changes the folder, tags and labels of a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn change_attributes(&self, name: &str, change: &ChangeAttributes) -> Result<Vm> {
        self.call(Method::PATCH, &format!("{}/attributes", vm_path(name)), Some(change)).await
    }

    /// A VM by name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn vm(&self, name: &str) -> Result<Vm> {
        self.call(Method::GET, &vm_path(name), None::<&()>).await
    }

    /// Makes a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn create_vm(&self, new: &CreateVm) -> Result<Vm> {
        self.call(Method::POST, "vms", Some(new)).await
    }

    /// Gives a VM another name.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn rename_vm(&self, name: &str, new: &str) -> Result<Vm> {
        let change = ChangeVm { name: new.to_owned() };
        self.call(Method::PATCH, &vm_path(name), Some(&change)).await
    }

    /// Adds a disk to a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn add_disk(&self, name: &str, new: &AddDisk) -> Result<Vm> {
        self.call(Method::POST, &format!("{}/disks", vm_path(name)), Some(new)).await
    }

    /// Removes a disk with its data.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn remove_disk(&self, name: &str, disk: &str) -> Result<()> {
        self.call(Method::DELETE, &disk_path(name, disk), None::<&()>).await
    }

    /// Changes the size of a disk.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn change_disk(&self, name: &str, disk: &str, change: &ChangeDisk) -> Result<Vm> {
        self.call(Method::PATCH, &disk_path(name, disk), Some(change)).await
    }

    /// How a guest gets a disk.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn attach_info(&self, name: &str, disk: &str) -> Result<AttachInfo> {
        self.call(Method::GET, &format!("{}/attach", disk_path(name, disk)), None::<&()>).await
    }

    /// The text stored with a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn definition(&self, name: &str) -> Result<Definition> {
        self.call(Method::GET, &format!("{}/definition", vm_path(name)), None::<&()>).await
    }

    /// Stores a text with a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn set_definition(&self, name: &str, definition: &Definition) -> Result<()> {
        self.call(Method::PUT, &format!("{}/definition", vm_path(name)), Some(definition)).await
    }

    /// The media, in the site's order.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn media(&self) -> Result<List<Medium>> {
        self.call(Method::GET, "media", None::<&()>).await
    }

    /// Running tasks and those of the past that are remembered, the newest first.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn tasks(&self) -> Result<List<Task>> {
        self.call(Method::GET, "tasks", None::<&()>).await
    }

    /// A task by its number.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn task(&self, id: u64) -> Result<Task> {
        self.call(Method::GET, &format!("tasks/{id}"), None::<&()>).await
    }

    /// Ends a task that is not wanted any more.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn cancel_task(&self, id: u64) -> Result<Task> {
        self.call(Method::DELETE, &format!("tasks/{id}"), None::<&()>).await
    }

    /// Makes a VM that is being imported.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn begin_import(&self, new: &NewImport) -> Result<Begun> {
        self.call(Method::POST, "imports", Some(new)).await
    }

    /// Makes a task for reading disks of a VM.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn begin_export(&self, new: &NewExport) -> Result<Begun> {
        self.call(Method::POST, "exports", Some(new)).await
    }

    /// Says how far a task is, and that its client lives; the answer says whether it still runs.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn progress(&self, kind: TaskKind, id: u64, progress: &Progress) -> Result<Task> {
        self.call(Method::PUT, &work_path(kind, id), Some(progress)).await
    }

    /// Ends a task well.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn finish(&self, kind: TaskKind, id: u64) -> Result<Task> {
        self.call(Method::POST, &format!("{}/finish", work_path(kind, id)), None::<&()>).await
    }

    /// Ends a task that its client could not do.
    ///
    /// # Errors
    /// See [`ClientErrorKind`].
    pub async fn give_up(&self, kind: TaskKind, id: u64, why: &GiveUp) -> Result<Task> {
        self.call(Method::POST, &format!("{}/fail", work_path(kind, id)), Some(why)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        match seam::timeout(&*self.rt, self.limit, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(seam::Elapsed) => {
                let reason =
                    format!("no answer within {} s on {}", self.limit.as_secs_f64(), self.socket.display());
                Err(ClientError::new(ClientErrorKind::TimedOut, reason))
            }
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::PermissionDenied => ClientErrorKind::Denied,
                _ => ClientErrorKind::NotRunning,
            };
            ClientError::new(kind, format!("{}: {error}", self.socket.display()))
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::protocol)?;
        let task = async move {
            // Its failure is the request's too.
            let _ = connection.await;
        };
        self.rt.spawn("api client", Box::pin(task));
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body).map_err(ClientError::protocol)?),
            None => Bytes::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))
            .map_err(ClientError::protocol)?;
        let (head, body) = sender.send_request(request).await.map_err(ClientError::protocol)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(ClientError::protocol)?;
        decode(head.status, &body.to_bytes())
    }
}

/// Reads an answer.
pub(crate) fn decode<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T> {
    if status.is_success() {
        let body = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(body)
            .map_err(|error| ClientError::protocol(format!("an answer that is none: {error}")));
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let reason = problem.detail.clone();
            Err(ClientError::new(ClientErrorKind::Refused(Box::new(problem)), reason))
        }
        Err(_) => Err(ClientError::protocol(format!("status {status} without a reason"))),
    }
}

/// The path of a VM. What no name can hold is escaped, so that the server refuses the name, not the path.
pub(crate) fn vm_path(name: &str) -> String {
    format!("vms/{}", escaped(name))
}

fn disk_path(name: &str, disk: &str) -> String {
    format!("{}/disks/{}", vm_path(name), escaped(disk))
}

fn work_path(kind: TaskKind, id: u64) -> String {
    match kind {
        TaskKind::Import => format!("imports/{id}"),
        TaskKind::Export => format!("exports/{id}"),
        // Work of the server: nobody else tells how far it is.
        _ => format!("tasks/{id}"),
    }
}

fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    use api::types::{
        Begun, Changes, Group, GroupChange, List, Outlook, Point, Points, RestoredVms, Reverted, Snapshots,
        Status, Task, Trash, Vm, VmSummary,
    };
    use hyper::StatusCode;

    use crate::decode;

    /// Decodes `input` as the body of each answer, sound or refused, and as a VM's name that goes into a path.
    pub fn fuzz_body(input: &[u8]) {
        let _ = decode::<(Begun, List<Task>)>(StatusCode::OK, input);
        let _ = decode::<(Snapshots, Changes, Reverted)>(StatusCode::OK, input);
        let _ = decode::<Trash>(StatusCode::OK, input);
        let _ = decode::<(List<Group>, GroupChange, List<Outlook>)>(StatusCode::OK, input);
        let _ = decode::<(Points, Point, RestoredVms)>(StatusCode::OK, input);
        let _ = decode::<Status>(StatusCode::OK, input);
        let _ = decode::<List<VmSummary>>(StatusCode::OK, input);
        let _ = decode::<Vm>(StatusCode::CREATED, input);
        let _ = decode::<()>(StatusCode::NO_CONTENT, input);
        let _ = decode::<Vm>(StatusCode::CONFLICT, input);
        if let Ok(name) = std::str::from_utf8(input) {
            let path = crate::vm_path(name);
            assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "a path is plain ASCII: {path:?}");
        }
    }
}
