//! Reed-Solomon erasure code over GF(2^8): k data fragments become k + m, and any k of them give all others back.
//!
//! **Fragment** i of a stripe is data for i < k, parity for k <= i < k + m. All fragments of a stripe have the same
//! length. The code is systematic (data is stored as it is) and works byte by byte: byte n of every fragment
//! depends on byte n of the others and on nothing else, so any range of bytes is coded or rebuilt by itself.
//!
//! The field has the polynomial 0x11d; the generator matrix is the identity above a Cauchy matrix (row i >= k,
//! column j: the inverse of i xor j). Both are on-disk format: the bytes equal those of ISA-L's
//! `gf_gen_cauchy1_matrix` and `ec_encode_data` (`docs/decisions/0001-erasure-kernel.md`).
//!
//! Invariants: every k x k choice of generator rows is invertible (each square part of a Cauchy matrix is); every
//! [`Kernel`] gives the same bytes as [`Kernel::Scalar`]; `unsafe` stands only in `kernel/x86.rs` and
//! `kernel/vector.rs`.
//!
//! What it does not do: it finds no damage (checksums do; a wrong fragment gives wrong bytes), does no I/O, keeps
//! no state, starts no thread, knows no container.

#![warn(clippy::undocumented_unsafe_blocks)]

mod error;
mod gf;
mod kernel;
mod matrix;

pub use error::ErasureError;
pub use kernel::Kernel;

use kernel::{Supported, Table};

/// Most fragments of a stripe: a set of them fits the bits of a `u32`, a geometry has at most 10.
pub const MAX_FRAGMENTS: usize = 32;

/// The code of one geometry k + m: its generator matrix and the tables to encode with.
///
/// Building one takes microseconds; it never changes and can be shared between threads.
#[derive(Debug, Clone)]
pub struct Code {
    k: usize,
    m: usize,
    kernel: Supported,
    generator: Vec<u8>,
    encode: Table,
}

impl Code {
    /// The code of `k` data and `m` parity fragments, on the fastest kernel of this processor.
    ///
    /// # Errors
    /// [`ErasureError::Geometry`] when `k` is 0 or `k + m` exceeds [`MAX_FRAGMENTS`].
    pub fn new(k: usize, m: usize) -> Result<Self, ErasureError> {
        Self::build(k, m, Supported::best())
    }

    /// Like [`Code::new`], on the given kernel. For tests and measurements.
    ///
    /// # Errors
    /// As [`Code::new`]; [`ErasureError::Kernel`] when this processor lacks the kernel's instructions.
    pub fn with_kernel(k: usize, m: usize, kernel: Kernel) -> Result<Self, ErasureError> {
        Self::build(k, m, Supported::new(kernel).ok_or(ErasureError::Kernel { kernel })?)
    }

    fn build(k: usize, m: usize, kernel: Supported) -> Result<Self, ErasureError> {
        if k == 0 || k > MAX_FRAGMENTS || m > MAX_FRAGMENTS - k {
            return Err(ErasureError::Geometry { k, m });
        }
        let generator = matrix::generator(k, m);
        let encode = Table::new(kernel, k, &generator[k * k..]);
        Ok(Self { k, m, kernel, generator, encode })
    }

    /// Data fragments of a stripe; any so many fragments give the rest.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Parity fragments of a stripe; so many may be lost.
    pub fn m(&self) -> usize {
        self.m
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.kernel.kernel()
    }

    /// The generator matrix, (k + m) rows of k coefficients, row by row: fragment = row x data.
    pub fn generator(&self) -> &[u8] {
        &self.generator
    }

    /// Computes the m parity fragments of k data fragments.
    ///
    /// # Panics
    /// When `data` is not k slices, `parity` not m, or their lengths differ: a bug of the caller.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!(data.len(), self.k, "encode takes k data fragments");
        assert_eq!(parity.len(), self.m, "encode gives m parity fragments");
        self.encode.apply(data, parity);
    }

    /// Computes the fragments named by `wanted`, data or parity, from the first k of `present`.
    ///
    /// `present` holds (index, bytes) of at least k fragments, or the same range of bytes of each; `out[i]` receives
    /// fragment `wanted[i]` and has the same length. Fragments beyond the first k are checked for shape, not read.
    ///
    /// # Errors
    /// Fewer than k fragments, one given twice, an index not below k + m, `wanted` and `out` of different counts,
    /// fragments or outputs of different lengths. `out` is then untouched.
    pub fn reconstruct(
        &self,
        present: &[(usize, &[u8])],
        wanted: &[usize],
        out: &mut [&mut [u8]],
    ) -> Result<(), ErasureError> {
        self.check(present, wanted, out)?;
        let sources = matrix::arrange(self.k, &present[..self.k]);
        let indices: Vec<usize> = sources.iter().map(|&(index, _)| index).collect();
        let inputs: Vec<&[u8]> = sources.iter().map(|&(_, bytes)| bytes).collect();

        let mut lost = Vec::with_capacity(wanted.len());
        let mut outputs: Vec<&mut [u8]> = Vec::with_capacity(wanted.len());
        for (&index, output) in wanted.iter().zip(out.iter_mut()) {
            match indices.iter().position(|&source| source == index) {
                Some(at) => output.copy_from_slice(inputs[at]),
                None => {
                    lost.push(index);
                    outputs.push(output);
                }
            }
        }
        if !lost.is_empty() {
            let rows = matrix::decode_rows(&self.generator, self.k, &indices, &lost);
            Table::new(self.kernel, self.k, &rows).apply(&inputs, &mut outputs);
        }
        Ok(())
    }

    fn check(
        &self,
        present: &[(usize, &[u8])],
        wanted: &[usize],
        out: &[&mut [u8]],
    ) -> Result<(), ErasureError> {
        let fragments = self.k + self.m;
        let mut seen = 0_u32;
        for &(index, _) in present {
            if index >= fragments {
                return Err(ErasureError::NoSuchFragment { index, fragments });
            }
            if seen & (1 << index) != 0 {
                return Err(ErasureError::Duplicate { index });
            }
            seen |= 1 << index;
        }
        if present.len() < self.k {
            return Err(ErasureError::TooFew { given: present.len(), needed: self.k });
        }
        if let Some(&index) = wanted.iter().find(|&&index| index >= fragments) {
            return Err(ErasureError::NoSuchFragment { index, fragments });
        }
        if wanted.len() != out.len() {
            return Err(ErasureError::Outputs { wanted: wanted.len(), given: out.len() });
        }
        let expected = present[0].1.len();
        let lengths = present.iter().map(|(_, bytes)| bytes.len()).chain(out.iter().map(|bytes| bytes.len()));
        match lengths.into_iter().find(|&length| length != expected) {
            Some(found) => Err(ErasureError::Lengths { expected, found }),
            None => Ok(()),
        }
    }
}
