use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use seam::TokioRuntime;

use super::*;
use crate::{Backend, OpenOptions, open};

const PAGES: u64 = 8;
/// Set for the child process that kills itself: the medium; the plan stands in the second one.
const CHILD: &str = "HOLDFAST_MEDIA_TEST_FILE";
const PLAN: &str = "HOLDFAST_MEDIA_TEST_FAULT";

fn create(path: &Path) -> Arc<dyn Medium> {
    let options = OpenOptions { create_size: Some(PAGES * PAGE as u64), backend: Backend::Auto };
    open(path, options).unwrap()
}

fn faulty(inner: Arc<dyn Medium>, plan: &str) -> FaultMedium {
    let rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
    FaultMedium::new(inner, plan.parse().unwrap(), rt)
}

fn scratch(plan: &str) -> (FaultMedium, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (faulty(create(&directory.path().join("medium-a")), plan), directory)
}

fn filled(byte: u8, pages: usize) -> PageSlice {
    PageBuf::copy_of(&vec![byte; pages * PAGE]).share()
}

async fn first_byte(medium: &dyn Medium, page: u64) -> u8 {
    medium.read(page * PAGE as u64, PAGE).await.unwrap().as_ref()[0]
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> MediaErrorKind {
    result.unwrap_err().kind
}

#[test]
fn plans_are_read() {
    let plan: FaultPlan =
        "write:17:eio; sync:3+:enospc;;write:9:kill-torn=3@disk2;read:1:delay=50;".parse().unwrap();
    let rule = |access, nth, from_then_on, effect, medium: Option<&str>| Rule {
        access,
        nth,
        from_then_on,
        effect,
        medium: medium.map(str::to_owned),
    };
    let expected = [
        rule(Access::Write, 17, false, Effect::Eio, None),
        rule(Access::Sync, 3, true, Effect::Enospc, None),
        rule(Access::Write, 9, false, Effect::KillTorn { sectors: 3 }, Some("disk2")),
        rule(Access::Read, 1, false, Effect::Delay(Duration::from_millis(50)), None),
    ];
    assert_eq!(plan.rules, expected);
    assert_eq!(plan.of_medium("/srv/disk1").rules.len(), 3);
    assert_eq!(FaultPlan::from_env("HOLDFAST_NO_SUCH_VARIABLE"), Ok(FaultPlan::default()));
    let wrong = [
        "write",
        "write:1",
        "write:0:eio",
        "write:x:eio",
        "move:1:eio",
        "write:1:eio:2",
        "write:1:torn",
        "write:1:eio=3",
        "read:1:lie",
        "sync:1:torn=1",
        "read:1:kill-torn=1",
        "write:1:torn=999999999",
        "write:1:delay=9999999",
        "write:-1:eio",
        "write:1:torn=18446744073709551616",
    ];
    for text in wrong {
        assert!(text.parse::<FaultPlan>().is_err(), "{text}");
    }
    assert!("write:1:eio;".repeat(65).parse::<FaultPlan>().is_err());
}

#[tokio::test]
async fn the_nth_goes_wrong_and_is_counted() {
    let (medium, _directory) =
        scratch("write:2:eio;read:2+:eio;write:3:enospc;write:5:lie;write:1:eio@medium-b;sync:9:eio");
    medium.write(0, filled(1, 1)).await.unwrap();
    assert_eq!(kind(medium.write(0, filled(2, 1)).await), MediaErrorKind::Io);
    assert_eq!(first_byte(&medium, 0).await, 1);
    assert_eq!(kind(medium.write(0, filled(3, 1)).await), MediaErrorKind::NoSpace);
    medium.write(0, filled(4, 1)).await.unwrap();
    medium.write(0, filled(5, 1)).await.unwrap();
    medium.sync().await.unwrap();
    medium.discard(PAGE as u64, PAGE as u64).await.unwrap();
    for _ in 0..2 {
        assert_eq!(kind(medium.read(0, PAGE).await), MediaErrorKind::Io);
    }
    assert_eq!(first_byte(&*medium.inner, 0).await, 4, "the fifth write was a lie");
    assert_eq!(medium.fired(), [1, 2, 1, 1, 0], "and the rule for another medium is gone");
    assert_eq!(medium.counts(), Counts { reads: 3, writes: 5, syncs: 1, discards: 1 });
}

#[tokio::test]
async fn a_torn_write_reaches_the_medium_in_part() {
    let (medium, _directory) = scratch("write:2:torn=11");
    medium.write(0, filled(1, 3)).await.unwrap();
    assert_eq!(kind(medium.write(0, filled(2, 3)).await), MediaErrorKind::Io);
    let read = medium.read(0, 3 * PAGE).await.unwrap();
    let (new, old) = read.as_ref().split_at(11 * 512);
    assert!(new.iter().all(|byte| *byte == 2) && old.iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn a_failed_sync_is_never_forgotten_here_either() {
    for plan in ["sync:2:eio", "sync:2:enospc"] {
        let (medium, _directory) = scratch(plan);
        medium.write_durable(0, filled(1, 1)).await.unwrap();
        assert_eq!(kind(medium.write_durable(0, filled(2, 1)).await), MediaErrorKind::Io);
        assert_eq!(kind(medium.sync().await), MediaErrorKind::Io);
        assert_eq!(kind(medium.write(0, filled(3, 1)).await), MediaErrorKind::Io);
        assert_eq!(kind(medium.write_durable(0, filled(3, 1)).await), MediaErrorKind::Io);
        assert_eq!(medium.counts(), Counts { writes: 2, syncs: 2, ..Counts::default() });
        let reopened = faulty(medium.inner.clone(), "");
        reopened.write_durable(0, filled(4, 1)).await.unwrap();
        assert_eq!(reopened.counts(), Counts { writes: 1, syncs: 1, ..Counts::default() });
    }
}

#[tokio::test]
async fn a_delay_delays_and_goes_with_another_effect() {
    let (medium, _directory) = scratch("write:1:delay=30;write:1:eio");
    let clock = medium.clock.0.clone();
    let start = clock.now();
    assert_eq!(kind(medium.write(0, filled(1, 1)).await), MediaErrorKind::Io);
    assert!(clock.now() - start >= Duration::from_millis(30));
    assert_eq!(medium.fired(), [1, 1]);
}

/// The part that dies: writes 1 to page 0, then 2 to pages 0 to 1, then syncs and reads.
#[test]
fn child_that_kills_itself() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
        let medium = FaultMedium::new(create(&PathBuf::from(path)), FaultPlan::from_env(PLAN).unwrap(), rt);
        medium.write(0, filled(1, 1)).await.unwrap();
        medium.write(0, filled(2, 2)).await.unwrap();
        medium.sync().await.unwrap();
        medium.write(0, filled(3, 1)).await.unwrap();
        medium.read(0, PAGE).await.unwrap();
        medium.write(0, filled(4, 1)).await.unwrap();
    });
}

#[test]
fn the_process_dies_at_the_operation() {
    // The plan; then the bytes at the start, in the second sector, and in the second page.
    for (plan, found) in [
        ("write:2:kill", [1, 1, 0]),
        ("write:2:kill-after", [2, 2, 2]),
        ("write:2:kill-torn=1", [2, 1, 0]),
        ("sync:1:kill", [2, 2, 2]),
        ("sync:1:kill-after", [2, 2, 2]),
        ("read:1:kill", [3, 3, 2]),
        ("read:1:kill-after", [3, 3, 2]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("medium");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fault::tests::child_that_kills_itself"])
            .env(CHILD, &path)
            .env(PLAN, plan)
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(9), "{plan}: {}", String::from_utf8_lossy(&child.stdout));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!([bytes[0], bytes[512], bytes[PAGE]], found, "{plan}");
    }
}
