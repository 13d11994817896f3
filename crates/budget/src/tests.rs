#![allow(clippy::unwrap_used)] // tests stop at what they did not expect

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use crate::{Account, BYTES_MIN, Budget, TAKE_MAX};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SHARE: usize = 16 * KIB;
const TOTAL: usize = BYTES_MIN;
/// What can be drawn of an untouched budget.
const ROOM: usize = TOTAL - TOTAL / 16;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// An account with what wakes it.
struct Client {
    account: Account,
    count: Arc<Count>,
    waker: Waker,
}

impl Client {
    fn new(budget: &Budget) -> Self {
        let count = Arc::new(Count::default());
        Self { account: budget.open(SHARE).unwrap(), waker: count.clone().into(), count }
    }

    fn poll(&mut self, bytes: usize) -> bool {
        self.account.poll_take(&Context::from_waker(&self.waker), bytes).is_ready()
    }

    fn woken(&self) -> bool {
        self.count.0.swap(0, SeqCst) > 0
    }

    /// Takes as much as it gets, `step` bytes at a time.
    fn gorge(&mut self, step: usize) {
        while self.account.try_take(step) {}
    }
}

#[test]
fn a_share_is_there_whatever_others_hold() {
    let budget = Budget::new(TOTAL);
    let mut quiet = Client::new(&budget);
    let mut greedy: Vec<_> = (0..100).map(|_| Client::new(&budget)).collect();
    greedy.iter_mut().for_each(|client| client.gorge(4 * KIB));
    assert!(quiet.poll(SHARE), "its own share");
    let mut late = Client::new(&budget);
    assert!(late.poll(SHARE), "a share of an account opened when all was drawn");
    drop((quiet, greedy, late));
    assert_eq!(budget.used(), 0);
}

#[test]
fn those_who_give_nothing_back_leave_room_for_others() {
    let budget = Budget::new(TOTAL);
    let mut alone = Client::new(&budget);
    alone.gorge(MIB);
    assert!(alone.account.held() <= ROOM / 2 + SHARE, "one takes half");
    let mut stuck: Vec<_> = (0..64).map(|_| Client::new(&budget)).collect();
    stuck.iter_mut().for_each(|client| client.gorge(8 * MIB));
    for _ in 0..3 {
        assert!(Client::new(&budget).poll(2 * MIB), "large requests leave room for smaller ones");
    }
}

/// Accounts that hold so much that a large request does not fit, and a small one does.
fn holders(budget: &Budget) -> Vec<Client> {
    let mut holders: Vec<_> = (0..3).map(|_| Client::new(budget)).collect();
    holders.iter_mut().for_each(|holder| holder.gorge(MIB));
    holders
}

#[test]
fn who_waits_is_passed_over_for_a_while_and_not_for_ever() {
    let budget = Budget::new(TOTAL);
    let [mut busy, mut large, mut small] = [(); 3].map(|()| Client::new(&budget));
    assert!(busy.poll(MIB));
    let mut holders = holders(&budget);
    assert!(!large.poll(TAKE_MAX), "more than is free");
    assert!(holders[0].account.holds_up_others() && !small.account.holds_up_others());
    let mut passed = 0;
    while small.poll(MIB) {
        small.account.give_back(MIB);
        passed += MIB;
        assert!(passed < 2 * TOTAL, "it is passed over for ever");
    }
    assert!(passed > TOTAL / 2, "small ones pass");
    assert!(!busy.poll(MIB), "nobody draws before it");
    small.account.stop_waiting();
    assert!(small.poll(SHARE), "what is set aside is there");
    small.account.give_back(SHARE);
    assert!(!small.poll(MIB));
    small.woken();
    for holder in &mut holders {
        assert!(!small.woken() && !busy.woken());
        let held = holder.account.held();
        holder.account.give_back(held);
    }
    assert!(large.woken() && large.poll(TAKE_MAX));
    assert!(small.woken() && small.poll(MIB));
    assert!(busy.woken() && busy.poll(MIB));
}

#[test]
fn who_waits_no_more_holds_up_nobody() {
    let budget = Budget::new(TOTAL);
    let [mut gone, mut left, mut future, mut next] = [(); 4].map(|()| Client::new(&budget));
    let _holders = holders(&budget);
    assert!(!gone.poll(TAKE_MAX) && !left.poll(TAKE_MAX));
    {
        let waker = future.waker.clone();
        let mut taking = pin!(future.account.take(TAKE_MAX));
        assert_eq!(taking.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        let mut passed = 0;
        while next.poll(MIB) {
            next.account.give_back(MIB);
            passed += MIB;
            assert!(passed < 2 * TOTAL);
        }
        gone.account.stop_waiting();
        drop(left);
        assert!(!next.woken(), "the future still waits");
    }
    assert!(next.woken() && next.poll(MIB));
}

#[test]
fn shares_take_half_at_most() {
    let budget = Budget::new(TOTAL);
    let mut all = Vec::new();
    while let Some(account) = budget.open(MIB) {
        all.push(account);
    }
    assert_eq!(budget.used(), TOTAL / 2);
    let urgent = budget.open_first(MIB).unwrap();
    assert!(budget.open(MIB).is_none());
    drop((all, urgent));
    assert_eq!(budget.used(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Drop(usize),
    Take(usize, usize),
    GiveBack(usize),
    Stop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![1..20 * KIB, 1..2 * MIB, TAKE_MAX / 2..TAKE_MAX];
    let step = prop_oneof![
        2 => Just(Step::Open),
        1 => (0..50_usize).prop_map(Step::Drop),
        12 => (0..50_usize, bytes).prop_map(|(client, bytes)| Step::Take(client, bytes)),
        6 => (0..50_usize).prop_map(Step::GiveBack),
        1 => (0..50_usize).prop_map(Step::Stop),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A client with what it has taken, in order, and what it waits for.
struct Busy {
    client: Client,
    taken: Vec<usize>,
    waits: Option<usize>,
}

impl Busy {
    fn poll(&mut self, bytes: usize) {
        let got = self.client.poll(bytes);
        if got {
            self.taken.push(bytes);
        }
        self.waits = (!got).then_some(bytes);
    }
}

proptest! {
    /// Whatever is done, what is held is within the budget, whoever waits comes to its turn when the others are done, and in
    /// the end nothing is held.
    #[test]
    fn all_comes_back(steps in steps()) {
        let budget = Budget::new(TOTAL);
        let mut all: Vec<Busy> = Vec::new();
        for step in steps {
            let at = |number: usize, all: &Vec<Busy>| (!all.is_empty()).then(|| number % all.len());
            match step {
                Step::Open => all.push(Busy { client: Client::new(&budget), taken: Vec::new(), waits: None }),
                Step::Drop(number) => if let Some(at) = at(number, &all) { drop(all.swap_remove(at)) },
                Step::Take(number, bytes) => if let Some(at) = at(number, &all) {
                    let bytes = all[at].waits.unwrap_or(bytes);
                    all[at].poll(bytes);
                },
                Step::GiveBack(number) => if let Some(at) = at(number, &all)
                    && let Some(bytes) = all[at].taken.pop()
                {
                    all[at].client.account.give_back(bytes);
                },
                Step::Stop(number) => if let Some(at) = at(number, &all) {
                    all[at].client.account.stop_waiting();
                    all[at].waits = None;
                },
            }
            let held: usize = all.iter().map(|busy| busy.client.account.held()).sum();
            prop_assert!(held <= budget.used() && budget.used() <= TOTAL);
        }
        // Everybody answers what it has under way; whoever is woken tries again.
        let mut rounds = 0;
        while all.iter().any(|busy| busy.waits.is_some() || !busy.taken.is_empty()) {
            rounds += 1;
            prop_assert!(rounds < 1000, "somebody waits for ever");
            for busy in &mut all {
                while let Some(bytes) = busy.taken.pop() {
                    busy.client.account.give_back(bytes);
                }
                if busy.client.woken() && let Some(bytes) = busy.waits {
                    busy.poll(bytes);
                }
            }
        }
        let shares = all.len() * SHARE;
        prop_assert_eq!(budget.used(), shares);
        drop(all);
        prop_assert_eq!(budget.used(), 0);
    }
}
