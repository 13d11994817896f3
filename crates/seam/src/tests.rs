use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn on_tokio<T>(work: impl AsyncFnOnce(Rt) -> T) -> T {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let tokio = tokio.expect("a runtime");
    tokio.block_on(async { work(Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()))).await })
}

#[test]
fn a_panic_in_a_piece_of_work_is_noted_and_told() {
    on_tokio(async |rt| {
        assert_eq!(guard(&*rt, "sound", async { 7 }).await, Ok(7));
        for _ in 0..2 {
            let work = async {
                yield_now().await;
                panic!("the {} is gone", "cheese")
            };
            let outcome: Result<(), Panicked> = guard(&*rt, "mouse", work).await;
            assert_eq!(outcome, Err(Panicked("the cheese is gone".to_owned())));
        }
        let note = PanicNote { task: "mouse", said: "the cheese is gone".to_owned(), count: 2 };
        assert_eq!(rt.panics(), [note]);
    });
}

#[test]
fn a_task_that_panics_is_noted() {
    on_tokio(async |rt| {
        rt.spawn("doomed", Box::pin(async { panic!("plain words") }));
        while rt.panics().is_empty() {
            yield_now().await;
        }
        assert_eq!(rt.panics()[0].said, "plain words");
    });
}

#[test]
fn a_loop_that_panics_begins_anew() {
    on_tokio(async |rt| {
        let (begun, first) = (AtomicU32::new(0), rt.now());
        restart(&*rt, "loop", || async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) >= 1, "not yet");
        })
        .await;
        assert_eq!((begun.load(Ordering::Relaxed), rt.panics()[0].count), (2, 1));
        assert!(rt.now() >= first + RESTART_PAUSE, "{:?}", rt.now());
    });
}

/// A runtime that does not survive panics: the simulator, where a bug must show.
#[test]
#[should_panic(expected = "flusher: a bug")]
fn tests_do_not_survive_panics() {
    testing::run(1, async |rt| {
        let _ = guard(&*rt, "flusher", async { panic!("a bug") }).await;
    });
}

#[test]
fn a_start_believes_the_host_no_further_than_a_day() {
    use crate::clock::first_time;
    let day = BELIEVED.as_millis() as u64;
    let kept = 1_000 * day;
    for (kept_ms, host_ms, wanted) in [
        (0, kept, kept),
        (kept, kept, kept),
        (kept, kept - 900 * day, kept),
        (kept, kept + 1, kept + 1),
        (kept, kept + day, kept + day),
        (kept, kept + day + 1, kept),
        (kept, kept + 1_200 * day, kept),
        (kept, u64::MAX, kept),
        (u64::MAX, 5, u64::MAX),
    ] {
        assert_eq!(first_time(kept_ms, host_ms), wanted, "{kept_ms}, {host_ms}");
    }
}
