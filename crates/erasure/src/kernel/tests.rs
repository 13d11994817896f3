//! Every kernel of this processor against the scalar twin, and the twin against the definition.

use super::{GROUP, Kernel, STRIPE_BYTES, Supported, Table};
use crate::gf::mul;

const CANARY: u8 = 0xa5;

/// Bytes without pattern, from a seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

fn vector_kernels() -> Vec<Supported> {
    let kernels: Vec<Supported> = Kernel::ALL.into_iter().skip(1).filter_map(Supported::new).collect();
    assert!(
        !kernels.is_empty() || !cfg!(target_arch = "x86_64"),
        "this processor runs none of the vector kernels"
    );
    kernels
}

/// Runs `table` on `length` bytes that begin `shift` bytes into each buffer, and checks that nothing around them
/// was written.
fn run(table: &Table, inputs: &[Vec<u8>], shift: usize, length: usize) -> Vec<Vec<u8>> {
    // Each input and output lies at another alignment.
    let begin = |index: usize| shift + index % 3;
    let inputs: Vec<&[u8]> =
        inputs.iter().enumerate().map(|(i, input)| &input[begin(i)..begin(i) + length]).collect();
    let mut buffers = vec![vec![CANARY; shift + length + 70]; table.rows];
    let mut outputs: Vec<&mut [u8]> =
        buffers.iter_mut().enumerate().map(|(i, buffer)| &mut buffer[begin(i)..begin(i) + length]).collect();
    table.apply(&inputs, &mut outputs);
    for (i, buffer) in buffers.iter_mut().enumerate() {
        let (before, rest) = buffer.split_at(begin(i));
        let after = &rest[length..];
        assert!(before.iter().chain(after).all(|&byte| byte == CANARY), "wrote outside of output {i}");
        buffer.drain(..begin(i));
        buffer.truncate(length);
    }
    buffers
}

fn compare(columns: usize, rows: usize, shifts: &[usize], lengths: impl Iterator<Item = usize> + Clone) {
    let matrix = noise((columns * 64 + rows) as u64, columns * rows);
    let longest = lengths.clone().max().unwrap() + shifts.iter().max().unwrap() + 2;
    let inputs: Vec<Vec<u8>> = (0..columns).map(|i| noise(1000 + i as u64, longest)).collect();
    let scalar = Table::new(Supported::new(Kernel::Scalar).unwrap(), columns, &matrix);
    for length in lengths {
        for &shift in shifts {
            let expected = run(&scalar, &inputs, shift, length);
            for kernel in vector_kernels() {
                let got = run(&Table::new(kernel, columns, &matrix), &inputs, shift, length);
                assert!(
                    got == expected,
                    "{} differs: {rows} x {columns}, {length} bytes at {shift}",
                    kernel.kernel()
                );
            }
        }
    }
}

#[test]
fn the_scalar_twin_is_the_matrix_product() {
    for (columns, rows) in [(1, 1), (3, 2), (8, 2), (5, 9)] {
        let matrix = noise(7, columns * rows);
        let inputs: Vec<Vec<u8>> = (0..columns).map(|i| noise(i as u64, 500)).collect();
        let table = Table::new(Supported::new(Kernel::Scalar).unwrap(), columns, &matrix);
        let outputs = run(&table, &inputs, 0, 490);
        for (output, row) in outputs.iter().zip(matrix.chunks_exact(columns)) {
            for (at, &byte) in output.iter().enumerate() {
                let sum = row
                    .iter()
                    .zip(&inputs)
                    .enumerate()
                    .fold(0, |sum, (i, (&coefficient, input))| sum ^ mul(coefficient, input[at + i % 3]));
                assert_eq!(byte, sum, "byte {at}");
            }
        }
    }
}

#[test]
fn every_coefficient_times_every_byte() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    for kernel in Kernel::ALL.into_iter().filter_map(Supported::new) {
        for coefficient in 0..=255 {
            let mut out = vec![0; 256];
            Table::new(kernel, 1, &[coefficient]).apply(&[&all_bytes], &mut [&mut out]);
            let expected: Vec<u8> = all_bytes.iter().map(|&byte| mul(coefficient, byte)).collect();
            assert_eq!(out, expected, "{} x {coefficient}", kernel.kernel());
        }
    }
}

#[test]
fn kernels_agree_on_every_short_length_and_alignment() {
    let shifts: Vec<usize> = (0..67).step_by(11).chain([1, 16, 32, 64]).collect();
    for (columns, rows) in [(1, 1), (2, 2), (4, 2), (8, 2), (3, GROUP - 1), (3, GROUP), (3, GROUP + 1)] {
        compare(columns, rows, &shifts, 0..300);
    }
}

#[test]
fn kernels_agree_across_stripes() {
    for (columns, rows) in [(4, 2), (8, 2), (3, GROUP + 1), (3, 2 * GROUP + 3), (31, 1), (10, 22)] {
        let stripe = (STRIPE_BYTES / columns).next_multiple_of(super::STRIPE_ALIGN);
        let around = |edge: usize| [edge - 1, edge, edge + 1, edge + 15, edge + 33, edge + 65, edge + 127];
        let lengths: Vec<usize> = [stripe, 2 * stripe].into_iter().flat_map(around).collect();
        compare(columns, rows, &[0, 3], lengths.into_iter());
    }
}

#[test]
fn the_best_kernel_is_the_last_available_one() {
    let best = Supported::best().kernel();
    assert!(best.is_available());
    assert!(Kernel::ALL.into_iter().all(|kernel| kernel <= best || !kernel.is_available()));
}
