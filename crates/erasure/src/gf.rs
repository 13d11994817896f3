//! The field GF(2^8) with x^8 + x^4 + x^3 + x^2 + 1 (0x11d); addition is xor. Tables are made at compile time.

/// The polynomial, without its x^8: what a bit shifted out of the byte is worth.
const REDUCE: u8 = 0x1d;

const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 == 0 { 0 } else { REDUCE }
}

/// 2^n for n < 255, twice over, so that a sum of two logarithms needs no modulo. 2 generates all non-zero elements.
const EXP: [u8; 510] = {
    let mut table = [0; 510];
    let mut power = 1;
    let mut n = 0;
    while n < table.len() {
        table[n] = power;
        power = double(power);
        n += 1;
    }
    table
};

/// n for 2^n; the entry of 0, which has no logarithm, is unused.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 255 {
        table[EXP[n] as usize] = n as u8; // n < 255
        n += 1;
    }
    table
};

/// All products: `PRODUCTS[a][b]` = a x b.
pub(crate) static PRODUCTS: [[u8; 256]; 256] = {
    let mut table = [[0; 256]; 256];
    let mut a = 1;
    while a < 256 {
        let mut b = 1;
        while b < 256 {
            table[a][b] = EXP[LOG[a] as usize + LOG[b] as usize];
            b += 1;
        }
        a += 1;
    }
    table
};

/// a x b.
pub(crate) fn mul(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// The b with a x b = 1; `None` for 0.
pub(crate) fn inverse(a: u8) -> Option<u8> {
    (a != 0).then(|| EXP[255 - usize::from(LOG[usize::from(a)])])
}

#[cfg(test)]
mod tests;
