//! Which media share one physical device: media on one disk fail together.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// Devices stacked on devices (partition, dm, md, loop) deeper than this are not looked into.
const DEPTH_MAX: usize = 16;

/// Groups `paths` (files, or block devices) by the physical device below them. Every index into `paths` is in exactly
/// one group; those in a group of two or more share a disk. Partitions count as their disk; dm and md as all their
/// members; a loop device as what its file lies on. A path of which the system says nothing is alone.
pub fn same_device<P: AsRef<Path>>(paths: &[P]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(BTreeSet<PathBuf>, Vec<usize>)> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let mut below = BTreeSet::new();
        physical_of_path(path.as_ref(), 0, &mut below);
        let mut members = vec![index];
        // A striped device can join groups that were apart.
        groups.retain_mut(|(devices, indices)| {
            let apart = devices.is_disjoint(&below);
            if !apart {
                below.append(devices);
                members.append(indices);
            }
            apart
        });
        members.sort_unstable();
        groups.push((below, members));
    }
    let mut groups: Vec<Vec<usize>> = groups.into_iter().map(|(_, indices)| indices).collect();
    groups.sort_unstable();
    groups
}

fn physical_of_path(path: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    // A file not yet created will lie where its directory does.
    let looked_at = [Some(path), path.parent().filter(|parent| !parent.as_os_str().is_empty())];
    let Some((path, metadata)) =
        looked_at.into_iter().flatten().find_map(|path| Some((path, path.metadata().ok()?)))
    else {
        return;
    };
    let device = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    if major(device) == 0 {
        // A file system without a device number of its own: btrfs, NFS, tmpfs.
        match mount_source(path) {
            Some(source) if depth < DEPTH_MAX => physical_of_path(&source, depth + 1, found),
            _ => drop(found.insert(PathBuf::from(format!("0:{}", minor(device))))),
        }
        return;
    }
    let node = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    // Without sysfs the number itself must do.
    physical_of_node(&node.canonicalize().unwrap_or(node), depth, found);
}

/// `node` is a block device's directory in sysfs.
fn physical_of_node(node: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    if depth < DEPTH_MAX {
        if let (true, Some(disk)) = (node.join("partition").exists(), node.parent()) {
            return physical_of_node(disk, depth + 1, found);
        }
        if let Ok(file) = std::fs::read_to_string(node.join("loop/backing_file")) {
            return physical_of_path(Path::new(file.trim_end()), depth + 1, found);
        }
        let slaves = std::fs::read_dir(node.join("slaves")).into_iter().flatten();
        let slaves: Vec<PathBuf> =
            slaves.filter_map(|slave| slave.ok()?.path().canonicalize().ok()).collect();
        if !slaves.is_empty() {
            return slaves.iter().for_each(|slave| physical_of_node(slave, depth + 1, found));
        }
    }
    found.insert(node.to_owned());
}

/// The block device that is mounted where `path` lies.
fn mount_source(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounted_at(&table, &path)
        .filter(|source| source.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device()))
}

/// The source of the innermost mount in `table` (the format of `/proc/self/mountinfo`) that holds `path`.
fn mounted_at(table: &str, path: &Path) -> Option<PathBuf> {
    let mounts = table.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, source.split(' ').nth(1)?))
    });
    mounts
        .filter(|(point, _)| path.starts_with(point))
        // Of several mounts on one point the last is the one to see.
        .max_by_key(|(point, _)| point.len())
        .map(|(_, source)| PathBuf::from(source))
}

#[cfg(test)]
mod tests;
