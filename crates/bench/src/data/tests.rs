use std::collections::BTreeSet;

use super::*;

fn block(generator: &Generator, place: u64, generation: u32) -> Vec<u8> {
    let mut block = vec![0xff; BLOCK];
    generator.fill(place, generation, &mut block);
    block
}

#[test]
fn every_block_differs_from_every_other() {
    let generator = Generator::new(1, 0.5, 0.0);
    let mut seen = BTreeSet::new();
    for place in 0..1000 {
        for generation in 1..4 {
            assert!(seen.insert(block(&generator, place, generation)), "{place} {generation}");
        }
    }
    // Not by their heads alone: no 64 bytes of noise come twice, wherever they stand in a block.
    let mut noise = BTreeSet::new();
    for content in &seen {
        for piece in content[HEAD..HEAD + 2032].chunks_exact(64) {
            assert!(noise.insert(piece.to_vec()), "noise repeats");
        }
    }
    let other = Generator::new(2, 0.5, 0.0);
    assert_ne!(block(&generator, 7, 1)[HEAD..], block(&other, 7, 1)[HEAD..], "the seed matters");
}

#[test]
fn blocks_compress_to_the_share_asked_for() {
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let generator = Generator::new(3, share, 0.0);
        let packed: usize =
            (0..100).map(|place| lz4_flex::block::compress(&block(&generator, place, 1)).len()).sum();
        let kept = packed as f64 / (100 * BLOCK) as f64;
        assert!((kept - (1.0 - share)).abs() < 0.02, "share {share}: {kept} of it is left");
    }
}

#[test]
fn the_share_of_duplicates_is_the_one_asked_for() {
    for (share, distinct) in [(0.0, 20_000), (0.3, 14_000 + DUPLICATE_CONTENTS), (1.0, DUPLICATE_CONTENTS)] {
        let generator = Generator::new(4, 0.5, share);
        let seen: BTreeSet<_> = (0..20_000).map(|place| block(&generator, place, 1)[..64].to_vec()).collect();
        let off = (seen.len() as f64 - distinct as f64).abs();
        assert!(off < 300.0, "share {share}: {} different blocks, about {distinct} expected", seen.len());
    }
}

#[test]
fn a_wrong_block_is_told_from_the_right_one() {
    let generator = Generator::new(5, 0.5, 0.0);
    let mut room = vec![0; BLOCK];
    assert_eq!(generator.check(9, 0, &[0; BLOCK], &mut room), Ok(()));
    let mut read = block(&generator, 9, 2);
    assert_eq!(generator.check(9, 2, &read, &mut room), Ok(()));
    for (place, generation) in [(8, 2), (9, 1), (9, 3), (9, 0)] {
        let said = generator.check(place, generation, &read, &mut room).unwrap_err();
        assert!(said.contains("its head says place 9, generation 2"), "{said}");
    }
    read[4095] ^= 1;
    let said = generator.check(9, 2, &read, &mut room).unwrap_err();
    assert!(said.contains("from byte 4095 on"), "{said}");
}

#[test]
fn places_are_spread_and_repeatable() {
    let draw = |seed| {
        let mut random = Random::new(seed);
        (0..10_000).map(|_| random.below(10)).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    for number in 0..10 {
        let count = draw(1).into_iter().filter(|drawn| *drawn == number).count();
        assert!((850..1150).contains(&count), "{number}: {count} of 10000");
    }
}
