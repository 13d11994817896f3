//! Both back ends on real files and devices, through the public face.
//!
//! Some tests mount file systems and attach loop devices: they need root, `mount`, `losetup`, `mkfs.ext4`; one needs
//! `strace`. Where these are missing the test fails and says so.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;

use media::{Backend, IN_FLIGHT_MAX, MediaError, MediaErrorKind, Medium, OpenOptions};
use proptest::prelude::*;
use tempfile::TempDir;
use units::{PAGE, PageBuf, PageSlice};

const BACKENDS: [Backend; 2] = [Backend::Ring, Backend::Sync];
const PAGES: u64 = 64;

fn page_at(page: u64) -> u64 {
    page * PAGE as u64
}

fn filled(byte: u8, pages: usize) -> PageSlice {
    PageBuf::copy_of(&vec![byte; pages * PAGE]).share()
}

fn created(path: &Path, backend: Backend, pages: u64) -> Arc<dyn Medium> {
    media::open(path, OpenOptions { create_size: Some(page_at(pages)), backend }).unwrap()
}

fn reopened(path: &Path, backend: Backend) -> Result<Arc<dyn Medium>, MediaError> {
    media::open(path, OpenOptions { create_size: None, backend })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

/// Runs a tool; on failure the test fails with what it needs.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        other => panic!(
            "{program} {arguments:?} failed (run the tests as root, with {program} installed): {other:?}"
        ),
    }
}

/// Undoes a mount or a loop device.
struct Undo(&'static str, Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(&self.1).status();
    }
}

fn mounted(arguments: &[&str], point: &Path) -> Undo {
    std::fs::create_dir(point).unwrap();
    let point = point.to_str().unwrap();
    tool("mount", &[arguments, &[point]].concat());
    Undo("umount", vec![point.to_owned()])
}

fn loop_device(file: &Path) -> (PathBuf, Undo) {
    let device = tool("losetup", &["--find", "--show", file.to_str().unwrap()]);
    (PathBuf::from(&device), Undo("losetup", vec!["--detach".into(), device]))
}

fn ext4_image(path: &Path, bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
    tool("mkfs.ext4", &["-q", path.to_str().unwrap()]);
}

/// Runs a future one step and drops it.
async fn start_and_drop<F: Future>(future: F) {
    // Tokio would now and then let it wait for the sake of others, without a start.
    let mut future = Box::pin(tokio::task::unconstrained(future));
    std::future::poll_fn(|cx| {
        let _ = future.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

#[derive(Debug, Clone)]
enum Action {
    Write { fill: u8 },
    WriteDurable { fill: u8 },
    Read,
    Prepare,
    Reserve,
    Discard,
}

fn actions() -> impl Strategy<Value = Vec<(usize, Action)>> {
    let action = prop_oneof![
        3 => any::<u8>().prop_map(|fill| Action::Write { fill }),
        2 => any::<u8>().prop_map(|fill| Action::WriteDurable { fill }),
        3 => Just(Action::Read),
        1 => Just(Action::Prepare),
        1 => Just(Action::Reserve),
        1 => Just(Action::Discard),
    ];
    // The stretches of one round lie behind each other, so all of it may run at once.
    prop::collection::vec((1_usize..6, action), 1..20)
}

/// Runs one action; gives what the stretch must hold now, or `None` when that is undefined.
async fn act(medium: &dyn Medium, at: u64, held: &[Option<u8>], action: &Action) -> Vec<Option<u8>> {
    let pages = held.len();
    match action {
        Action::Write { fill } => {
            medium.write(at, filled(*fill, pages)).await.unwrap();
            vec![Some(*fill); pages]
        }
        Action::WriteDurable { fill } => {
            medium.write_durable(at, filled(*fill, pages)).await.unwrap();
            vec![Some(*fill); pages]
        }
        Action::Prepare => {
            medium.prepare(at, page_at(pages as u64)).await.unwrap();
            vec![Some(0); pages]
        }
        Action::Reserve => {
            medium.reserve(at, page_at(pages as u64)).await.unwrap();
            held.to_vec()
        }
        Action::Discard => {
            medium.discard(at, page_at(pages as u64)).await.unwrap();
            vec![None; pages]
        }
        Action::Read => {
            let read = medium.read(at, pages * PAGE).await.unwrap();
            for (page, byte) in read.as_ref().chunks(PAGE).zip(held) {
                assert!(byte.is_none_or(|byte| page.iter().all(|found| *found == byte)));
            }
            held.to_vec()
        }
    }
}

async fn follow_model(medium: &dyn Medium, rounds: &[Vec<(usize, Action)>]) -> Vec<Option<u8>> {
    let mut model = vec![Some(0); PAGES as usize];
    for round in rounds {
        let mut at = 0;
        let mut running = Vec::new();
        for (pages, action) in round {
            let held = model[at..].iter().copied().take(*pages).collect::<Vec<_>>();
            let offset = page_at(at as u64);
            at += held.len();
            running.push(async move { act(medium, offset, &held, action).await });
        }
        let mut left = model.split_off(at);
        model = seam::join_all(running).await.into_iter().flatten().collect();
        model.append(&mut left);
        medium.sync().await.unwrap();
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done at once, a medium holds what an array in memory would, also after it is reopened.
    #[test]
    fn a_medium_is_an_array(rounds in prop::collection::vec(actions(), 1..6)) {
        for backend in BACKENDS {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("medium");
            let medium = created(&path, backend, PAGES);
            let model = runtime().block_on(follow_model(&*medium, &rounds));
            drop(medium);
            let bytes = std::fs::read(&path).unwrap();
            for (page, byte) in bytes.chunks(PAGE).zip(model) {
                prop_assert!(byte.is_none_or(|byte| page.iter().all(|found| *found == byte)));
            }
        }
    }
}

#[tokio::test]
async fn dropped_futures_still_end() {
    const WRITES: u64 = IN_FLIGHT_MAX as u64 / 2;
    let whole_bound = IN_FLIGHT_MAX * (128 << 10);
    for backend in BACKENDS {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("medium");
        let medium = created(&path, backend, (whole_bound / PAGE) as u64);
        // As many as start at once; one that still waits for its turn is cancelled by the drop.
        for page in 0..WRITES {
            start_and_drop(medium.write(page_at(page), filled(page as u8 | 1, 1))).await;
            start_and_drop(medium.read(page_at(page), PAGE)).await;
        }
        // Takes the whole bound, so it starts when the others are done.
        let all = medium.read(0, whole_bound).await.unwrap();
        for page in 0..WRITES as usize {
            assert_eq!(all.as_ref()[page * PAGE + 7], page as u8 | 1);
        }
        for page in 0..WRITES {
            start_and_drop(medium.write_durable(page_at(page), filled(200, 1))).await;
            start_and_drop(medium.sync()).await;
        }
        drop(medium);
        // What is still under way holds the lock; it ends by itself.
        let medium = loop {
            match reopened(&path, backend) {
                Err(error) if error.kind == MediaErrorKind::Busy => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        let last = medium.read(page_at(WRITES - 1), PAGE).await.unwrap();
        assert_eq!(last.as_ref()[PAGE - 1], 200);
    }
}

#[tokio::test]
async fn more_than_fit_at_once_wait_their_turn() {
    for backend in BACKENDS {
        let directory = TempDir::new().unwrap();
        let medium = created(&directory.path().join("medium"), backend, 5000);
        let large = filled(3, 4096);
        let small = (0..500).map(|page| medium.write(page_at(4096 + page), filled(5, 1)));
        let writes = (0..4).map(|_| medium.write(0, large.clone())).chain(small);
        assert!(seam::join_all(writes).await.into_iter().all(|written| written.is_ok()));
        let syncs = seam::join_all((0..300).map(|_| medium.sync())).await;
        assert!(syncs.into_iter().all(|synced| synced.is_ok()));
        let read = medium.read(0, 4500 * PAGE).await.unwrap();
        assert!(read.as_ref()[..4096 * PAGE].iter().all(|byte| *byte == 3));
        assert!(read.as_ref()[4096 * PAGE..].iter().all(|byte| *byte == 5));
    }
}

#[tokio::test]
async fn creation_is_private_sparse_and_careful() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("medium");
    let medium = created(&path, Backend::Auto, PAGES);
    assert_eq!((medium.len(), medium.is_empty()), (page_at(PAGES), false));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.blocks()), (0o600, 0));
    assert!(medium.room() < u64::MAX, "a sparse file has what the file system has left");

    let busy = reopened(&path, Backend::Auto).unwrap_err();
    assert_eq!(busy.kind, MediaErrorKind::Busy);
    assert!(
        busy.to_string().contains(path.to_str().unwrap()) && busy.to_string().contains("another process")
    );
    medium.reserve(page_at(1), page_at(2)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().blocks() * 512, page_at(2), "room is taken");
    medium.prepare(0, medium.len()).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().blocks() * 512, page_at(PAGES));
    drop(medium);
    assert_eq!(
        reopened(&path, Backend::Auto).unwrap().room(),
        u64::MAX,
        "a file written in full needs no more"
    );

    let kind = |path: &Path, create_size| {
        media::open(path, OpenOptions { create_size, ..OpenOptions::default() }).unwrap_err().kind
    };
    assert_eq!(kind(&path, Some(page_at(1))), MediaErrorKind::Invalid, "exists");
    assert_eq!(kind(&directory.path().join("none"), None), MediaErrorKind::Gone);
    assert_eq!(kind(directory.path(), None), MediaErrorKind::Invalid, "a directory");
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(kind(&empty, None), MediaErrorKind::Invalid, "no page");
    assert_eq!(kind(&empty, Some(5000)), MediaErrorKind::Invalid, "no multiple of a page");
    assert_eq!(std::fs::metadata(&empty).unwrap().len(), 0, "as it was");
    assert_eq!(created(&empty, Backend::Auto, 2).len(), page_at(2), "left by a crash");
    // What cannot be made leaves nothing.
    let new = directory.path().join("new");
    assert_eq!(kind(&new, Some(5000)), MediaErrorKind::Invalid);
    assert_eq!(kind(&new, Some(u64::MAX / 4096 * 4096)), MediaErrorKind::Invalid, "larger than any file");
    assert!(!new.exists());
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    for backend in BACKENDS {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("medium");
        let medium = created(&path, backend, 4);
        for (offset, length) in
            [(512, PAGE), (0, 100), (page_at(4), PAGE), (page_at(3), 2 * PAGE), (!0 << 12, PAGE)]
        {
            assert_eq!(medium.read(offset, length).await.unwrap_err().kind, MediaErrorKind::Invalid);
            assert_eq!(
                medium.discard(offset, length as u64).await.unwrap_err().kind,
                MediaErrorKind::Invalid
            );
            assert_eq!(
                medium.reserve(offset, length as u64).await.unwrap_err().kind,
                MediaErrorKind::Invalid
            );
            assert_eq!(
                medium.prepare(offset, length as u64).await.unwrap_err().kind,
                MediaErrorKind::Invalid
            );
        }
        assert_eq!(medium.write(page_at(4), filled(1, 1)).await.unwrap_err().kind, MediaErrorKind::Invalid);
        assert!(medium.read(page_at(4), 0).await.unwrap().is_empty());

        // Someone cuts the file short behind our back.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(page_at(1) + 512).unwrap();
        assert_eq!(medium.read(0, PAGE).await.unwrap().len(), PAGE);
        for (offset, length) in [(0, 4 * PAGE), (page_at(1), PAGE), (page_at(3), PAGE)] {
            let error = medium.read(offset, length).await.unwrap_err();
            assert_eq!(error.kind, MediaErrorKind::Io);
            assert!(error.reason.contains("shorter"), "{error}");
        }
    }
}

/// Writes until the file system is full, makes room, and goes on.
async fn fill_up(directory: &Path, backend: Backend, room: u64) {
    let path = directory.join(format!("{backend:?}"));
    let medium = created(&path, backend, 4 * room / PAGE as u64);
    let small = 16 * PAGE as u64;
    let mut at = 0;
    let full = loop {
        let bytes = filled(9, 16);
        let written =
            if at % (2 * small) == 0 { medium.write(at, bytes) } else { medium.write_durable(at, bytes) };
        match written.await {
            Ok(()) => at += small,
            Err(error) => break error,
        }
        assert!(at < 2 * room, "it is never full");
    };
    assert_eq!(full.kind, MediaErrorKind::NoSpace, "{full}");
    let durable = medium.write_durable(at + small, filled(9, 16)).await.unwrap_err();
    assert_eq!(durable.kind, MediaErrorKind::NoSpace, "{durable}");
    medium.sync().await.unwrap();
    assert_eq!(medium.read(0, PAGE).await.unwrap().as_ref()[0], 9);
    // A full medium is sound: with room again, it serves again.
    medium.discard(0, at / 2 / PAGE as u64 * PAGE as u64).await.unwrap();
    medium.sync().await.unwrap();
    medium.write_durable(at, filled(7, 16)).await.unwrap();
    assert_eq!(medium.read(at, PAGE).await.unwrap().as_ref()[0], 7);
    drop(medium);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_full_file_system_is_no_space_and_no_more() {
    const ROOM: u64 = 8 << 20;
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("image");
    ext4_image(&image, ROOM);
    for (name, arguments) in [
        ("tmpfs", ["-t", "tmpfs", "-o", "size=8m", "tmpfs"]),
        ("ext4", ["-t", "ext4", "-o", "loop", image.to_str().unwrap()]),
    ] {
        let point = directory.path().join(name);
        let _mount = mounted(&arguments, &point);
        for backend in BACKENDS {
            fill_up(&point, backend, ROOM).await;
        }
    }
}

#[tokio::test]
async fn a_block_device_is_a_medium_unless_it_is_mounted() {
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("image");
    ext4_image(&image, 4 << 20);
    for backend in BACKENDS {
        let (device, _loop) = loop_device(&image);
        let medium = reopened(&device, backend).unwrap();
        assert_eq!((medium.len(), medium.room()), (4 << 20, u64::MAX));
        let refused = media::open(&device, OpenOptions { create_size: Some(4096), backend }).unwrap_err();
        assert_eq!(refused.kind, MediaErrorKind::Invalid);
        let held = medium.read(0, 4 * PAGE).await.unwrap();
        medium.write_durable(page_at(600), filled(8, 4)).await.unwrap();
        medium.discard(page_at(600), page_at(2)).await.unwrap();
        assert_eq!(medium.read(page_at(602), PAGE).await.unwrap().as_ref()[0], 8);
        assert_eq!(reopened(&device, backend).unwrap_err().kind, MediaErrorKind::Busy);
        drop(medium);
        let _mount = mounted(&[device.to_str().unwrap()], &directory.path().join(format!("{backend:?}")));
        let error = reopened(&device, backend).unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Busy, "{error}");
        assert!(error.reason.contains("mounted"), "{error}");
        assert!(!held.is_empty());
    }
}

#[test]
fn media_on_one_disk_are_found() {
    let directory = TempDir::new().unwrap();
    let point = directory.path().join("memory");
    let _mount = mounted(&["-t", "tmpfs", "tmpfs"], &point);
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let (device, _loop) = loop_device(&image);
    let apart = point.join("image");
    std::fs::File::create(&apart).unwrap().set_len(1 << 20).unwrap();
    let (apart_device, _apart_loop) = loop_device(&apart);
    let paths =
        [image, apart, directory.path().join("not yet"), apart_device, device, PathBuf::from("/none/at/all")];
    assert_eq!(media::same_device(&paths), [vec![0, 2, 4], vec![1, 3], vec![5]]);
}

/// Set for the child process that plays one part of a test.
const CHILD: &str = "HOLDFAST_MEDIA_TEST_FILE";

/// The part that runs under `strace`, which makes the first `fdatasync` of each thread fail, and has its first write
/// claim one page, unwritten.
#[test]
fn child_whose_first_sync_fails() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    runtime().block_on(async {
        let medium = reopened(&PathBuf::from(path), Backend::Sync).unwrap();
        medium.write(0, filled(2, 3)).await.unwrap();
        let syncs = seam::join_all((0..3).map(|_| medium.sync())).await;
        for failed in &syncs {
            assert_eq!(failed.as_ref().unwrap_err().kind, MediaErrorKind::Io);
        }
        assert!(syncs[0].as_ref().unwrap_err().reason.contains("nput/output error"), "{syncs:?}");
        // The kernel would take these: it told of the failure once.
        for failed in [
            medium.write(0, filled(3, 1)).await,
            medium.sync().await,
            medium.write_durable(0, filled(3, 1)).await,
            medium.prepare(0, page_at(1)).await,
        ] {
            let error = failed.unwrap_err();
            assert!(error.kind == MediaErrorKind::Io && error.reason.contains("earlier sync"), "{error}");
        }
        assert_eq!(medium.read(page_at(1), PAGE).await.unwrap().as_ref()[0], 2, "reads go on");
    });
}

#[test]
fn a_failed_sync_of_the_kernel_is_never_forgotten() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("medium");
    drop(created(&path, Backend::Sync, PAGES));
    let child = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1"])
        .args(["-e", "inject=pwrite64:retval=4096:when=1"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_whose_first_sync_fails", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .expect("strace starts: install it");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let found = std::fs::read(&path).unwrap();
    let found = [0, 1, 2, 3].map(|page| found[page * PAGE]);
    assert_eq!(found, [0, 2, 2, 0], "the short write goes on where it stopped");
    runtime().block_on(async {
        let medium = reopened(&path, Backend::Sync).unwrap();
        medium.write_durable(0, filled(4, 1)).await.expect("reopened, it serves again");
    });
}

/// The part that counts the threads of a process that uses a ring.
#[test]
fn child_that_opens_and_closes_a_ring() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let ring_threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter(|task| {
                let name = task.as_ref().unwrap().path().join("comm");
                std::fs::read_to_string(name).is_ok_and(|name| name.starts_with("media-"))
            })
            .count()
    };
    let first = PathBuf::from(path);
    let second = first.with_extension("2");
    for _ in 0..3 {
        runtime().block_on(async {
            let media = [reopened(&first, Backend::Ring).unwrap(), created(&second, Backend::Ring, 1)];
            media[0].write(0, filled(1, 1)).await.unwrap();
            media[1].discard(0, page_at(1)).await.unwrap();
            assert_eq!(ring_threads(), 2, "one ring for both, one thread for the discard");
        });
        std::fs::remove_file(&second).unwrap();
        for _ in 0..100_000 {
            if ring_threads() == 0 {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(ring_threads(), 0, "a thread outlives its media");
    }
}

#[test]
fn threads_end_with_their_media() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("medium");
    drop(created(&path, Backend::Sync, PAGES));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_opens_and_closes_a_ring", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}
