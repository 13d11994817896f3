mod format;
mod fuzz;

use units::Fingerprint;

use super::*;

fn sealer() -> Sealer {
    Sealer::new(&KeyRing::for_tests(7))
}

fn sealed(kind: Kind, plain: &[u8]) -> (Fingerprint, Vec<u8>) {
    let sealer = sealer();
    let fp = sealer.fingerprint(kind, plain);
    let mut unit = Vec::new();
    sealer.seal(kind, fp, plain, &mut unit);
    (fp, unit)
}

#[test]
fn seals_and_opens() {
    for plain in [vec![], vec![1; 4096], (0..4096).map(|i| (i * 7919 % 251) as u8).collect::<Vec<_>>()] {
        let (fp, unit) = sealed(Kind::Data, &plain);
        let mut out = vec![9; 3];
        assert_eq!(sealer().open(Kind::Data, fp, &unit, &mut out).expect("opens"), unit.len());
        assert_eq!(out, plain);
        assert!(unit.len() <= plain.len() + OVERHEAD_BYTES);
    }
}

#[test]
fn a_block_never_passes_for_a_page() {
    let plain = vec![5; 1024];
    let (fp, unit) = sealed(Kind::Data, &plain);
    assert!(sealer().open(Kind::Page(0), fp, &unit, &mut Vec::new()).is_err());
    assert_ne!(fp, sealer().fingerprint(Kind::Page(0), &plain));
    assert_ne!(sealer().fingerprint(Kind::Page(0), &plain), sealer().fingerprint(Kind::Page(1), &plain));
}

#[test]
fn a_valid_unit_under_another_name_is_refused() {
    // The tag binds the name, and the name is checked against the plaintext: the referential check of R114.
    let (_, unit) = sealed(Kind::Data, &[1; 4096]);
    let (other, _) = sealed(Kind::Data, &[2; 4096]);
    let error = sealer().open(Kind::Data, other, &unit, &mut Vec::new()).expect_err("wrong name");
    assert_eq!(error.kind, SealErrorKind::Corrupt);
}

#[test]
fn a_unit_sealed_under_a_false_name_is_refused() {
    let sealer = sealer();
    let false_name = sealer.fingerprint(Kind::Data, &[2; 4096]);
    let mut unit = Vec::new();
    sealer.seal(Kind::Data, false_name, &[1; 4096], &mut unit);
    assert!(sealer.open(Kind::Data, false_name, &unit, &mut Vec::new()).is_err());
}

#[test]
fn every_bit_flip_is_found() {
    let (fp, unit) = sealed(Kind::Data, &[3; 4096]);
    for bit in 0..unit.len() * 8 {
        let mut bad = unit.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(sealer().open(Kind::Data, fp, &bad, &mut Vec::new()).is_err(), "bit {bit}");
    }
}

#[test]
fn other_sites_have_other_names() {
    let other = Sealer::new(&KeyRing::for_tests(8));
    assert_ne!(other.fingerprint(Kind::Data, &[1; 4096]), sealer().fingerprint(Kind::Data, &[1; 4096]));
}

#[test]
fn keys_wrap_and_unwrap() {
    let ring = KeyRing::for_tests(3);
    let kek = Kek::from_bytes([4; 32]);
    let recovery = RecoveryKey::from_bytes([5; 32]);
    let wrapped = WrappedKeys::by_key_file(&ring, &kek, &recovery, &[6; 40]);
    let again = WrappedKeys::decode(&wrapped.encode()).expect("decodes");
    assert_eq!(again, wrapped);
    let name = |ring: &KeyRing| Sealer::new(ring).fingerprint(Kind::Data, b"x");
    assert_eq!(name(&again.unwrap_with(&kek).expect("kek opens")), name(&ring));
    assert_eq!(name(&again.unwrap_with_recovery(&recovery).expect("recovery opens")), name(&ring));
    assert_eq!(again.unwrap_with(&Kek::from_bytes([5; 32])).err(), Some(KeyError::Wrong));
    let moved = again.with_recovery(&ring, &RecoveryKey::from_bytes([9; 32]), &[1; 12]);
    assert_eq!(moved.unwrap_with_recovery(&recovery).err(), Some(KeyError::Wrong));
}

#[test]
fn a_passphrase_wraps() {
    let ring = KeyRing::for_tests(3);
    let recovery = RecoveryKey::from_bytes([5; 32]);
    let wrapped = WrappedKeys::by_passphrase(&ring, b"correct horse", &recovery, &[6; 40]).expect("wraps");
    assert!(wrapped.wants_passphrase());
    assert!(wrapped.unwrap_with_passphrase(b"correct horse").is_ok());
    assert_eq!(wrapped.unwrap_with_passphrase(b"wrong").err(), Some(KeyError::Wrong));
}

#[test]
fn recovery_key_survives_paper() {
    let key = RecoveryKey::from_bytes(std::array::from_fn(|i| i as u8));
    let text = key.to_text();
    assert_eq!(RecoveryKey::parse(&text.to_uppercase().replace('-', " ")), Ok(key));
    let typo = text.replacen('1', "2", 1);
    assert_eq!(RecoveryKey::parse(&typo), Err(KeyError::Malformed));
}

#[test]
fn zero_blocks_are_seen() {
    assert!(is_zero(&[0; 4096]));
    for at in [0, 63, 64, 4095] {
        let mut block = [0; 4096];
        block[at] = 1;
        assert!(!is_zero(&block), "byte {at}");
    }
    assert!(is_zero(&[]));
}

#[test]
fn a_later_epoch_seals_and_earlier_ones_open_until_they_are_retired() {
    let ring = KeyRing::for_tests(7);
    let sealer = sealer();
    let (fp, old) = sealed(Kind::Data, b"before");
    let epochs = EpochKeys::default().next(&ring, &[9; 32], &[3; 12]).expect("there is room");
    let opened = EpochKeys::decode(&epochs.encode()).expect("decodes").open(&ring).expect("opens");
    assert!(sealer.adopt(&opened));
    let mut new = Vec::new();
    sealer.seal(Kind::Data, fp, b"before", &mut new);
    let epoch = |unit: &[u8]| Header::decode(unit).expect("a header").key_epoch();
    assert_eq!((epoch(&old), epoch(&new), sealer.key_epoch()), (1, 2, 2));
    let mut plain = Vec::new();
    for unit in [&old, &new] {
        sealer.open(Kind::Data, fp, unit, &mut plain).expect("opens");
    }
    // The first key does not open what the second sealed, nor does a wrong ring unwrap it.
    assert!(self::sealer().open(Kind::Data, fp, &new, &mut plain).is_err());
    assert!(epochs.open(&KeyRing::for_tests(8)).is_err());
    let alone = epochs.newest_alone();
    assert_eq!((alone.oldest(), alone.newest()), (2, 2));
    assert!(sealer.adopt(&alone.open(&ring).expect("opens")));
    sealer.open(Kind::Data, fp, &new, &mut plain).expect("opens");
    let refused = sealer.open(Kind::Data, fp, &old, &mut plain).expect_err("its epoch is retired");
    assert_eq!(refused.kind, SealErrorKind::UnknownKey);
}

#[test]
fn stored_epochs_are_refused_when_damaged_or_out_of_order() {
    let ring = KeyRing::for_tests(7);
    let mut epochs = EpochKeys::default();
    for secret in 0..EPOCHS_MAX as u8 {
        epochs = epochs.next(&ring, &[secret; 32], &[secret; 12]).expect("there is room");
    }
    assert!(epochs.next(&ring, &[99; 32], &[99; 12]).is_none());
    let stored = epochs.encode();
    assert_eq!(EpochKeys::decode(&stored), Some(epochs));
    for at in 0..EPOCHS_BYTES {
        let mut bad = stored;
        bad[at] ^= 1;
        assert_eq!(EpochKeys::decode(&bad), None, "byte {at}");
    }
    assert_eq!(EpochKeys::decode(&[0; EPOCHS_BYTES]), None);
}
