//! The promises of the erasure code, through its public face, on every kernel this processor has.
//!
//! Goal: any k fragments give all others back; the bytes are those of ISA-L; a senseless call is an error.
//! Model: the fragments as they were made, and ISA-L itself.

mod isal;

use erasure::{Code, ErasureError, Kernel, MAX_FRAGMENTS};
use isal::Isal;

/// The geometry classes of the product.
const CLASSES: [(usize, usize); 6] = [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (8, 2)];

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
}

fn slices(buffers: &[Vec<u8>]) -> Vec<&[u8]> {
    buffers.iter().map(Vec::as_slice).collect()
}

fn slices_mut(buffers: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    buffers.iter_mut().map(Vec::as_mut_slice).collect()
}

/// A stripe: k fragments of noise and their parity.
fn stripe(code: &Code, length: usize, noise: &mut Noise) -> Vec<Vec<u8>> {
    let mut fragments: Vec<Vec<u8>> = (0..code.k()).map(|_| noise.bytes(length)).collect();
    let mut parity = vec![vec![0xee; length]; code.m()];
    code.encode(&slices(&fragments), &mut slices_mut(&mut parity));
    fragments.append(&mut parity);
    fragments
}

/// Installed by `cargo x setup`; without it the format is unproven, so its absence is a failure.
fn oracle() -> Isal {
    Isal::load().expect("libisal.so.2 is not installed: run `cargo x setup`")
}

#[test]
fn every_erasure_pattern_is_rebuilt() {
    let mut noise = Noise(1);
    for kernel in kernels() {
        for (k, m) in CLASSES {
            let code = Code::with_kernel(k, m, kernel).unwrap();
            let fragments = stripe(&code, 333, &mut noise);
            for left in (0_u32..1 << (k + m)).filter(|left| left.count_ones() as usize >= k) {
                let mut present: Vec<(usize, &[u8])> = (0..k + m)
                    .filter(|index| left >> index & 1 == 1)
                    .map(|index| (index, fragments[index].as_slice()))
                    .collect();
                // The order of what is left must not matter.
                let turn = noise.below(present.len());
                present.rotate_left(turn);
                // All fragments, those that are present too.
                let wanted: Vec<usize> = (0..k + m).rev().collect();
                let mut out = vec![vec![0xee; 333]; k + m];
                code.reconstruct(&present, &wanted, &mut slices_mut(&mut out)).unwrap();
                out.reverse();
                assert!(out == fragments, "{kernel} {k}+{m} from {present:?}");
            }
        }
    }
}

#[test]
fn any_range_of_bytes_is_rebuilt_by_itself() {
    let mut noise = Noise(2);
    for kernel in kernels() {
        let code = Code::with_kernel(4, 2, kernel).unwrap();
        let fragments = stripe(&code, 70_000, &mut noise);
        for _ in 0..200 {
            let start = noise.below(70_000);
            let end = start + noise.below(70_000 - start + 1);
            let present: Vec<(usize, &[u8])> =
                [5, 1, 4, 3].iter().map(|&index| (index, &fragments[index][start..end])).collect();
            let mut out = vec![vec![0; end - start]; 2];
            code.reconstruct(&present, &[2, 0], &mut slices_mut(&mut out)).unwrap();
            assert!(out[0] == fragments[2][start..end], "{kernel} {start}..{end}");
            assert!(out[1] == fragments[0][start..end], "{kernel} {start}..{end}");
        }
    }
}

#[test]
fn only_the_first_k_fragments_are_read() {
    let code = Code::new(2, 2).unwrap();
    let fragments = stripe(&code, 100, &mut Noise(3));
    let rotten = vec![0; 100];
    let mut out = vec![0; 100];
    let present = [(3, fragments[3].as_slice()), (0, &fragments[0]), (1, &rotten)];
    code.reconstruct(&present, &[1], &mut [&mut out]).unwrap();
    assert_eq!(out, fragments[1]);
}

#[test]
fn parity_is_that_of_isal() {
    let isal = oracle();
    let mut noise = Noise(4);
    for (k, m) in CLASSES.into_iter().chain([(5, 3), (10, 4), (6, 9), (16, 16), (31, 1), (1, 31)]) {
        let generator = isal.generator(k, m);
        assert_eq!(Code::new(k, m).unwrap().generator(), generator, "{k}+{m}");
        let tables = isal.tables(k, &generator[k * k..]);
        for round in 0..60 {
            let length = if round < 50 { 1 + noise.below(600) } else { 1 + noise.below(40_000) };
            let data: Vec<Vec<u8>> = (0..k).map(|_| noise.bytes(length)).collect();
            let mut expected = vec![vec![0; length]; m];
            isal.encode(&tables, &slices(&data), &mut slices_mut(&mut expected));
            for kernel in kernels() {
                let mut parity = vec![vec![0xee; length]; m];
                let code = Code::with_kernel(k, m, kernel).unwrap();
                code.encode(&slices(&data), &mut slices_mut(&mut parity));
                assert!(parity == expected, "{kernel} {k}+{m}, {length} bytes");
            }
        }
    }
}

#[test]
fn fragments_isal_made_are_rebuilt_and_the_other_way_round() {
    let isal = oracle();
    let mut noise = Noise(5);
    for (k, m) in CLASSES {
        let code = Code::new(k, m).unwrap();
        let generator = isal.generator(k, m);
        let length = 4096;
        let mut fragments: Vec<Vec<u8>> = (0..k).map(|_| noise.bytes(length)).collect();
        let mut parity = vec![vec![0; length]; m];
        let tables = isal.tables(k, &generator[k * k..]);
        isal.encode(&tables, &slices(&fragments), &mut slices_mut(&mut parity));
        fragments.append(&mut parity);

        // The worst loss: the first data fragments are gone.
        let sources: Vec<usize> = (m..k + m).collect();
        let wanted: Vec<usize> = (0..m).collect();
        let present: Vec<(usize, &[u8])> =
            sources.iter().map(|&index| (index, fragments[index].as_slice())).collect();
        let mut ours = vec![vec![0; length]; m];
        code.reconstruct(&present, &wanted, &mut slices_mut(&mut ours)).unwrap();
        assert!(ours == fragments[..m], "{k}+{m}");

        let matrix: Vec<u8> =
            sources.iter().flat_map(|&row| &generator[row * k..(row + 1) * k]).copied().collect();
        let inverse = isal.inverse(k, matrix).expect("any k rows are invertible");
        let lost = m.min(k);
        let tables = isal.tables(k, &inverse[..lost * k]);
        let inputs: Vec<&[u8]> = present.iter().map(|&(_, bytes)| bytes).collect();
        let mut theirs = vec![vec![0; length]; lost];
        isal.encode(&tables, &inputs, &mut slices_mut(&mut theirs));
        assert!(theirs == ours[..lost], "{k}+{m}");
    }
}

#[test]
fn empty_fragments_and_no_parity_are_fine() {
    for kernel in kernels() {
        let code = Code::with_kernel(4, 2, kernel).unwrap();
        code.encode(&[&[] as &[u8]; 4], &mut [&mut [], &mut []]);
        let present: [(usize, &[u8]); 4] = [(5, &[]), (4, &[]), (0, &[]), (1, &[])];
        assert_eq!(code.reconstruct(&present, &[2], &mut [&mut []]), Ok(()));

        let single = Code::with_kernel(1, 0, kernel).unwrap();
        single.encode(&[b"data"], &mut []);
        let mut out = [0; 4];
        assert_eq!(single.reconstruct(&[(0, b"data")], &[0], &mut [&mut out]), Ok(()));
        assert_eq!(&out, b"data");
    }
}

#[test]
fn geometries_without_a_code_are_refused() {
    for (k, m) in [(0, 0), (0, 2), (33, 0), (32, 1), (1, 32), (usize::MAX, 2), (2, usize::MAX)] {
        assert_eq!(Code::new(k, m).unwrap_err(), ErasureError::Geometry { k, m });
    }
    assert!(Code::new(MAX_FRAGMENTS, 0).is_ok());
    assert!(Code::new(1, MAX_FRAGMENTS - 1).is_ok());
}

#[test]
fn senseless_reconstructions_are_refused_and_write_nothing() {
    let code = Code::new(2, 2).unwrap();
    let check = |present: &[(usize, &[u8])], wanted: &[usize], lengths: &[usize]| {
        let mut out: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0xee; length]).collect();
        let error = code.reconstruct(present, wanted, &mut slices_mut(&mut out)).unwrap_err();
        assert!(out.iter().flatten().all(|&byte| byte == 0xee), "{error} wrote");
        error
    };
    let (a, b): (&[u8], &[u8]) = (&[1, 2], &[3, 4]);
    assert_eq!(check(&[(0, a)], &[1], &[2]), ErasureError::TooFew { given: 1, needed: 2 });
    assert_eq!(check(&[], &[1], &[0]), ErasureError::TooFew { given: 0, needed: 2 });
    assert_eq!(check(&[(3, a), (3, b)], &[1], &[2]), ErasureError::Duplicate { index: 3 });
    let strange = ErasureError::NoSuchFragment { index: 4, fragments: 4 };
    assert_eq!(check(&[(4, a), (3, b)], &[1], &[2]), strange);
    assert_eq!(check(&[(0, a), (1, b), (4, b)], &[1], &[2]), strange);
    assert_eq!(check(&[(2, a), (3, b)], &[4], &[2]), strange);
    let lengths = |found| ErasureError::Lengths { expected: 2, found };
    assert_eq!(check(&[(0, a), (3, &[1])], &[1], &[2]), lengths(1));
    assert_eq!(check(&[(0, a), (3, b), (2, &[])], &[1], &[2]), lengths(0));
    assert_eq!(check(&[(0, a), (3, b)], &[0, 1], &[2, 3]), lengths(3));
    assert_eq!(check(&[(0, a), (3, b)], &[0, 1], &[2]), ErasureError::Outputs { wanted: 2, given: 1 });
}

#[test]
#[should_panic(expected = "encode gives m parity fragments")]
fn encode_refuses_a_wrong_number_of_outputs() {
    Code::new(1, 2).unwrap().encode(&[&[1]], &mut [&mut [0]]);
}

#[test]
#[should_panic(expected = "outputs as long as the inputs")]
fn encode_refuses_outputs_of_another_length() {
    Code::new(2, 1).unwrap().encode(&[&[1, 2], &[3, 4]], &mut [&mut [0]]);
}

#[test]
fn a_code_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Code>();
}
