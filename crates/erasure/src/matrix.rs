//! Matrices over GF(2^8), row by row in flat vectors: the generator and the rows that give lost fragments back.

use crate::gf::{inverse, mul};

/// The generator of k + m: (k + m) rows of k. Identity, then Cauchy rows: row i, column j is 1 / (i xor j).
pub(crate) fn generator(k: usize, m: usize) -> Vec<u8> {
    let mut rows = vec![0; (k + m) * k];
    for (i, row) in rows.chunks_exact_mut(k).enumerate() {
        if i < k {
            row[i] = 1;
            continue;
        }
        for (j, coefficient) in row.iter_mut().enumerate() {
            let difference = u8::try_from(i ^ j).expect("indices are below MAX_FRAGMENTS");
            *coefficient = inverse(difference).expect("parity and data indices differ");
        }
    }
    rows
}

/// Puts k sources in an order that makes inversion cheap: data fragment i at place i, parity in the gaps.
pub(crate) fn arrange<T: Copy>(k: usize, sources: &[(usize, T)]) -> Vec<(usize, T)> {
    let mut parity = sources.iter().filter(|&&(index, _)| index >= k);
    (0..k)
        .map(|place| match sources.iter().find(|&&(index, _)| index == place) {
            Some(&data) => data,
            None => *parity.next().expect("k different fragments fill k places"),
        })
        .collect()
}

/// The rows that give the fragments `lost` from the fragments `sources`, k of them in the order of [`arrange`].
pub(crate) fn decode_rows(generator: &[u8], k: usize, sources: &[usize], lost: &[usize]) -> Vec<u8> {
    let row = |index: usize| &generator[index * k..(index + 1) * k];
    let matrix: Vec<u8> = sources.iter().flat_map(|&index| row(index)).copied().collect();
    // In this order the upper left t x t part is, but for unit rows, a square part of the Cauchy matrix: invertible.
    let data = invert(&matrix, k).expect("every square part of a Cauchy matrix is invertible");
    lost.iter().flat_map(|&index| times(row(index), &data, k)).collect()
}

/// `row` x `matrix`.
fn times(row: &[u8], matrix: &[u8], k: usize) -> Vec<u8> {
    let mut product = vec![0; k];
    for (&factor, line) in row.iter().zip(matrix.chunks_exact(k)) {
        add_multiple(&mut product, line, factor);
    }
    product
}

/// The inverse of a k x k matrix by Gauss-Jordan elimination without exchange of rows; `None` when one of the upper
/// left square parts has none.
fn invert(matrix: &[u8], k: usize) -> Option<Vec<u8>> {
    let width = 2 * k;
    let mut wide = Vec::with_capacity(width * k);
    for (left, right) in matrix.chunks_exact(k).zip(generator(k, 0).chunks_exact(k)) {
        wide.extend_from_slice(left);
        wide.extend_from_slice(right);
    }
    for column in 0..k {
        let (above, rest) = wide.split_at_mut(column * width);
        let (pivot, below) = rest.split_at_mut(width);
        let scale = inverse(pivot[column])?;
        if scale != 1 {
            pivot.iter_mut().for_each(|value| *value = mul(*value, scale));
        }
        for row in above.chunks_exact_mut(width).chain(below.chunks_exact_mut(width)) {
            let factor = row[column];
            add_multiple(row, pivot, factor);
        }
    }
    Some(wide.chunks_exact(width).flat_map(|row| &row[k..]).copied().collect())
}

/// Adds `factor` x `row` to `sum`.
fn add_multiple(sum: &mut [u8], row: &[u8], factor: u8) {
    if factor == 0 {
        return;
    }
    for (value, &term) in sum.iter_mut().zip(row) {
        *value ^= mul(factor, term);
    }
}

#[cfg(test)]
mod tests;
