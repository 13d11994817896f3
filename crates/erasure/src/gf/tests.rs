use super::{inverse, mul};

/// Schoolbook product of two polynomials over GF(2), reduced by long division.
fn slow_mul(a: u8, b: u8) -> u8 {
    let mut product = 0_u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            product ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product >> bit & 1 == 1 {
            product ^= 0x11d << (bit - 8);
        }
    }
    u8::try_from(product).unwrap()
}

#[test]
fn products_are_those_of_the_polynomial() {
    for a in 0..=255 {
        for b in 0..=255 {
            assert_eq!(mul(a, b), slow_mul(a, b), "{a} x {b}");
        }
    }
}

#[test]
fn field_axioms_hold() {
    for a in 0..=255 {
        assert_eq!(mul(a, 1), a);
        assert_eq!(mul(a, 0), 0);
        for b in 0..=255 {
            assert_eq!(mul(a, b), mul(b, a));
            assert!(a == 0 || b == 0 || mul(a, b) != 0, "{a} x {b} is zero");
            for c in [1, 2, 3, 29, 127, 128, 142, 254, 255] {
                assert_eq!(mul(mul(a, b), c), mul(a, mul(b, c)));
                assert_eq!(mul(a ^ b, c), mul(a, c) ^ mul(b, c));
            }
        }
    }
}

#[test]
fn every_element_but_zero_has_one_inverse() {
    assert_eq!(inverse(0), None);
    for a in 1..=255 {
        assert_eq!(mul(a, inverse(a).unwrap()), 1, "{a}");
    }
}
