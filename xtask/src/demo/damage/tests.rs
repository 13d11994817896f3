use super::*;

#[test]
fn only_stretches_with_data_are_hit() {
    let path = std::env::temp_dir().join(format!("holdfast-damage-{}", std::process::id()));
    let file = File::create(&path).expect("the file is made");
    file.set_len(8 * STRETCH).expect("it is sparse");
    file.write_all_at(b"superblock", 0).expect("written");
    file.write_all_at(b"data", 3 * STRETCH + 100).expect("written");
    file.write_all_at(b"data", 5 * STRETCH - 4).expect("written");
    assert_eq!(rot(&path).expect("damage is done"), 2 * HIT as u64);
    let bytes = std::fs::read(&path).expect("readable");
    assert_eq!(&bytes[..10], b"superblock");
    let at = 3 * STRETCH as usize + 100;
    assert_ne!(&bytes[at..at + 4], b"data", "a chance of one in four thousand million");
    assert_eq!(bytes.len() as u64, 8 * STRETCH);
    assert!(bytes[6 * STRETCH as usize..].iter().all(|&byte| byte == 0));
    std::fs::remove_file(path).expect("removed");
}
