//! Clients of the front ends: what they may take of the server.

use budget::Budget;

/// Memory of a server that was told nothing else, bytes.
const MEMORY: usize = 1 << 30;
/// Connections of a server that was told nothing else: 10,000 VMs with 32 disks each have a third of them.
const CONNECTIONS: usize = 1 << 20;
/// Files that a server has at least where nothing is said of them: with fewer, not all clients of a host find a place.
const FILES_FEW: u64 = 4096;

/// What clients may take of the server.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// Memory for what they send and are sent.
    pub budget: Budget,
    /// Connections to disks at once; tasks have others.
    pub connections: usize,
    /// Files that the server may have open, where that is known.
    pub open_files: Option<u64>,
}

impl ClientLimits {
    /// So many bytes, and so many connections.
    pub fn new(memory_bytes: usize, connections: usize) -> Self {
        Self { budget: Budget::new(memory_bytes), connections, open_files: None }
    }

    /// What follows from it that few files can be open; `None` where they are enough.
    pub fn few_files(&self) -> Option<String> {
        let files = self.open_files.filter(|files| *files < FILES_FEW)?;
        Some(format!(
            "the server may have {files} files open, so there can be {} connections to disks: {}",
            self.connections,
            more_files()
        ))
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::new(MEMORY, CONNECTIONS)
    }
}

/// What lets a server open more files.
pub fn more_files() -> String {
    "let the server open more files (LimitNOFILE of its unit, or `ulimit -Hn`), and start it again".to_owned()
}
