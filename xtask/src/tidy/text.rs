//! Rules on every file: size, words left behind, places of one machine, numbered decisions.

use super::Tree;
use super::rust::{line_of, words};

const FILE_BYTES_MAX: usize = 1 << 20;
/// Notes to oneself. In halves, here and below, so that this file keeps its own rules.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
/// Paths and hosts that exist for one machine only.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("deb.debian", ".org"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
];
/// Written by cargo; it names the registry of every crate.
const LOCK: &str = "Cargo.lock";
const DECISIONS: &str = "docs/decisions/";

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    for (path, bytes) in tree {
        if bytes.len() > FILE_BYTES_MAX {
            found.push(format!("{path}: {} bytes, at most {FILE_BYTES_MAX}", bytes.len()));
        }
        if path == LOCK {
            continue;
        }
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        for note in NOTES {
            for at in words(text, note) {
                found.push(format!("{path}:{}: {note} left behind", line_of(text, at)));
            }
        }
        for place in PLACES {
            for (at, _) in text.match_indices(place) {
                found.push(format!("{path}:{}: {place} is a place of one machine", line_of(text, at)));
            }
        }
    }
    decisions(tree, found);
}

/// `docs/decisions/NNNN-slug.md`, counted from 0001 without gaps, each titled `# NNNN ...`.
fn decisions(tree: &Tree, found: &mut Vec<String>) {
    let records = tree.iter().filter(|(path, _)| path.starts_with(DECISIONS) && path.ends_with(".md"));
    for (index, (path, bytes)) in records.enumerate() {
        let number = format!("{:04}", index + 1);
        if !path[DECISIONS.len()..].starts_with(&format!("{number}-")) {
            found.push(format!("{path}: decision records count up from 0001; this one would be {number}"));
        } else if !bytes.starts_with(format!("# {number}").as_bytes()) {
            found.push(format!("{path}: its title does not begin `# {number}`"));
        }
    }
}
