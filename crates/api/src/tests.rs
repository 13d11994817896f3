//! Goal: the interface answers every request, sound or not, as its types say.
//! Model: a backend in RAM behind the real server, asked by the real client and by raw bytes on the socket.

mod fuzz;
mod raw;
mod typed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use seam::{Rt, TokioRuntime};
use tempfile::TempDir;

use crate::types::{CreateVm, Disk, Geometry, Health, Status, Vm, VmSummary};
use crate::{Answer, Backend, Client, Problem, Server};

/// VMs in RAM.
#[derive(Default)]
struct Fake {
    vms: Mutex<BTreeMap<String, Vm>>,
    /// Set: answers to `status` and ends of changes wait.
    hangs: tokio::sync::watch::Sender<bool>,
}

impl Fake {
    async fn wait(&self) {
        self.hangs.subscribe().wait_for(|hangs| !hangs).await.unwrap();
    }
}

fn problem(status: StatusCode, code: &str) -> Problem {
    Problem::new(status, code, "why", "what next")
}

impl Backend for Fake {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            self.wait().await;
            Ok(Status {
                site: "0".repeat(32),
                health: Health::Degraded,
                reasons: vec!["a reason".to_owned()],
                notices: Vec::new(),
                writable: true,
                can_lose_now: 1,
                geometry: Some(Geometry { data: 4, parity: 2 }),
                vms: 0,
                logical_bytes: u64::MAX,
                unique_bytes: 2,
                stored_bytes: 3,
                raw_bytes: 4,
                raw_capacity_bytes: 5,
                usable_bytes: 6,
                buffered_bytes: 7,
                journal_used_percent: 8,
                faults: 9,
                repaired: 10,
                media: Vec::new(),
            })
        })
    }

    fn vms(&self) -> Answer<'_, Vec<VmSummary>> {
        let vms = self.vms.lock().unwrap();
        let summary = |vm: &Vm| VmSummary { name: vm.name.clone(), created_ms: 1, disks: 1, bytes: 2 };
        Box::pin(std::future::ready(Ok(vms.values().map(summary).collect())))
    }

    fn vm<'a>(&'a self, name: &'a str) -> Answer<'a, Vm> {
        let found = self.vms.lock().unwrap().get(name).cloned();
        let answer = found.ok_or_else(|| problem(StatusCode::NOT_FOUND, "vm_not_found"));
        Box::pin(std::future::ready(answer))
    }

    fn create_vm(&self, new: CreateVm) -> Answer<'_, Vm> {
        Box::pin(async move {
            self.wait().await;
            let mut vms = self.vms.lock().unwrap();
            if vms.contains_key(&new.name) {
                return Err(problem(StatusCode::CONFLICT, "vm_exists"));
            }
            let disk = Disk {
                name: "disk0".to_owned(),
                export: format!("{}/disk0", new.name),
                bytes: new.disks[0].bytes,
                used_bytes: 0,
                clients: 0,
            };
            let vm = Vm { name: new.name.clone(), created_ms: 1, disks: vec![disk] };
            vms.insert(new.name, vm.clone());
            Ok(vm)
        })
    }

    fn delete_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        let removed = self.vms.lock().unwrap().remove(name).map(drop);
        let answer = removed.ok_or_else(|| problem(StatusCode::NOT_FOUND, "vm_not_found"));
        Box::pin(std::future::ready(answer))
    }
}

/// A server over [`Fake`].
struct Bench {
    temp: TempDir,
    runtime: tokio::runtime::Runtime,
    fake: Arc<Fake>,
    server: Option<Server>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let mut bench = Self {
            temp: TempDir::new().unwrap(),
            runtime: runtime.unwrap(),
            fake: Arc::new(Fake::default()),
            server: None,
        };
        bench.server = Some(bench.start());
        bench
    }

    fn start(&self) -> Server {
        let _guard = self.runtime.enter();
        Server::start(self.rt(), self.fake.clone(), &self.socket()).unwrap()
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
