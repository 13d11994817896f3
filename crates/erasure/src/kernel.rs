//! Matrix times fragments, at the speed of memory: the choice of instructions and the walk over the bytes.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;
use std::sync::OnceLock;

/// Outputs computed in one pass over the inputs: their sums, two registers each, and what the product needs fit the
/// 16 registers of SSE and AVX. Every geometry has m <= 2, so one pass is the rule.
const GROUP: usize = 4;

/// Input bytes handled between two groups of outputs: what a first-level cache of 32 KiB holds, so that the inputs
/// come from memory once, however many outputs there are.
const STRIPE_BYTES: usize = 32 * 1024;

/// Stripes start at multiples of this: the most bytes a kernel handles in a step.
const STRIPE_ALIGN: usize = 128;

/// A set of instructions to multiply with, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Table of products; any processor. The twin all others are tested against.
    Scalar,
    /// Two look-ups of 4 bits by byte shuffle, 16 bytes at once.
    Ssse3,
    /// As [`Kernel::Ssse3`], 32 bytes at once.
    Avx2,
    /// Bit matrix by affine instruction, 32 bytes at once.
    GfniAvx2,
    /// As [`Kernel::GfniAvx2`], 64 bytes at once.
    GfniAvx512,
}

impl Kernel {
    /// All kernels, slowest first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Ssse3, Self::Avx2, Self::GfniAvx2, Self::GfniAvx512];

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Scalar => true,
            Self::Ssse3 => is_x86_feature_detected!("ssse3"),
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::GfniAvx2 => is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx2"),
            Self::GfniAvx512 => is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512f"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Scalar;
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Ssse3 => "ssse3",
            Self::Avx2 => "avx2",
            Self::GfniAvx2 => "gfni-avx2",
            Self::GfniAvx512 => "gfni-avx512",
        })
    }
}

/// Proof that this processor has the kernel's instructions: only a look at the processor makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supported(Kernel);

impl Supported {
    /// The proof for `kernel`; `None` when an instruction is missing.
    pub(crate) fn new(kernel: Kernel) -> Option<Self> {
        kernel.is_available().then_some(Self(kernel))
    }

    /// The fastest kernel; the processor is asked once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Supported> = OnceLock::new();
        *BEST.get_or_init(|| {
            let fastest = Kernel::ALL.into_iter().rev().find_map(Self::new);
            fastest.expect("the scalar kernel runs on every processor")
        })
    }

    /// The kernel.
    pub(crate) fn kernel(self) -> Kernel {
        self.0
    }
}

/// A matrix in the shape the kernels read.
///
/// Rows come in groups of [`GROUP`] (the last may be smaller); a group holds, column by column, one coefficient of
/// each of its rows. So the kernels read it front to back.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: usize,
    columns: usize,
    coefficients: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    expanded: Option<x86::Expanded>,
}

impl Table {
    /// The table of `matrix`, rows of `columns` coefficients each, for one kernel.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] // `kernel`: there is one only
    pub(crate) fn new(kernel: Supported, columns: usize, matrix: &[u8]) -> Self {
        let mut coefficients = Vec::with_capacity(matrix.len());
        for group in matrix.chunks(GROUP * columns) {
            for column in 0..columns {
                coefficients.extend(group.chunks_exact(columns).map(|row| row[column]));
            }
        }
        Self {
            rows: matrix.len() / columns,
            columns,
            #[cfg(target_arch = "x86_64")]
            expanded: x86::Expanded::new(kernel, &coefficients),
            coefficients,
        }
    }

    /// Overwrites each output with its row x `inputs`. All slices have the same length.
    pub(crate) fn apply(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert_eq!(inputs.len(), self.columns, "an input for each column");
        assert_eq!(outputs.len(), self.rows, "an output for each row");
        let length = inputs.first().map_or(0, |input| input.len());
        assert!(inputs.iter().all(|input| input.len() == length), "inputs of one length");
        assert!(outputs.iter().all(|output| output.len() == length), "outputs as long as the inputs");

        let stripe = (STRIPE_BYTES / self.columns).next_multiple_of(STRIPE_ALIGN);
        for start in (0..length).step_by(stripe) {
            let range = start..length.min(start + stripe);
            for (group, outputs) in outputs.chunks_mut(GROUP).enumerate() {
                self.dot(group * GROUP * self.columns, inputs, range.clone(), outputs);
            }
        }
    }

    /// Computes `range` of one group of outputs, whose coefficients begin at `first`.
    fn dot(&self, first: usize, inputs: &[&[u8]], range: Range<usize>, outputs: &mut [&mut [u8]]) {
        let entries = first..first + outputs.len() * self.columns;
        #[cfg(target_arch = "x86_64")]
        if let Some(expanded) = &self.expanded
            && expanded.dot(entries.clone(), inputs, range.clone(), outputs)
        {
            return;
        }
        scalar::dot(&self.coefficients[entries], inputs, range, outputs);
    }
}

#[cfg(test)]
mod tests;
