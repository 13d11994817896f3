//! Folders that a run makes and removes, and disk images to import.
//!
//! Made images are a stand-in where no real ones are given: three disks that share most of their files, as VMs of one
//! distribution do, each file at another place in each image. All follow from the seed.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::data::{BLOCK, Random, mix};
use crate::{Failure, stop};

/// Images imported.
pub(crate) const IMAGES: usize = 3;
/// Of 100 files so many are on all images.
const SHARED: u64 = 70;
/// Blocks of a file: 1 to so many, most of them few.
const FILE_BLOCKS_MAX: u64 = 128;
/// Of 100 files so many hold noise, as compressed files do; the rest is made of words.
const NOISY: u64 = 25;
/// Different words, and bytes of each.
const WORDS: usize = 1024;
const WORD: usize = 8;
/// An image is so many times as long as its data; the rest is a hole.
const SPARSE: u64 = 4;

/// A folder of our own. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it, empty.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::at(path, &error));
            }
            _ => std::fs::create_dir_all(path).map_err(|error| Failure::at(path, &error))?,
        }
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is removed by the next run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first three files `*.img` of a folder, by name.
pub(crate) fn find(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = std::fs::read_dir(dir).map_err(|error| Failure::at(dir, &error))?;
    let mut images: Vec<PathBuf> = listed
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "img"))
        .collect();
    images.sort();
    images.truncate(IMAGES);
    if images.is_empty() {
        return Err(Failure::failed(format!("{}: no file named *.img", dir.display())));
    }
    Ok(images)
}

/// Makes the images, each with `data` bytes of files.
pub(crate) fn make(dir: &Path, data: u64, seed: u64) -> Result<Vec<PathBuf>, Failure> {
    let mut images = Vec::new();
    for number in 0..IMAGES as u64 {
        let path = dir.join(format!("made-{number}.img"));
        make_one(&path, data, seed, number).map_err(|error| Failure::at(&path, &error))?;
        stop::check()?;
        images.push(path);
    }
    Ok(images)
}

/// Files one after another, with holes between them that differ from image to image.
fn make_one(path: &Path, data: u64, seed: u64, number: u64) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.set_len(data * SPARSE)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut gaps = Random::new(mix(seed ^ mix(number + 1)));
    let words = words(seed);
    let mut plan = Random::new(seed);
    let (mut left, mut at) = (data / BLOCK as u64, 0);
    let mut buffer = Vec::new();
    while left > 0 {
        // The same draws for every image, so that a shared file is the same on all.
        let blocks = (1 << plan.below(u64::from(FILE_BLOCKS_MAX.ilog2()) + 1)).min(left);
        let is_shared = plan.below(100) < SHARED;
        let is_noisy = plan.below(100) < NOISY;
        let content = mix(plan.next() ^ if is_shared { 0 } else { mix(number + 7) });
        at += gaps.below(blocks * 2 * (SPARSE - 2) + 1) * BLOCK as u64;
        at = at.min((data * SPARSE).saturating_sub(left * BLOCK as u64));
        file_content(&mut buffer, blocks as usize * BLOCK, content, is_noisy, &words);
        out.seek(SeekFrom::Start(at))?;
        out.write_all(&buffer)?;
        at += blocks * BLOCK as u64;
        left -= blocks;
    }
    out.flush()?;
    out.get_ref().sync_all()
}

fn words(seed: u64) -> Vec<[u8; WORD]> {
    let mut random = Random::new(mix(seed));
    (0..WORDS).map(|_| random.next().to_le_bytes()).collect()
}

/// Noise, or words of which some come far more often than others; the end of the last block is zeros.
fn file_content(buffer: &mut Vec<u8>, length: usize, seed: u64, is_noisy: bool, words: &[[u8; WORD]]) {
    let mut random = Random::new(seed);
    buffer.clear();
    let tail = random.below(BLOCK as u64) as usize / WORD * WORD;
    while buffer.len() < length - tail {
        let drawn = random.next();
        if is_noisy {
            buffer.extend(drawn.to_le_bytes());
        } else {
            let few = if drawn & 1 == 0 { WORDS / 32 } else { WORDS };
            buffer.extend(words[(drawn >> 1) as usize % few]);
        }
    }
    buffer.resize(length, 0);
}
