//! Hostile input for decoders, made from sound input.

use super::{roll, scatter};

/// Most prefixes of one input; longer inputs are cut at a sample.
const CUTS_MAX: usize = 2048;
/// Most flips of one input; longer inputs are flipped at a sample.
const FLIPS_MAX: usize = 16 * 1024;
/// Inputs grow no longer than this by mutation.
const BYTES_MAX: usize = 64 << 10;
/// Where the fields of most formats are, bytes.
const NEAR: usize = 256;

/// Feeds `body` every input of `corpus`, its prefixes, each with one bit flipped, and `mutations` of them by seed. A
/// decoder that panics shows what it was given.
pub fn replay(corpus: &[Vec<u8>], mutations: u64, body: impl Fn(&[u8])) {
    let feed = |what: &str, input: &[u8]| {
        let shown = Shown { what, input };
        body(input);
        std::mem::forget(shown);
    };
    feed("nothing", &[]);
    for (number, sound) in corpus.iter().enumerate() {
        feed(&format!("input {number}"), sound);
        for length in (0..sound.len()).step_by(step(sound.len(), CUTS_MAX)) {
            feed(&format!("input {number} cut"), &sound[..length]);
        }
        let mut flipped = sound.clone();
        for bit in (0..sound.len() * 8).step_by(step(sound.len() * 8, FLIPS_MAX)) {
            flipped[bit / 8] ^= 1 << (bit % 8);
            feed(&format!("input {number}, bit {bit} flipped"), &flipped);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for seed in 1..=mutations {
        feed(&format!("mutation {seed}"), &mutated(corpus, seed));
    }
}

/// A stride that keeps to `most` steps. Odd, so that flips by it meet every bit of a byte.
fn step(length: usize, most: usize) -> usize {
    if length <= most { 1 } else { (length / most + 1) | 1 }
}

fn mutated(corpus: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut state = scatter(seed);
    let mut below = |sides: usize| (roll(&mut state) % sides.max(1) as u64) as usize;
    let mut input = corpus.get(below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=below(4) {
        let at = if below(3) > 0 { below(input.len().min(NEAR)) } else { below(input.len()) };
        match below(7) {
            0 if at < input.len() => input[at] ^= 1 << below(8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
            2 if at < input.len() => {
                let end = input.len().min(at + [1, 2, 4, 8][below(4)]);
                input[at..end].fill([0, 0xff][below(2)]);
            }
            3 => input.truncate(at),
            4 => input.insert(at, below(256) as u8),
            5 => drop(input.drain(at..input.len().min(at + 1 + below(16)))),
            _ => input.extend_from_slice(corpus.get(below(corpus.len())).map_or(&[], Vec::as_slice)),
        }
        input.truncate(BYTES_MAX);
    }
    input
}

/// Dropped where a body panics: prints its input.
struct Shown<'a> {
    what: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let hex: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{}: {} bytes: {hex}", self.what, self.input.len());
    }
}
