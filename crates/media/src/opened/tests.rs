//! Errors of the kernel through the real back ends: a pipe refuses offsets and syncs.

use std::fs::File;

use super::*;

fn media_on_pipes() -> Vec<(Opened, std::io::PipeReader)> {
    let rings = [Some(Ring::shared().unwrap()), None];
    let pipes = rings.into_iter().map(|ring| {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (Opened::new("pipe".into(), 1 << 20, Target::new(file, false), ring), reader)
    });
    pipes.collect()
}

fn page() -> PageSlice {
    PageBuf::zeroed(PAGE).share()
}

#[tokio::test]
async fn the_kernels_errors_arrive_and_a_failed_sync_stays() {
    for (medium, _reader) in media_on_pipes() {
        let read = medium.read(PAGE as u64, PAGE).await.unwrap_err();
        assert_eq!((read.kind, &*read.operation), (MediaErrorKind::Io, "read at 4096, 4096 bytes"));
        let syncs = seam::join_all((0..5).map(|_| medium.sync())).await;
        for failed in &syncs {
            let error = failed.as_ref().unwrap_err();
            assert_eq!((error.kind, &*error.operation), (MediaErrorKind::Io, "sync"));
        }
        for failed in [medium.write(0, page()).await, medium.sync().await] {
            let error = failed.unwrap_err();
            assert!(error.kind == MediaErrorKind::Io && error.reason.contains("earlier sync"), "{error}");
        }
        assert_eq!(medium.in_flight.available_permits(), IN_FLIGHT_MAX, "each share is given back");
    }
}

#[tokio::test]
async fn a_durable_write_fails_by_its_write_or_by_its_sync() {
    for (medium, _reader) in media_on_pipes() {
        // A pipe takes no offset; nothing was synced, so nothing is lost.
        let write = medium.write_durable(PAGE as u64, page()).await.unwrap_err();
        assert!(write.reason.contains("Illegal seek"), "{write}");
        let sync = medium.sync().await.unwrap_err();
        assert!(sync.reason.contains("Invalid argument"), "{sync}");
        let later = medium.write_durable(0, page()).await.unwrap_err();
        assert!(later.reason.contains("earlier sync"), "{later}");
    }
}

#[tokio::test]
async fn a_hint_that_fails_is_no_error() {
    for (medium, _reader) in media_on_pipes() {
        medium.discard(0, PAGE as u64).await.unwrap();
    }
}

#[test]
fn errors_have_the_kind_that_decides() {
    let (medium, _reader) = media_on_pipes().remove(1);
    let what = What { verb: "write", offset: 0, length: 4096 };
    let kind = |errno| medium.error(what, Failure::System(errno)).kind;
    assert_eq!([kind(Errno::NOSPC), kind(Errno::DQUOT)], [MediaErrorKind::NoSpace; 2]);
    assert_eq!([kind(Errno::NODEV), kind(Errno::NXIO)], [MediaErrorKind::Gone; 2]);
    assert_eq!([kind(Errno::IO), kind(Errno::ROFS)], [MediaErrorKind::Io; 2]);
    for of_sync in [Failure::Sync(Errno::NOSPC), Failure::Unsynced(Errno::NOSPC)] {
        let kind = medium.error(what, of_sync).kind;
        assert_eq!(kind, MediaErrorKind::Io, "not to be taken for a medium that is merely full");
    }
}
