//! The loop all vector kernels share: a group of sums held in registers while the inputs pass by once.

#![allow(unsafe_code)] // vector instructions and unaligned pointers

use std::ops::Range;

/// A vector register and how to multiply in it.
///
/// # Safety
/// `load` and `store` touch exactly [`Lane::WIDTH`] bytes at the pointer. All functions need the processor features
/// the implementation names, and nothing else.
pub(super) unsafe trait Lane {
    /// Bytes in a register.
    const WIDTH: usize;
    /// A register.
    type Register: Copy;
    /// A register of input, made ready to be multiplied.
    type Input: Copy;
    /// A coefficient, as the table holds it.
    type Entry;
    /// A coefficient, loaded.
    type Factor: Copy;

    /// All bits zero.
    unsafe fn zero() -> Self::Register;
    /// Reads `WIDTH` bytes, of any alignment.
    unsafe fn load(from: *const u8) -> Self::Input;
    /// Writes `WIDTH` bytes, of any alignment.
    unsafe fn store(to: *mut u8, value: Self::Register);
    /// Loads a coefficient.
    unsafe fn factor(entry: &Self::Entry) -> Self::Factor;
    /// sum + factor x input.
    unsafe fn add_product(sum: Self::Register, factor: Self::Factor, input: Self::Input) -> Self::Register;
}

/// Overwrites `range` of each output (1 to 4); `entries` holds, for each input, one coefficient of each output.
///
/// When the range is no whole number of registers, the last one ends where the range ends and overlaps what was done
/// before, which gives the same bytes again.
///
/// # Safety
/// The processor has the features of `L`. Inputs and outputs are at least `range.end` bytes long, `range.end` is at
/// least `L::WIDTH`.
#[inline(always)]
pub(super) unsafe fn dot<L: Lane>(
    entries: &[L::Entry],
    inputs: &[&[u8]],
    range: Range<usize>,
    outputs: &mut [&mut [u8]],
) {
    // SAFETY: as this function's own contract; each arm names the number of outputs there are.
    unsafe {
        match outputs {
            [a] => group::<L, 1>(entries, inputs, range, [a]),
            [a, b] => group::<L, 2>(entries, inputs, range, [a, b]),
            [a, b, c] => group::<L, 3>(entries, inputs, range, [a, b, c]),
            [a, b, c, d] => group::<L, 4>(entries, inputs, range, [a, b, c, d]),
            _ => unreachable!("outputs come in groups of 1 to 4"),
        }
    }
}

/// # Safety
/// As [`dot`].
#[inline(always)]
unsafe fn group<L: Lane, const G: usize>(
    entries: &[L::Entry],
    inputs: &[&[u8]],
    range: Range<usize>,
    outputs: [&mut [u8]; G],
) {
    let (columns, _) = entries.as_chunks::<G>();
    let outputs = outputs.map(<[u8]>::as_mut_ptr);
    let Range { start: mut at, end } = range;
    // SAFETY: each step ends at or before `end`, which no slice is shorter than; the last begins at 0 or later
    // because `end` is at least `WIDTH`. The features are there by this function's contract.
    unsafe {
        while at + 2 * L::WIDTH <= end {
            step::<L, G, 2>(columns, inputs, at, &outputs);
            at += 2 * L::WIDTH;
        }
        while at + L::WIDTH <= end {
            step::<L, G, 1>(columns, inputs, at, &outputs);
            at += L::WIDTH;
        }
        if at < end {
            step::<L, G, 1>(columns, inputs, end - L::WIDTH, &outputs);
        }
    }
}

/// Computes `V` registers of `G` outputs, at byte `at`.
///
/// # Safety
/// The processor has the features of `L`; inputs and outputs have `V * L::WIDTH` bytes from `at` on.
#[inline(always)]
unsafe fn step<L: Lane, const G: usize, const V: usize>(
    columns: &[[L::Entry; G]],
    inputs: &[&[u8]],
    at: usize,
    outputs: &[*mut u8; G],
) {
    // SAFETY: the bytes and features are there by this function's contract.
    unsafe {
        let mut sums = [[L::zero(); V]; G];
        for (column, input) in columns.iter().zip(inputs) {
            let from = input.as_ptr().add(at);
            let mut bytes = [L::load(from); V];
            for (v, bytes) in bytes.iter_mut().enumerate().skip(1) {
                *bytes = L::load(from.add(v * L::WIDTH));
            }
            for (entry, sums) in column.iter().zip(&mut sums) {
                let factor = L::factor(entry);
                for (sum, &bytes) in sums.iter_mut().zip(&bytes) {
                    *sum = L::add_product(*sum, factor, bytes);
                }
            }
        }
        for (&output, sums) in outputs.iter().zip(&sums) {
            for (v, &sum) in sums.iter().enumerate() {
                L::store(output.add(at + v * L::WIDTH), sum);
            }
        }
    }
}
