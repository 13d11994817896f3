//! Clients of the front ends: what they may take of the server, and how they are.

use std::time::Duration;

use api::format_size;
use api::types::{Clients, Health};
use budget::Budget;
use nbd::Refusal;

use crate::status::Judging;

/// Memory of a server that was told nothing else, bytes.
const MEMORY: usize = 1 << 30;
/// Connections of a server that was told nothing else: 10,000 VMs with 32 disks each have a third of them.
const CONNECTIONS: usize = 1 << 20;
/// Files that a server has at least where nothing is said of them: with fewer, not all clients of a host find a place.
const FILES_FEW: u64 = 4096;
/// How long a refused client is a reason to worry.
const RECENT: Duration = Duration::from_secs(600);

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
            self::files()
        ))
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::new(MEMORY, CONNECTIONS)
    }
}

impl Judging {
    /// How clients are, and whether some were refused lately.
    pub(crate) fn add_clients(&mut self, limits: &ClientLimits, clients: Option<nbd::Clients>) {
        let status = &mut self.0;
        status.notices.extend(limits.few_files());
        let budget = &limits.budget;
        (status.clients.memory_used_bytes, status.clients.memory_bytes) = (budget.used(), budget.total());
        let Some(nbd::Clients { connections, connections_max, refused, refused_last, cut_off }) = clients
        else {
            return;
        };
        status.clients = Clients { connections, connections_max, refused, cut_off, ..status.clients };
        let Some((why, ago)) = refused_last.filter(|(_, ago)| *ago < RECENT) else { return };
        status.reasons.push(format!(
            "NBD clients are refused: {why} ({connections} of {connections_max} connections; {refused} refused since the start, \
             the last {} s ago)",
            ago.as_secs()
        ));
        status.next.push(match why {
            Refusal::Full if budget.total() / 2 / nbd::SHARE > connections_max => files(),
            Refusal::Files => files(),
            Refusal::Full | Refusal::Memory => {
                let total = format_size(budget.total() as u64);
                format!(
                    "give clients more memory than {total} with --client-memory, and start the server again"
                )
            }
        });
        if status.health == Health::Ok {
            status.health = Health::Degraded;
        }
    }
}

fn files() -> String {
    "let the server open more files (LimitNOFILE of its unit, or `ulimit -Hn`), and start it again".to_owned()
}
