use super::{arrange, decode_rows, generator, invert, times};

/// All ways to choose `k` of `n` fragments.
fn subsets(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
    (0_u32..1 << n)
        .filter(move |set| set.count_ones() as usize == k)
        .map(move |set| (0..n).filter(|&index| set >> index & 1 == 1).collect())
}

#[test]
fn any_k_fragments_give_all_others() {
    for n in 1..=12 {
        for k in 1..=n {
            let matrix = generator(k, n - k);
            let all: Vec<usize> = (0..n).collect();
            for subset in subsets(n, k) {
                let tagged: Vec<(usize, ())> = subset.iter().map(|&index| (index, ())).collect();
                let sources: Vec<usize> = arrange(k, &tagged).iter().map(|&(index, ())| index).collect();
                let given: Vec<u8> =
                    sources.iter().flat_map(|&index| &matrix[index * k..(index + 1) * k]).copied().collect();
                let rows = decode_rows(&matrix, k, &sources, &all);
                let product: Vec<u8> = rows.chunks_exact(k).flat_map(|row| times(row, &given, k)).collect();
                assert_eq!(product, matrix, "{k}+{} from {sources:?}", n - k);
            }
        }
    }
}

#[test]
fn the_widest_codes_survive_the_worst_losses() {
    for k in [1, 15, 16, 17, 22, 31] {
        let m = 32 - k;
        let matrix = generator(k, m);
        for skip in 0..=m {
            let sources: Vec<(usize, ())> = (skip..skip + k).map(|index| (index, ())).collect();
            let sources: Vec<usize> = arrange(k, &sources).iter().map(|&(index, ())| index).collect();
            let given: Vec<u8> =
                sources.iter().flat_map(|&index| &matrix[index * k..(index + 1) * k]).copied().collect();
            let all: Vec<usize> = (0..32).collect();
            let rows = decode_rows(&matrix, k, &sources, &all);
            let product: Vec<u8> = rows.chunks_exact(k).flat_map(|row| times(row, &given, k)).collect();
            assert_eq!(product, matrix, "{k}+{m} without the first {skip}");
        }
    }
}

#[test]
fn data_fragments_stay_in_their_place() {
    let given = [(5, 'p'), (2, 'c'), (0, 'a'), (4, 'q')];
    assert_eq!(arrange(4, &given), [(0, 'a'), (5, 'p'), (2, 'c'), (4, 'q')]);
}

#[test]
fn a_singular_matrix_has_no_inverse() {
    assert_eq!(invert(&[3, 5, 3, 5], 2), None);
    assert_eq!(invert(&[0], 1), None);
    assert_eq!(invert(&[2, 0, 0, 1], 2).unwrap(), [142, 0, 0, 1]);
}
