//! A few hundred damaged sessions, the same in every run.

use super::client::{info, meta, request};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn option(option: u32, payload: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &option.to_be_bytes()[..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// Sessions that use everything.
fn seeds() -> Vec<Vec<u8>> {
    let flags = 3_u32.to_be_bytes().to_vec();
    let haggling = [
        option(5, b""),
        option(3, b""),
        option(8, b""),
        option(9, &meta("disk", &[])),
        option(10, &meta("disk", &["base:allocation", "x:y"])),
        option(6, &info("disk", &[0, 1, 2, 3])),
        option(99, b"whatever"),
    ]
    .concat();
    let mut requests = Vec::new();
    for (number, (command, length)) in
        [(0, 9), (1, 5000), (3, 0), (4, 4096), (5, 10), (6, 7), (7, 60_000), (0, 65_536)]
            .into_iter()
            .enumerate()
    {
        let offset = if command == 3 || length > 60_000 { 0 } else { number as u64 * 100 };
        requests.extend(request(command, 0, number as u64, offset, length));
        if command == 1 {
            requests.extend(vec![7; length as usize]);
        }
    }
    let go = option(7, &info("disk", &[3]));
    let end = request(2, 0, 0, 0, 0);
    vec![
        [flags.clone(), haggling.clone(), go, requests.clone(), end].concat(),
        [flags.clone(), option(1, b""), requests.clone()].concat(),
        [flags, haggling, option(2, b"")].concat(),
        requests,
        info("disk", &[1, 3]),
        meta("disk", &["base:allocation"]),
    ]
}

fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len().max(1));
        match random.below(6) {
            _ if data.is_empty() => return,
            0 => data.truncate(at),
            1 => data[at] ^= 1 << random.below(8),
            2 => data[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => {
                let end = (at + 4).min(data.len());
                data[at..end].fill(0xff);
            }
            4 => data.insert(at, random.next() as u8),
            _ => {
                let end = at + random.below(data.len() - at);
                data.drain(at..end);
            }
        }
    }
}

#[test]
fn damaged_sessions_neither_panic_nor_hang() {
    let mut random = Random(1);
    let seeds = seeds();
    for seed in &seeds {
        nbd::fuzz::fuzz_body(seed);
    }
    for round in 0..600 {
        let mut data = seeds[round % seeds.len()].clone();
        mutate(&mut data, &mut random);
        nbd::fuzz::fuzz_body(&data);
    }
}
