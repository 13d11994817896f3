//! What the site does for itself, for people.

use api::format_size;
use api::types::{Clock, Keys, Scrubbing, Space, SpaceRow, Task};

use super::{duration, table, time};

pub(in crate::output) fn space(space: &Space) -> String {
    let row = |row: &SpaceRow| {
        let size = |bytes| format_size(bytes);
        vec![row.name.clone(), size(row.logical_bytes), size(row.unique_bytes), size(row.shared_bytes)]
    };
    let rows = table(&["NAME", "LOGICAL", "UNIQUE", "SHARED"], space.items.iter().map(row).collect());
    let rest = space.stored_bytes.saturating_sub(space.live_bytes);
    format!(
        "computed {}\n\n{rows}\nin use   {:>11}  by VMs and snapshots, each block once, before parity\n\
         the rest {:>11}  what the cleaner has not freed yet, and directories\n\
         stored   {:>11}\nUNIQUE goes when this one alone is deleted and the cleaner has been there\n",
        time(space.taken_ms),
        format_size(space.live_bytes),
        format_size(rest),
        format_size(space.stored_bytes),
    )
}

pub(in crate::output) fn dry_run(task: &Task) -> String {
    let count = |name: &str| format_size(task.counts.get(name).copied().unwrap_or(0));
    format!(
        "would be deleted: {}\nwould be freed:   {} before parity, once the cleaner has been there\n\
         stays:            {} that others have too\nnothing was deleted\n",
        task.target,
        count("unique_bytes"),
        count("shared_bytes")
    )
}

pub(in crate::output) fn scrubbing(scrubbing: &Scrubbing) -> String {
    let when = |ms: Option<u64>| ms.map_or("never".to_owned(), time);
    let every = match scrubbing.every_s {
        None => "only when asked for".to_owned(),
        Some(every_s) => format!("every {}", duration(every_s)),
    };
    let next = scrubbing.next_ms.map_or("when asked for".to_owned(), time);
    let found = match (scrubbing.done_ms, scrubbing.damaged, scrubbing.task) {
        (None, ..) => "nothing yet".to_owned(),
        (_, 0, _) => "all sound or repaired".to_owned(),
        (_, many, Some(task)) => format!("{many} containers that could not be repaired: `task show {task}`"),
        (_, many, None) => format!("{many} containers that could not be repaired"),
    };
    format!(
        "scrubs  {every}\nbegan   {}\ndone    {}\nfound   {found}\nnext    {next}\n",
        when(scrubbing.begun_ms),
        when(scrubbing.done_ms)
    )
}

pub(in crate::output) fn clock(clock: &Clock) -> String {
    let (site, host) = (time(clock.site_ms), time(clock.host_ms));
    format!("site time    {site}\nhost's clock {host}\n")
}

pub(in crate::output) fn keys(keys: &Keys) -> String {
    let Keys { current_epoch, oldest_epoch, held_until_ms } = keys;
    let oldest = match (current_epoch == oldest_epoch, held_until_ms) {
        (true, _) => "all data is sealed under it".to_owned(),
        (false, Some(until)) => {
            let until = time(*until);
            format!("held data is sealed under the keys from epoch {oldest_epoch} on, which go after {until}")
        }
        (false, None) => {
            format!("data may still be sealed under the keys from epoch {oldest_epoch} on: `task list`")
        }
    };
    format!("key epoch {current_epoch}\n{oldest}\n")
}

/// What came of work of the server.
pub(super) fn counts(task: &Task) -> Vec<String> {
    let line = |(name, count): (&String, &u64)| match name.strip_suffix("_bytes") {
        Some(what) => format!("  {what:<12} {}", format_size(*count)),
        None if name == "bytes" => format!("  {name:<12} {}", format_size(*count)),
        None => format!("  {name:<12} {count}"),
    };
    task.counts.iter().map(line).collect()
}
