//! How clients of the front ends are.

use std::time::Duration;

use api::format_size;
use api::types::{Clients, Health};
use machine::{ClientLimits, more_files};
use nbd::Refusal;

use crate::status::Judging;

/// How long a refused client is a reason to worry.
const RECENT: Duration = Duration::from_secs(600);

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
            Refusal::Full if budget.total() / 2 / nbd::SHARE > connections_max => more_files(),
            Refusal::Files => more_files(),
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
