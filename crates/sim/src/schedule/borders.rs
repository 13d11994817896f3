//! Sizes and places where a map gets another page, or another level: drawn evenly they are hardly ever met.

use map::FANOUT;

use crate::rng::Rng;

/// What pages of the first levels hold, blocks: a leaf, and a page of leaves.
const PAGES: [u64; 2] = [FANOUT, FANOUT * FANOUT];
/// Most of them in a row.
const PAGES_MAX: u64 = 4;

/// A size of `1..=most` blocks; in half the cases it ends where pages of a map do, or one block beside.
pub(super) fn size(rng: &mut Rng, most: u64) -> u64 {
    if rng.coin() {
        return 1 + rng.below(most);
    }
    beside_a_border(rng, most).clamp(1, most.max(1))
}

/// A block of a disk of `blocks` blocks where pages of its map meet, or one beside.
pub(super) fn place(rng: &mut Rng, blocks: u64) -> u64 {
    beside_a_border(rng, blocks).min(blocks.saturating_sub(1))
}

fn beside_a_border(rng: &mut Rng, most: u64) -> u64 {
    let fitting = PAGES.iter().filter(|page| **page <= most.saturating_add(1)).count();
    // On the smallest disks the end of the disk is all there is.
    let page = if fitting == 0 { most } else { PAGES[rng.index(fitting)] };
    let times = 1 + rng.below((most / page.max(1)).clamp(1, PAGES_MAX));
    (page * times + rng.below(3)).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn borders_are_met_and_sizes_are_sound() {
        let mut rng = Rng::new(1, "borders");
        for most in [1, 2, 63, 64, 65, 200, 4095, 4096, 10_000] {
            let sizes: BTreeSet<u64> = (0..500).map(|_| size(&mut rng, most)).collect();
            let places: BTreeSet<u64> = (0..500).map(|_| place(&mut rng, most)).collect();
            assert!(sizes.iter().all(|size| (1..=most).contains(size)), "{most}: {sizes:?}");
            assert!(places.iter().all(|place| *place < most), "{most}: {places:?}");
            let borders = PAGES.iter().flat_map(|page| [page - 1, *page, page + 1]);
            for border in borders.filter(|border| *border < most) {
                assert!(sizes.contains(&border) && places.contains(&border), "{border} of {most}");
            }
        }
    }
}
