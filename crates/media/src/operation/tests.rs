use tokio::sync::Semaphore;
use tokio::sync::oneshot::Receiver;

use super::*;

type Answer = Receiver<Result<(), Failure>>;

const IO: Result<usize, Errno> = Err(Errno::IO);

fn target() -> Arc<Target> {
    Arc::new(Target::new(tempfile::tempfile().unwrap(), false))
}

fn reply<T>() -> (Reply<T>, Receiver<Result<T, Failure>>) {
    let (sender, receiver) = oneshot::channel();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Reply::new(sender, permit), receiver)
}

fn write(target: &Arc<Target>, pages: usize, durable: bool) -> (Operation, Answer) {
    let (reply, answer) = reply();
    let bytes = PageBuf::zeroed(pages * PAGE).share();
    (Operation::new(target.clone(), Work::Write { offset: 0, bytes, durable, reply }), answer)
}

/// Asks for a sync; the operation when one is to be started.
fn sync(target: &Arc<Target>) -> (Option<Operation>, Answer) {
    let (reply, answer) = reply();
    (target.ask_sync(reply), answer)
}

fn end(mut operation: Operation, answer: Result<usize, Errno>) -> Option<Operation> {
    let Step::End(outcome) = operation.advance(answer) else { panic!("it is not at its end") };
    operation.finish(outcome)
}

#[test]
fn short_answers_are_continued_at_a_page() {
    let (mut operation, mut answer) = write(&target(), 3, false);
    assert_eq!(operation.advance(Ok(PAGE + 512)), Step::Again);
    assert_eq!(operation.done, PAGE, "direct I/O cannot go on within a page");
    assert_eq!(operation.advance(Err(Errno::INTR)), Step::Again);
    assert_eq!(operation.advance(Err(Errno::AGAIN)), Step::Again);
    assert_eq!(operation.advance(Ok(PAGE)), Step::Again);
    assert_eq!(operation.advance(Ok(PAGE)), Step::End(Ok(())));
    assert!(operation.finish(Ok(())).is_none());
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
}

#[test]
fn what_gets_no_further_ends() {
    for (answer, failure) in [
        (Ok(512), Failure::Short),
        (Err(Errno::INTR), Failure::System(Errno::AGAIN)),
        (Err(Errno::AGAIN), Failure::System(Errno::AGAIN)),
    ] {
        let (mut operation, _answer) = write(&target(), 2, false);
        assert!((0..RETRIES_MAX).all(|_| operation.advance(answer) == Step::Again));
        assert_eq!(operation.advance(answer), Step::End(Err(failure)));
    }
    let (reply, _answer) = reply();
    let work = Work::Read { offset: 0, buf: PageBuf::zeroed(2 * PAGE), reply };
    let mut read = Operation::new(target(), work);
    assert_eq!(read.advance(Ok(PAGE)), Step::Again);
    assert_eq!(read.advance(Ok(0)), Step::End(Err(Failure::Short)), "past the end");
}

#[test]
fn those_who_ask_during_a_sync_share_the_next() {
    let target = target();
    let (first, mut first_answer) = sync(&target);
    let (second, mut second_answer) = sync(&target);
    let (third, mut third_answer) = sync(&target);
    assert!(second.is_none() && third.is_none(), "one at a time");
    let next = end(first.unwrap(), Ok(0)).expect("the waiting ones are served");
    assert_eq!(first_answer.try_recv().unwrap(), Ok(()));
    assert!(second_answer.try_recv().is_err(), "the first sync may not cover their writes");
    assert!(end(next, Ok(0)).is_none());
    assert_eq!((second_answer.try_recv().unwrap(), third_answer.try_recv().unwrap()), (Ok(()), Ok(())));
    assert!(sync(&target).0.is_some());
}

#[test]
fn a_failed_sync_is_never_forgotten() {
    // A sync without room too: buffered pages may have gone with it.
    for errno in [Errno::IO, Errno::NOSPC] {
        let target = target();
        let (first, mut first_answer) = sync(&target);
        let (_, mut second_answer) = sync(&target);
        let next = end(first.unwrap(), Err(errno)).unwrap();
        assert_eq!(first_answer.try_recv().unwrap(), Err(Failure::Sync(errno)));
        // The kernel has told of the loss once, and says yes to the next.
        assert!(end(next, Ok(0)).is_none());
        assert_eq!(second_answer.try_recv().unwrap(), Err(Failure::Unsynced(errno)));
        assert_eq!(target.check_synced(), Err(Failure::Unsynced(errno)));
    }
}

#[test]
fn a_failed_write_is_no_failed_sync() {
    for durable in [true, false] {
        let target = target();
        let (operation, mut answer) = write(&target, 1, durable);
        assert!(end(operation, IO).is_none(), "no sync follows");
        assert_eq!(answer.try_recv().unwrap(), Err(Failure::System(Errno::IO)));
        assert_eq!(target.check_synced(), Ok(()));
    }
}

#[test]
fn a_sync_follows_a_durable_write_and_waits_its_turn() {
    let target = target();
    let (alone, mut alone_answer) = write(&target, 1, true);
    let (during, mut during_answer) = write(&target, 1, true);
    let first = end(alone, Ok(PAGE)).expect("the sync");
    assert!(end(during, Ok(PAGE)).is_none(), "one sync at a time");
    assert!(alone_answer.try_recv().is_err());
    let second = end(first, Ok(0)).expect("the sync for the second write");
    assert_eq!(alone_answer.try_recv().unwrap(), Ok(()));
    assert!(during_answer.try_recv().is_err(), "the first sync may not cover it");
    assert!(end(second, IO).is_none());
    assert_eq!(during_answer.try_recv().unwrap(), Err(Failure::Sync(Errno::IO)));
}

#[test]
fn a_caller_that_knows_holds_the_only_reference() {
    let target = target();
    let (operation, mut answer) = write(&target, 1, false);
    end(operation, Ok(PAGE));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(Arc::strong_count(&target), 1);
    let (operation, mut answer) = sync(&target);
    end(operation.unwrap(), Ok(0));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(Arc::strong_count(&target), 1);
}

#[test]
fn what_no_back_end_takes_fails_with_all_that_waits_for_it() {
    let target = target();
    let (first, mut first_answer) = sync(&target);
    let (_, mut second_answer) = sync(&target);
    first.unwrap().fail(Failure::System(Errno::NOMEM));
    assert!(first_answer.try_recv().unwrap().is_err() && second_answer.try_recv().unwrap().is_err());
}
