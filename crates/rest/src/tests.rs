//! Goal: the interface answers every request, sound or not, as its types say.
//! Model: a site of three small media behind the real server, asked by the real client and by raw bytes on the socket.

mod files;
mod fuzz;
mod groups;
pub(crate) mod hanging;
mod raw;
mod snapshots;
mod trash;
mod typed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use client::{Client, ClientError, ClientErrorKind};
use machine::{FileMedia, Options, Sizes};
use media::Backend;
use seam::{Rt, TokioRuntime};
use site::Site;
use tempfile::TempDir;

use crate::Server;

/// A server over a site.
struct Bench {
    runtime: tokio::runtime::Runtime,
    site: Site,
    budget: Budget,
    server: Option<Server>,
    /// Last, so that it goes when nothing uses it any more.
    temp: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (runtime, temp) = (runtime.unwrap(), TempDir::new().unwrap());
        let options = Options {
            backend: Backend::Sync,
            sizes: Sizes::Tiny,
            file_media: Some(FileMedia { count: 3, bytes: 16 << 20 }),
            default_points: false,
            ..Options::new(temp.path().join("d"))
        };
        let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
        let site = runtime.block_on(Site::start(rt, options)).unwrap().site;
        let mut bench = Self { runtime, site, budget: Budget::new(budget::BYTES_MIN), server: None, temp };
        bench.server = Some(bench.start());
        bench
    }

    fn start(&self) -> Server {
        let _guard = self.runtime.enter();
        Server::start(self.rt(), self.site.clone(), &self.socket(), self.budget.clone()).unwrap()
    }

    fn rt(&self) -> Rt {
        Arc::new(TokioRuntime::new(self.runtime.handle().clone()))
    }

    fn socket(&self) -> PathBuf {
        self.temp.path().join("api.sock")
    }

    fn client(&self, limit: Duration) -> Client {
        Client::new(self.rt(), &self.socket(), limit)
    }
}

/// The code of the problem that a call ends with, and what it says.
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (String, String) {
    match answer.unwrap_err().kind {
        ClientErrorKind::Refused(problem) => {
            assert!(!problem.detail.is_empty() && !problem.hint.is_empty(), "{problem:?}");
            (problem.code, problem.detail)
        }
        other => panic!("{other:?}"),
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    refused(answer).0
}
