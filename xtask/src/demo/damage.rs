//! Rot: random bytes over part of a medium.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Result, failed};

/// One hit in every stretch that holds anything.
const STRETCH: u64 = 1 << 20;
/// Bytes of a hit.
const HIT: usize = 64 << 10;
/// The first stretch is spared, so that the medium is still known for what it is: rotten, not foreign.
const SPARED: u64 = STRETCH;

/// Overwrites 64 KiB of every MiB that is not all zeros; gives the number of bytes overwritten.
pub(super) fn rot(medium: &Path) -> Result<u64> {
    let fail = |error: std::io::Error| failed(format!("{}: {error}", medium.display()));
    let file = OpenOptions::new().read(true).write(true).open(medium).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let random = File::open("/dev/urandom").map_err(fail)?;
    let mut stretch = vec![0; STRETCH as usize];
    let zeros = stretch.clone();
    let mut noise = vec![0; HIT];
    let mut hit = 0;
    let mut at = SPARED;
    while at + STRETCH <= length {
        file.read_exact_at(&mut stretch, at).map_err(fail)?;
        // Most of a medium is holes: the comparison as a whole is far quicker than the search.
        let first = if stretch == zeros { None } else { stretch.iter().position(|&byte| byte != 0) };
        if let Some(first) = first {
            let from = at + (first as u64).min(STRETCH - HIT as u64);
            std::io::Read::read_exact(&mut &random, &mut noise).map_err(fail)?;
            file.write_all_at(&noise, from).map_err(fail)?;
            hit += HIT as u64;
        }
        at += STRETCH;
    }
    file.sync_all().map_err(fail)?;
    Ok(hit)
}
