//! What an attempt at one member came to when it brought no answer, and what that says about the request.

use std::error::Error as _;

use meta::{Error, ErrorKind};
use tonic::{Code, Status};

/// Why an attempt brought no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// etcd answered that it will not: nothing was done, and no member would do it.
    Refused(Error),
    /// This member has not passed it on: nothing was done, another member may do it.
    Away(String),
    /// It may have been done, be done later, or neither.
    Lost(String),
    /// The answer is longer than is taken.
    TooLong,
    /// The lease exists already.
    Exists,
}

impl Fault {
    pub(crate) fn refused(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self::Refused(Error::new(kind, context))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(error) => error,
            Fault::Away(why) => Self::new(ErrorKind::Unavailable, why),
            Fault::Lost(why) => Self::new(ErrorKind::Unknown, why),
            Fault::TooLong => Self::new(ErrorKind::Corrupt, "etcd holds a longer value than any site writes"),
            Fault::Exists => {
                Self::new(ErrorKind::Unknown, "somebody else has a lease of the same random number")
            }
        }
    }
}

/// What etcd says when it refuses a request at the door, before Raft sees it. Its wording is part of its interface.
const NO_LEADER: &str = "etcdserver: no leader";
const TOO_MANY: &str = "etcdserver: too many requests";
/// Users changed between its arrival and its turn, when it was refused.
const USERS_CHANGED: &str = "etcdserver: revision of auth store is old";
/// What it says when it refuses a request for what it asks.
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const LEASE_EXISTS: &str = "etcdserver: lease already exists";
/// How the message codec begins when a message is longer than its limit.
const TOO_LONG: &str = "Error, decoded message length too large";

impl From<etcd_client::Error> for Fault {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => status.into(),
            etcd_client::Error::LeaseKeepAliveError(reason) => {
                Self::refused(ErrorKind::LeaseNotFound, reason)
            }
            other => Self::Lost(chain(&other)),
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let said = status.message();
        match (status.code(), said) {
            (_, NO_SPACE) => Self::refused(ErrorKind::Full, "the database of etcd is full"),
            (_, COMPACTED) => Self::refused(ErrorKind::Compacted, said),
            (_, FUTURE) => Self::refused(ErrorKind::Invalid, said),
            (_, LEASE_NOT_FOUND) => Self::refused(ErrorKind::LeaseNotFound, said),
            (_, LEASE_EXISTS) => Self::Exists,
            (_, NO_LEADER | TOO_MANY | USERS_CHANGED) => Self::Away(said.to_owned()),
            (Code::OutOfRange, _) if said.starts_with(TOO_LONG) => Self::TooLong,
            (Code::InvalidArgument, _) => Self::refused(ErrorKind::Invalid, said),
            (Code::PermissionDenied | Code::Unauthenticated, _) => {
                Self::refused(ErrorKind::Unavailable, format!("etcd does not let this node do that: {said}"))
            }
            (Code::DataLoss, _) => Self::refused(ErrorKind::Corrupt, said),
            _ if never_connected(&status) => Self::Away(chain(&status)),
            _ => Self::Lost(chain(&status)),
        }
    }
}

/// Whether there was no connection that the request could have gone out on.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests;
