//! Files of a VM.

use api::types::{Begun, ChangeFile, Disk, NewFile, Task, TaskKind, TaskState, Vm};
use client::{ClientError, ClientErrorKind};

use super::typed::{SOON, new_vm};
use super::{Bench, Fake, at_once, problem, task};
use crate::{Answer, Filing};

fn file(vm: &str, name: &str) -> Disk {
    Disk { name: name.to_owned(), export: format!("{vm}/{name}"), bytes: 0, used_bytes: Some(0), clients: 0 }
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer.unwrap_err().kind {
        ClientErrorKind::Refused(problem) => problem.code,
        other => panic!("{other:?}"),
    }
}

impl Filing for Fake {
    fn begin_file<'a>(&'a self, vm: &'a str, new: NewFile) -> Answer<'a, Begun> {
        let mut vms = self.vms.lock().unwrap();
        let Some(found) = vms.get_mut(vm) else { return at_once(Err(problem("vm_not_found"))) };
        if found.files.iter().any(|file| file.name == new.name) && !new.replace {
            return at_once(Err(problem("file_taken")));
        }
        found.files = vec![file(vm, &new.name)];
        let task = Task {
            target: format!("{vm}/{}", new.name),
            message: new.source,
            ..task(9, TaskKind::Import, TaskState::Running)
        };
        at_once(Ok(Begun { task, disks: found.files.clone() }))
    }

    fn change_file<'a>(&'a self, vm: &'a str, file: &'a str, change: ChangeFile) -> Answer<'a, Vm> {
        let mut vms = self.vms.lock().unwrap();
        let Some(found) = vms.get_mut(vm) else { return at_once(Err(problem("vm_not_found"))) };
        match found.files.iter_mut().find(|found| found.name == file) {
            Some(file) => file.bytes = change.bytes,
            None => return at_once(Err(problem("file_not_found"))),
        }
        at_once(Ok(found.clone()))
    }

    fn delete_file<'a>(&'a self, vm: &'a str, file: &'a str) -> Answer<'a, ()> {
        let mut vms = self.vms.lock().unwrap();
        let Some(found) = vms.get_mut(vm) else { return at_once(Err(problem("vm_not_found"))) };
        found.files.retain(|found| found.name != file);
        at_once(Ok(()))
    }
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        let new = |replace| NewFile { name: "A+b.iso".to_owned(), source: "here".to_owned(), replace };
        let begun = client.begin_file("a", &new(false)).await.unwrap();
        assert_eq!((begun.task.target.as_str(), begun.task.kind), ("a/A+b.iso", TaskKind::Import));
        assert_eq!(begun.disks[0].export, "a/A+b.iso");
        assert_eq!(code(client.begin_file("a", &new(false)).await), "file_taken");
        client.begin_file("a", &new(true)).await.unwrap();
        let vm = client.change_file("a", "A+b.iso", &ChangeFile { bytes: 5 }).await.unwrap();
        assert_eq!(vm.files[0].bytes, 5);
        assert_eq!(code(client.change_file("a", "/?", &ChangeFile { bytes: 5 }).await), "file_not_found");
        client.delete_file("a", "A+b.iso").await.unwrap();
        assert!(client.vm("a").await.unwrap().files.is_empty());
        assert_eq!(code(client.delete_file("b", "A+b.iso").await), "vm_not_found");
    });
}
