//! The twin in plain Rust: one table of 256 products for each coefficient.

use std::ops::Range;

use crate::gf::PRODUCTS;

/// Overwrites `range` of each output; `coefficients` holds, for each input, one coefficient of each output.
pub(super) fn dot(coefficients: &[u8], inputs: &[&[u8]], range: Range<usize>, outputs: &mut [&mut [u8]]) {
    for output in outputs.iter_mut() {
        output[range.clone()].fill(0);
    }
    for (column, input) in coefficients.chunks_exact(outputs.len()).zip(inputs) {
        for (&coefficient, output) in column.iter().zip(outputs.iter_mut()) {
            let products = &PRODUCTS[usize::from(coefficient)];
            for (sum, &byte) in output[range.clone()].iter_mut().zip(&input[range.clone()]) {
                *sum ^= products[usize::from(byte)];
            }
        }
    }
}
