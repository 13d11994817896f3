mod format;

use index::Holder;
use journal::{ENSEMBLES_MAX, Ensemble};
use proto::SegmentId;
use units::{BLOCK_U64, ContainerId, DiskId, Epoch, Fingerprint, Incarnation, Lba, MediumId, Seq};

use crate::admission::{blocks_in, unreserved};
use crate::body::pieces;
use crate::generation::{BLOCK_DIRECTORY_BYTES, Buffered, Generation};
use crate::ranges::Ranges;
use crate::state::State;
use crate::witness::WitnessState;

fn container(number: u32) -> ContainerId {
    ContainerId { incarnation: Incarnation(7), number, class: 5, row: 0 }
}

fn block(seq: u64, bytes: usize) -> Buffered {
    Buffered { fingerprint: Fingerprint([seq as u8; 16]), unit: vec![1; bytes].into(), seq: Seq(seq) }
}

#[test]
fn the_ledger_keeps_ranges_joined_and_in_order() {
    let mut state = State::default();
    let numbers = [5, 3, 4, 9, 0, 1, 2, 7, 8, 3];
    for (i, number) in numbers.iter().enumerate() {
        state.enter_committed(container(*number));
        for n in 0..12 {
            assert_eq!(state.is_committed(container(n)), numbers[..=i].contains(&n), "after {i}: {n}");
        }
    }
    assert_eq!(state.ledger_runs()[0].committed, [(0, 6), (7, 10)]);
    assert!(!state.is_committed(ContainerId { incarnation: Incarnation(8), ..container(3) }));
}

/// Where two have something by one name, the first in the list is what readers and the mark find: it stays the first.
#[test]
fn a_stub_keeps_its_order_when_what_it_leads_to_moves_on() {
    let holder = |number: u32| Holder { container: container(number), fragment_pages: 1 };
    let mut state = State::default();
    state.stubs.insert(container(0), vec![holder(1), holder(2), holder(3)]);
    state.stubs.insert(container(9), vec![holder(3)]);
    let on = |moved: u32, to: &[u32]| {
        let to: Vec<Holder> = to.iter().map(|number| holder(*number)).collect();
        let led = state.led_on(container(moved), &to).into_iter();
        let numbers = |to: Vec<Holder>| to.iter().map(|to| to.container.number).collect::<Vec<_>>();
        led.map(|(from, to)| (from.number, numbers(to))).collect::<Vec<_>>()
    };
    assert_eq!(on(1, &[4, 5]), [(0, vec![4, 5, 2, 3])]);
    assert_eq!(on(2, &[3, 4]), [(0, vec![1, 3, 4])]);
    assert_eq!(on(3, &[6]), [(0, vec![1, 2, 6]), (9, vec![6])]);
    assert!(on(7, &[8]).is_empty());
}

#[test]
fn a_generation_never_outgrows_its_container() {
    let mut generation = Generation::default();
    let limit = 64 * 1024;
    let mut seq = 0;
    while generation.has_room(2100, limit) {
        seq += 1;
        generation.put(DiskId(1), Lba(seq), block(seq, 2100));
    }
    let worst = seq as usize * (2100 + BLOCK_DIRECTORY_BYTES);
    assert!(worst <= limit && worst + 2 * (2100 + BLOCK_DIRECTORY_BYTES) > limit, "{worst}");
    assert_eq!(generation.blocks, seq);
    generation.punch(DiskId(1), Lba(1), seq);
    assert_eq!((generation.blocks, generation.holes), (0, 1));
}

/// Tiny units, holes and generations that cuts ended: none of them makes more changes than a map log takes.
#[test]
fn a_batch_never_outgrows_its_map_log() {
    let most = container::CHANGES_MAX as u64;
    let limit = 64 << 20;
    let mut generation = Generation::default();
    let mut seq: u64 = 0;
    while generation.has_room(60, limit) {
        seq += 1;
        if seq.is_multiple_of(2) {
            generation.put(DiskId(1), Lba(seq), block(seq, 60));
        } else {
            generation.punch(DiskId(2), Lba(2 * seq), 1);
        }
    }
    assert_eq!(generation.blocks + generation.holes, most);

    let mut state = State::default();
    for disk in 0..4 {
        for seq in 0..most / 3 {
            state.active.put(DiskId(disk), Lba(seq), block(seq, 60));
        }
        state.next_seq = Seq(1 + disk);
        state.freeze();
    }
    let batch = state.next_batch(limit);
    assert_eq!(batch.len(), 3, "three thirds fit, and no fourth");
}

/// The bytes that are counted for a backlog are never fewer than those it has.
#[test]
fn a_backlog_is_no_longer_than_counted() {
    let most = |number: u32| ContainerId {
        incarnation: Incarnation(u64::MAX - u64::from(number)),
        number: u32::MAX,
        class: u8::MAX,
        row: u16::MAX,
    };
    let mut state = State::default();
    for number in 0..50 {
        let commit = journal::Commit {
            container: most(number),
            total: u32::MAX,
            entries: u32::MAX,
            map_log_bytes: u32::MAX,
            map_log: Fingerprint([9; 16]),
            ordinal: u64::MAX - 1,
            covered: Seq(u64::MAX),
            blocks: u32::MAX,
            block_bytes: u64::MAX,
        };
        state.commits.push(commit);
        state.deleted.push(journal::Deleted { container: most(number), total: u32::MAX, blocks: u32::MAX });
        state.meta.push((Seq(u64::MAX), Fingerprint([8; 16]), vec![7; 300]));
    }
    let encoded = postcard::to_stdvec(&state.backlog()).expect("encodes").len();
    let counted = state.backlog_bytes();
    assert!(encoded <= counted + 64, "{encoded} bytes where {counted} are counted");
}

/// What is inserted moves no border far behind it, and the pieces are the whole.
#[test]
fn pieces_are_cut_by_their_contents() {
    let mut state: u64 = 7;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let before: Vec<u8> = (0..300_000).map(|_| byte()).collect();
    let mut after = before.clone();
    after.splice(100_000..100_000, [1, 2, 3]);
    let (old, new) = (pieces(&before, 4096), pieces(&after, 4096));
    assert!(old.iter().all(|piece| (1..=4096).contains(&piece.len())));
    assert_eq!((old.concat(), new.concat()), (before.clone(), after.clone()));
    let shared = new.iter().filter(|piece| old.contains(piece)).count();
    assert!(old.len() > 100 && shared + 3 >= new.len(), "{shared} of {} are shared", new.len());
    assert!(pieces(&[], 4096).is_empty());
    // Without pattern: as long as they may be.
    assert_eq!(pieces(&[0; 10_000], 4096).iter().map(|piece| piece.len()).max(), Some(4096));
}

/// States of every shape.
fn witness_states() -> Vec<WitnessState> {
    let ensemble = |members: &[u8]| {
        let members: Vec<MediumId> = members.iter().map(|n| MediumId([*n; 16])).collect();
        Ensemble::new(&members).expect("a sound ensemble")
    };
    let last = SegmentId { epoch: Epoch(3), stream: Incarnation(99), number: 7 };
    let one = WitnessState { epoch: Epoch(4), last: Some(last), ensembles: vec![ensemble(&[2, 1])] };
    let most = (0..ENSEMBLES_MAX as u8).map(|n| ensemble(&[n, n + 1, n + 2, n + 3])).collect();
    vec![
        WitnessState::default(),
        WitnessState { ensembles: Vec::new(), ..one.clone() },
        WitnessState { last: None, ensembles: vec![ensemble(&[1]), ensemble(&[3, 1, 2])], ..one.clone() },
        WitnessState { ensembles: most, ..one.clone() },
        one,
    ]
}

#[test]
fn the_witness_reads_back_and_every_flip_is_found() {
    for state in witness_states() {
        let bytes = state.encode();
        assert_eq!(WitnessState::decode(&bytes), Some(state));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(WitnessState::decode(&bad), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(WitnessState::decode(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(WitnessState::decode(&[bytes, vec![0]].concat()), None, "a byte too many");
    }
    let golden = witness_states().pop().expect("there are some").encode();
    let hex: String = golden.iter().map(|byte| format!("{byte:02x}")).collect();
    let want = "48465754020001010400000000000000030000000000000063000000000000000700000002\
                0101010101010101010101010101010102020202020202020202020202020202";
    assert_eq!(hex[..hex.len() - 8], *want, "the format is a promise");
    assert_eq!(golden[golden.len() - 4..], units::crc32c(&golden[..golden.len() - 4]).to_le_bytes());
}

/// Bytes that the check sum fits and that say what no state does.
#[test]
fn a_witness_that_makes_no_sense_is_refused() {
    let sound = witness_states().pop().expect("there are some").encode();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = sound.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        mend_witness(&mut bad);
        bad
    };
    assert!(WitnessState::decode(&with(0, b"H")).is_some());
    for bad in [
        with(4, &[1]),
        with(6, &[0]),
        with(6, &[2]),
        with(7, &[0]),
        with(7, &[2]),
        with(7, &[ENSEMBLES_MAX as u8 + 1]),
        with(36, &[0]),
        with(36, &[1]),
        with(36, &[255]),
        with(37, &[3; 16]),
        with(37, &[2; 16]),
    ] {
        assert_eq!(WitnessState::decode(&bad), None);
    }
}

/// Puts the check sum right, or nothing gets behind it.
fn mend_witness(bytes: &mut [u8]) {
    if let Some((checked, sum)) = bytes.len().checked_sub(4).map(|end| bytes.split_at_mut(end)) {
        sum.copy_from_slice(&units::crc32c(checked).to_le_bytes());
    }
}

#[test]
fn a_partial_write_has_its_block_alone() {
    use std::task::{Context, Poll, Waker};
    let ranges = Ranges::default();
    let now = |future: std::pin::Pin<&mut dyn Future<Output = _>>| {
        matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    };
    let disk = DiskId(1);
    let shared = std::pin::pin!(ranges.hold(disk, 0, 10, false));
    let Poll::Ready(first) = shared.poll(&mut Context::from_waker(Waker::noop())) else { panic!("free") };
    let mut also = Box::pin(ranges.hold(disk, 5, 15, false));
    assert!(now(also.as_mut()), "whole-block writes share");
    let mut alone = Box::pin(ranges.hold(disk, 9, 10, true));
    assert!(!now(alone.as_mut()), "a partial write waits for writes under way");
    let mut elsewhere = Box::pin(ranges.hold(DiskId(2), 9, 10, true));
    assert!(now(elsewhere.as_mut()), "other disks are no concern of it");
    drop(first);
    assert!(now(alone.as_mut()), "the guards of a polled future fell with it");
    let mut behind = Box::pin(ranges.hold(disk, 0, 10, false));
    assert!(now(behind.as_mut()));
}

#[test]
fn what_status_says_is_writable_is_what_is_granted() {
    let space = |containers| pool::Space { containers, container_bytes: 1 << 20, ..pool::Space::default() };
    assert_eq!((0..=6).map(|n| unreserved(&space(n))).max(), Some(0), "the reserve is no room");
    assert_eq!(unreserved(&space(7)), 1 << 20);
    assert_eq!(unreserved(&space(640)), (640 - 6 - 10) << 20, "a share of a large pool is reserved");
    // Granting block by block, each lowers what is writable by one, to nothing.
    let mut state = State::default();
    let room = unreserved(&space(7));
    let writable = |state: &State| blocks_in(room.saturating_sub(state.granted()));
    let first = writable(&state);
    assert!(first > 100 && first * BLOCK_U64 < room, "{first}");
    for granted in 1..=first {
        state.under_way_blocks = granted;
        assert_eq!(writable(&state), first - granted);
    }
    state.under_way_blocks += 1;
    assert_eq!(writable(&state), 0);
}

mod fuzz {
    #[test]
    fn witnesses_that_are_damaged_behind_a_sound_sum_never_panic() {
        let corpus: Vec<Vec<u8>> = super::witness_states().iter().map(crate::WitnessState::encode).collect();
        seam::testing::replay(&corpus, 20_000, |input| {
            let mut input = input.to_vec();
            super::mend_witness(&mut input);
            crate::fuzz::fuzz_body(&input);
            if let Some(state) = crate::WitnessState::decode(&input) {
                assert_eq!(state.encode(), input, "one state, one form");
            }
        });
    }

    #[test]
    fn hostile_bytes_never_panic() {
        let mut word = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word
        };
        for _ in 0..20_000 {
            let length = next() % 120;
            let mut input: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            if next() % 2 == 0 && input.len() > 4 {
                input[..4].copy_from_slice(b"HFWT");
            } else if let Some(first) = input.first_mut() {
                *first = 1;
            }
            crate::fuzz::fuzz_body(&input);
        }
    }
}
