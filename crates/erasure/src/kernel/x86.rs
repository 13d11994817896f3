//! The x86-64 kernels: SSSE3 and AVX2 by byte shuffle, GFNI by bit matrix.
//!
//! Shuffle: a x b is the sum of the products of a with the two halves of b, each one of 16; a register holds the 16
//! (Plank, Greenan, Miller: "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions", FAST 2013).
//! Affine: multiplication by a constant is linear over GF(2), so an 8 x 8 bit matrix does it for every polynomial.

#![allow(unsafe_code)] // vector instructions and unaligned pointers

use std::arch::x86_64::*;
use std::ops::Range;

use super::vector::{self, Lane};
use super::{Kernel, Supported};
use crate::gf::{PRODUCTS, mul};

/// A coefficient for the shuffle kernels: its products with all low and all high halves of a byte.
#[derive(Debug, Clone)]
#[repr(C, align(32))]
pub(super) struct Halves {
    low: [u8; 16],
    high: [u8; 16],
}

impl Halves {
    fn new(coefficient: u8) -> Self {
        let mut halves = Self { low: [0; 16], high: [0; 16] };
        for half in 0..16 {
            halves.low[usize::from(half)] = mul(coefficient, half);
            halves.high[usize::from(half)] = mul(coefficient, half << 4);
        }
        halves
    }
}

/// For each coefficient the bit matrix of the affine instruction: byte 7 - i tells which bits of the factor make up
/// bit i of the product.
static AFFINE: [u64; 256] = {
    let mut table = [0; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut bytes = [0_u8; 8];
        let mut bit = 0;
        while bit < 8 {
            let product = PRODUCTS[coefficient][1 << bit];
            let mut i = 0;
            while i < 8 {
                bytes[7 - i] |= (product >> i & 1) << bit;
                i += 1;
            }
            bit += 1;
        }
        table[coefficient] = u64::from_le_bytes(bytes);
        coefficient += 1;
    }
    table
};

/// The coefficients of a table in the shape of one kernel. Made from a [`Supported`] only: a variant is the proof
/// that the processor has its instructions.
#[derive(Debug, Clone)]
pub(super) enum Expanded {
    Ssse3(Vec<Halves>),
    Avx2(Vec<Halves>),
    GfniAvx2(Vec<u64>),
    GfniAvx512(Vec<u64>),
}

impl Expanded {
    /// The coefficients for `kernel`; `None` for the scalar one.
    pub(super) fn new(kernel: Supported, coefficients: &[u8]) -> Option<Self> {
        let halves = || coefficients.iter().map(|&coefficient| Halves::new(coefficient)).collect();
        let affine = || coefficients.iter().map(|&coefficient| AFFINE[usize::from(coefficient)]).collect();
        match kernel.kernel() {
            Kernel::Scalar => None,
            Kernel::Ssse3 => Some(Self::Ssse3(halves())),
            Kernel::Avx2 => Some(Self::Avx2(halves())),
            Kernel::GfniAvx2 => Some(Self::GfniAvx2(affine())),
            Kernel::GfniAvx512 => Some(Self::GfniAvx512(affine())),
        }
    }

    /// Overwrites `range` of 1 to 4 outputs with the coefficients `entries`; `false`, and nothing done, when
    /// `range.end` is less than a register.
    pub(super) fn dot(
        &self,
        entries: Range<usize>,
        inputs: &[&[u8]],
        range: Range<usize>,
        outputs: &mut [&mut [u8]],
    ) -> bool {
        let width = match self {
            Self::Ssse3(_) => Ssse3::WIDTH,
            Self::Avx2(_) => Avx2::WIDTH,
            Self::GfniAvx2(_) => GfniAvx2::WIDTH,
            Self::GfniAvx512(_) => GfniAvx512::WIDTH,
        };
        if range.end < width {
            return false;
        }
        assert!(inputs.iter().all(|input| input.len() >= range.end), "inputs hold the range");
        assert!(outputs.iter().all(|output| output.len() >= range.end), "outputs hold the range");
        // SAFETY: the variant proves the instructions; the lengths were checked just now.
        unsafe {
            match self {
                Self::Ssse3(table) => dot_ssse3(&table[entries], inputs, range, outputs),
                Self::Avx2(table) => dot_avx2(&table[entries], inputs, range, outputs),
                Self::GfniAvx2(table) => dot_gfni_avx2(&table[entries], inputs, range, outputs),
                Self::GfniAvx512(table) => dot_gfni_avx512(&table[entries], inputs, range, outputs),
            }
        }
        true
    }
}

/// Wraps [`vector::dot`] for one lane in a function compiled with that lane's features, so that all of it is inlined
/// there. Each needs what [`vector::dot`] needs.
macro_rules! dot_with {
    ($name:ident, $lane:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(
            entries: &[<$lane as Lane>::Entry],
            inputs: &[&[u8]],
            range: Range<usize>,
            outputs: &mut [&mut [u8]],
        ) {
            // SAFETY: the features are enabled here; the lengths are right by this function's contract.
            unsafe { vector::dot::<$lane>(entries, inputs, range, outputs) }
        }
    };
}
dot_with!(dot_ssse3, Ssse3, "ssse3");
dot_with!(dot_avx2, Avx2, "avx2");
dot_with!(dot_gfni_avx2, GfniAvx2, "gfni,avx2");
dot_with!(dot_gfni_avx512, GfniAvx512, "gfni,avx512f");

/// 16 bytes; needs SSSE3.
struct Ssse3;

// SAFETY: the unaligned load and store of a 128-bit register touch 16 bytes.
unsafe impl Lane for Ssse3 {
    const WIDTH: usize = 16;
    type Register = __m128i;
    type Input = (__m128i, __m128i);
    type Entry = Halves;
    type Factor = (__m128i, __m128i);

    #[inline(always)]
    unsafe fn zero() -> __m128i {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_setzero_si128() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Input {
        // SAFETY: the caller has 16 bytes at `from`.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let mask = _mm_set1_epi8(0x0f);
            (_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi64::<4>(bytes), mask))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m128i) {
        // SAFETY: the caller has 16 bytes at `to`.
        unsafe { _mm_storeu_si128(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn factor(entry: &Halves) -> Self::Factor {
        // SAFETY: both arrays hold 16 bytes.
        unsafe { (_mm_loadu_si128(entry.low.as_ptr().cast()), _mm_loadu_si128(entry.high.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn add_product(sum: __m128i, factor: Self::Factor, input: Self::Input) -> __m128i {
        // SAFETY: the caller has SSSE3.
        unsafe {
            let low = _mm_shuffle_epi8(factor.0, input.0);
            let high = _mm_shuffle_epi8(factor.1, input.1);
            _mm_xor_si128(sum, _mm_xor_si128(low, high))
        }
    }
}

/// 32 bytes; needs AVX2.
struct Avx2;

// SAFETY: the unaligned load and store of a 256-bit register touch 32 bytes.
unsafe impl Lane for Avx2 {
    const WIDTH: usize = 32;
    type Register = __m256i;
    type Input = (__m256i, __m256i);
    type Entry = Halves;
    type Factor = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Input {
        // SAFETY: the caller has AVX2 and 32 bytes at `from`.
        unsafe {
            let bytes = _mm256_loadu_si256(from.cast());
            let mask = _mm256_set1_epi8(0x0f);
            (_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), mask))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m256i) {
        // SAFETY: the caller has AVX2 and 32 bytes at `to`.
        unsafe { _mm256_storeu_si256(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn factor(entry: &Halves) -> Self::Factor {
        // SAFETY: the caller has AVX2; both arrays hold 16 bytes.
        unsafe {
            let low = _mm_loadu_si128(entry.low.as_ptr().cast());
            let high = _mm_loadu_si128(entry.high.as_ptr().cast());
            (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high))
        }
    }
    #[inline(always)]
    unsafe fn add_product(sum: __m256i, factor: Self::Factor, input: Self::Input) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_shuffle_epi8(factor.0, input.0);
            let high = _mm256_shuffle_epi8(factor.1, input.1);
            _mm256_xor_si256(sum, _mm256_xor_si256(low, high))
        }
    }
}

/// 32 bytes; needs GFNI and AVX2.
struct GfniAvx2;

// SAFETY: the unaligned load and store of a 256-bit register touch 32 bytes.
unsafe impl Lane for GfniAvx2 {
    const WIDTH: usize = 32;
    type Register = __m256i;
    type Input = __m256i;
    type Entry = u64;
    type Factor = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2 and 32 bytes at `from`.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m256i) {
        // SAFETY: the caller has AVX2 and 32 bytes at `to`.
        unsafe { _mm256_storeu_si256(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn factor(entry: &u64) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_set1_epi64x(entry.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add_product(sum: __m256i, factor: __m256i, input: __m256i) -> __m256i {
        // SAFETY: the caller has GFNI and AVX2.
        unsafe { _mm256_xor_si256(sum, _mm256_gf2p8affine_epi64_epi8::<0>(input, factor)) }
    }
}

/// 64 bytes; needs GFNI and AVX-512F.
struct GfniAvx512;

// SAFETY: the unaligned load and store of a 512-bit register touch 64 bytes.
unsafe impl Lane for GfniAvx512 {
    const WIDTH: usize = 64;
    type Register = __m512i;
    type Input = __m512i;
    type Entry = u64;
    type Factor = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has AVX-512F.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512F and 64 bytes at `from`.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m512i) {
        // SAFETY: the caller has AVX-512F and 64 bytes at `to`.
        unsafe { _mm512_storeu_si512(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn factor(entry: &u64) -> __m512i {
        // SAFETY: the caller has AVX-512F.
        unsafe { _mm512_set1_epi64(entry.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn add_product(sum: __m512i, factor: __m512i, input: __m512i) -> __m512i {
        // SAFETY: the caller has GFNI and AVX-512F.
        unsafe { _mm512_xor_si512(sum, _mm512_gf2p8affine_epi64_epi8::<0>(input, factor)) }
    }
}
