use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{replay, run};

#[test]
fn every_cut_and_every_flip_comes() {
    let sound: Vec<u8> = (0..40).collect();
    let seen = RefCell::new(BTreeSet::new());
    replay(std::slice::from_ref(&sound), 0, |input| {
        seen.borrow_mut().insert(input.to_vec());
    });
    let seen = seen.into_inner();
    assert!((0..=sound.len()).all(|length| seen.contains(&sound[..length])));
    for bit in 0..sound.len() * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(seen.contains(&flipped), "bit {bit}");
    }
}

#[test]
fn a_long_input_is_sampled_at_every_bit_of_a_byte() {
    let sound = vec![0; 100_000];
    let (bits, count) = (Cell::new(0), Cell::new(0));
    replay(&[sound], 0, |input| {
        bits.set(input.iter().fold(bits.get(), |all, byte| all | byte));
        count.set(count.get() + 1);
    });
    assert_eq!(bits.get(), 0xff_u8);
    assert!((10_000..20_000).contains(&count.get()), "{}", count.get());
}

#[test]
fn mutations_find_what_needs_two_changes_and_come_again() {
    let corpus = [vec![0; 32]];
    let finds = || {
        catch_unwind(AssertUnwindSafe(|| {
            replay(&corpus, 5000, |input| assert!(input.get(9..11) != Some(&[0xff, 0xff]), "found"))
        }))
        .is_err()
    };
    assert!(finds() && finds());
}

#[test]
fn a_run_keeps_time_and_order_by_its_seed() {
    let draw = |seed| {
        run(seed, async |rt| {
            let (sent, mut got) = tokio::sync::mpsc::unbounded_channel();
            for number in 0..6 {
                let sent = sent.clone();
                rt.spawn("teller", Box::pin(async move { sent.send(number).expect("it is awaited") }));
            }
            rt.sleep(Duration::from_secs(3600)).await;
            assert_eq!(rt.now(), Duration::from_secs(3600));
            std::iter::from_fn(|| got.try_recv().ok()).collect::<Vec<_>>()
        })
    };
    assert_eq!(draw(1), draw(1));
    assert_eq!(draw(1).len(), 6);
    assert!((2..20).any(|seed| draw(seed) != draw(1)), "the seed draws the order");
}
