use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use super::*;

const DATA: u64 = 8 << 20;

fn blocks(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let blocks = bytes.chunks(BLOCK).map(<[u8]>::to_vec);
    blocks.filter(|block| block.iter().any(|byte| *byte != 0)).collect()
}

#[test]
fn made_images_share_blocks_compress_and_have_holes() {
    let home = tempfile::tempdir().unwrap();
    let images = make(home.path(), DATA, 1).unwrap();
    assert_eq!(images, find(home.path()).unwrap());
    let mut all = BTreeSet::new();
    let (mut sum, mut packed) = (0, 0);
    for image in &images {
        let meta = std::fs::metadata(image).unwrap();
        assert_eq!(meta.len(), DATA * SPARSE);
        assert!(meta.blocks() * 512 <= DATA + (DATA >> 2), "{} bytes taken", meta.blocks() * 512);
        let blocks = blocks(image);
        assert_eq!(blocks.len() as u64, DATA / BLOCK as u64);
        sum += blocks.len();
        packed += blocks.iter().map(|block| lz4_flex::block::compress(block).len()).sum::<usize>();
        all.extend(blocks);
    }
    let distinct = all.len() as f64 / sum as f64;
    assert!((0.35..0.75).contains(&distinct), "{distinct} of the blocks are different");
    let kept = packed as f64 / (sum * BLOCK) as f64;
    assert!((0.4..0.8).contains(&kept), "{kept} is left by LZ4");
    let again = home.path().join("again");
    make_one(&again, DATA, 1, 2).unwrap();
    assert!(std::fs::read(&images[2]).unwrap() == std::fs::read(&again).unwrap(), "the seed decides");
}

#[test]
fn a_folder_without_images_is_told() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("notes.txt"), "x").unwrap();
    assert!(find(home.path()).unwrap_err().to_string().contains("no file named *.img"));
}

#[test]
fn a_folder_is_emptied_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("work");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("old"), "x").unwrap();
    let folder = Folder::new(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    drop(folder);
    assert!(!path.exists());
}
