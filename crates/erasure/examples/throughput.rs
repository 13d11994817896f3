//! Speed of encode and reconstruct for each kernel on one core, in GB/s of the stripe's data, beside ISA-L's encode
//! where that is installed. Run with `cargo run --release -p erasure --example throughput`.

#[path = "../tests/isal/mod.rs"]
#[allow(dead_code)] // the tests use more of it
mod isal;

use std::time::{Duration, Instant};

use erasure::{Code, Kernel};
use isal::Isal;

/// How long each number is measured, three times over; the fastest counts.
const MEASURE: Duration = Duration::from_millis(150);

const CASES: [(usize, usize, usize); 6] =
    [(4, 2, 4 << 10), (4, 2, 64 << 10), (4, 2, 2 << 20), (8, 2, 4 << 10), (8, 2, 64 << 10), (8, 2, 1 << 20)];

fn main() {
    println!("GB/s of data (k x fragment) on one core; rebuild n: n data fragments from the rest and parity");
    println!(
        "{:12} {:5} {:>9} {:>8} {:>10} {:>10}",
        "kernel", "class", "fragment", "encode", "rebuild 1", "rebuild 2"
    );
    let isal = Isal::load();
    for (k, m, length) in CASES {
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
            let code = Code::with_kernel(k, m, kernel).expect("an available kernel and a sound geometry");
            let mut fragments = sample(k, m, length);
            let encode = rate(k * length, || {
                let (data, parity) = fragments.split_at_mut(k);
                code.encode(&slices(data), &mut slices_mut(parity));
            });
            let [one, two] = [1, 2].map(|lost| rebuild(&code, &fragments, lost));
            print(&kernel.to_string(), k, m, length, &[encode, one, two]);
        }
        if let Some(isal) = &isal {
            let mut fragments = sample(k, m, length);
            let tables = isal.tables(k, &isal.generator(k, m)[k * k..]);
            let encode = rate(k * length, || {
                let (data, parity) = fragments.split_at_mut(k);
                isal.encode(&tables, &slices(data), &mut slices_mut(parity));
            });
            print("isa-l", k, m, length, &[encode]);
        }
    }
}

fn rebuild(code: &Code, fragments: &[Vec<u8>], lost: usize) -> f64 {
    let present: Vec<(usize, &[u8])> =
        fragments.iter().enumerate().skip(lost).map(|(index, bytes)| (index, bytes.as_slice())).collect();
    let wanted: Vec<usize> = (0..lost).collect();
    let length = fragments[0].len();
    let mut out = vec![vec![0; length]; lost];
    let speed = rate(code.k() * length, || {
        code.reconstruct(&present, &wanted, &mut slices_mut(&mut out)).expect("k fragments are present");
    });
    assert!(out == fragments[..lost], "rebuilt bytes differ");
    speed
}

/// Bytes per nanosecond of `work`, which handles `bytes` bytes a call.
#[allow(clippy::disallowed_methods)] // a measurement needs the real clock; nothing depends on it
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let best = (0..3).map(|_| {
        let start = Instant::now();
        let mut calls = 0;
        while start.elapsed() < MEASURE {
            (0..16).for_each(|_| work());
            calls += 16;
        }
        (bytes * calls) as f64 / start.elapsed().as_nanos() as f64
    });
    best.fold(0.0, f64::max)
}

fn sample(k: usize, m: usize, length: usize) -> Vec<Vec<u8>> {
    (0..k + m).map(|i| (0..length).map(|n| (n * 31 + n / 251 + i * 7) as u8).collect()).collect()
}

fn slices(buffers: &[Vec<u8>]) -> Vec<&[u8]> {
    buffers.iter().map(Vec::as_slice).collect()
}

fn slices_mut(buffers: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    buffers.iter_mut().map(Vec::as_mut_slice).collect()
}

fn print(name: &str, k: usize, m: usize, length: usize, rates: &[f64]) {
    print!("{name:12} {:5} {:>9}", format!("{k}+{m}"), format!("{} KiB", length >> 10));
    rates.iter().zip([8, 10, 10]).for_each(|(rate, width)| print!(" {rate:>width$.1}"));
    println!();
}
