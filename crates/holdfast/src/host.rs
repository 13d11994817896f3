//! What this machine gives the server: open files, and memory for clients.

use std::path::{Path, PathBuf};

use machine::{CLIENT_MEMORY_MIN, ClientLimits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are not connections of clients: media, nodes, the interface, tasks.
const FILES_KEPT: u64 = 1024;
/// Where few files can be open, one in this many is a client's connection.
const FILES_PART: u64 = 8;
/// Open files where the system sets no limit.
const FILES_MAX: u64 = 1 << 20;
/// Of the machine's memory one part in this many is for what clients send and are sent.
const MEMORY_PART: u64 = 8;
/// Memory of a machine that does not tell, bytes.
const MEMORY_UNKNOWN: u64 = 8 << 30;

/// What clients may take: so many bytes, or the machine's part, and as many connections as files can be open.
pub(crate) fn client_limits(memory_bytes: Option<u64>) -> ClientLimits {
    let files = raise_open_files();
    let memory_bytes = memory_bytes.unwrap_or_else(|| memory(Path::new("/")) / MEMORY_PART);
    let memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX).max(CLIENT_MEMORY_MIN);
    let limits =
        ClientLimits { open_files: Some(files), ..ClientLimits::new(memory_bytes, connections(files)) };
    if let Some(few) = limits.few_files() {
        tracing::warn!("{few}");
    }
    limits
}

/// Lets the process open as many files as it may ask for; gives how many.
pub(crate) fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match raised {
        Ok(()) => maximum.unwrap_or(FILES_MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not raised");
            current.unwrap_or(FILES_MAX)
        }
    }
}

/// Connections of clients where `files` files can be open.
fn connections(files: u64) -> usize {
    files.saturating_sub(FILES_KEPT).max(files / FILES_PART) as usize
}

/// Bytes of memory that this process may use: the machine's, or what its control groups leave of it. `root` is that of
/// the file system.
fn memory(root: &Path) -> u64 {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = read("proc/meminfo").lines().find_map(|line| {
        let kibibytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kibibytes.trim().parse::<u64>().ok()
    });
    let machine = machine.map_or(MEMORY_UNKNOWN, |kibibytes| kibibytes.saturating_mul(1024));
    let groups = read("proc/self/cgroup");
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folder = PathBuf::from("sys/fs/cgroup").join(group);
    let limits = folder.ancestors().filter_map(|folder| {
        std::fs::read_to_string(root.join(folder).join("memory.max")).ok()?.trim().parse().ok()
    });
    limits.fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_leave_some_connections_and_many_leave_most() {
        let found = [64, 1024, 4096, 65_536, 1 << 20].map(connections);
        assert_eq!(found, [8, 128, 3072, 64_512, (1 << 20) - 1024]);
        assert!(found[4] > 10_000 * 32);
    }

    #[test]
    fn a_control_group_may_have_less_than_the_machine() {
        let root = tempfile::TempDir::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(memory(root.path()), MEMORY_UNKNOWN);
        write("proc/meminfo", "MemFree:  1 kB\nMemTotal:       16384000 kB\n");
        assert_eq!(memory(root.path()), 16_384_000 << 10);
        write("proc/self/cgroup", "0::/system.slice/holdfast.service\n");
        write("sys/fs/cgroup/system.slice/holdfast.service/memory.max", "max\n");
        assert_eq!(memory(root.path()), 16_384_000 << 10);
        write("sys/fs/cgroup/system.slice/memory.max", "4294967296\n");
        assert_eq!(memory(root.path()), 4 << 30);
    }
}
