//! Files of a VM.

use api::types::{ChangeFile, NewFile, TaskKind};

use super::typed::{SOON, new_vm};
use super::{Bench, code};

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        client.create_vm(&new_vm("a")).await.unwrap();
        let new = |replace| NewFile { name: "A+b.iso".to_owned(), source: "here".to_owned(), replace };
        let begun = client.begin_file("a", &new(false)).await.unwrap();
        assert_eq!((begun.task.target.as_str(), begun.task.kind), ("a/A+b.iso", TaskKind::Import));
        assert_eq!(begun.disks[0].export, format!("a/A+b.iso:{}", begun.task.id));
        client.change_file("a", "A+b.iso", &ChangeFile { bytes: 5 }).await.unwrap();
        client.finish(TaskKind::Import, begun.task.id).await.unwrap();
        assert_eq!(client.vm("a").await.unwrap().files[0].bytes, 5);
        assert_eq!(code(client.begin_file("a", &new(false)).await), "file_taken");
        let again = client.begin_file("a", &new(true)).await.unwrap();
        client.finish(TaskKind::Import, again.task.id).await.unwrap();
        assert_eq!(code(client.change_file("a", "/?", &ChangeFile { bytes: 5 }).await), "invalid_name");
        client.delete_file("a", "A+b.iso").await.unwrap();
        assert!(client.vm("a").await.unwrap().files.is_empty());
        assert_eq!(code(client.delete_file("b", "A+b.iso").await), "vm_not_found");
    });
}
