//! The trash for people.

use api::types::{Trash, TrashItem};
use api::{format_size, format_time};

use super::{duration, table};

pub(in crate::output) fn trash(trash: &Trash) -> String {
    let row = |item: &TrashItem| {
        let goes = if item.expires_ms == 0 { "now".to_owned() } else { format_time(item.expires_ms) };
        vec![
            item.id.to_string(),
            item.name.clone(),
            format_size(item.bytes),
            format_size(item.used_bytes),
            item.snapshots.to_string(),
            format_time(item.deleted_ms),
            goes,
        ]
    };
    let heads = ["NUMBER", "NAME", "SIZE", "USED", "SNAPSHOTS", "DELETED", "GOES"];
    let rows = table(&heads, trash.items.iter().map(row).collect());
    let keep = match trash.keep_seconds {
        0 => "what is deleted goes at once".to_owned(),
        seconds => format!("what is deleted stays for {}", duration(seconds)),
    };
    format!("{rows}\n{keep}\n")
}
