//! What the crates define, by name: enough to say whether `engine::State` or `trash::a_test` is there.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::is_word;
use super::{Tree, text_of};

/// What comes before a name that is being defined.
const KEYWORDS: &[&str] =
    &["fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod ", "macro_rules! "];

pub(super) struct Names<'a> {
    /// Files that define a name, or are called so.
    places: BTreeMap<&'a str, Vec<&'a str>>,
    /// Folders and files that have Rust in them, by name.
    rooms: BTreeSet<&'a str>,
    /// Crates of others, as the workspace's manifest has them.
    foreign: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        let (mut places, mut rooms) = (BTreeMap::<&str, Vec<&str>>::new(), BTreeSet::new());
        for path in tree.keys().filter(|path| path.ends_with(".rs")) {
            for part in parts(path) {
                rooms.insert(part);
                places.entry(part).or_default().push(path);
            }
            let text = text_of(tree, path).unwrap_or_default();
            for keyword in KEYWORDS {
                for (at, _) in text.match_indices(keyword) {
                    let rest = &text[at + keyword.len()..];
                    let name = rest.find(|c| !is_word(c)).map_or(rest, |end| &rest[..end]);
                    places.entry(name).or_default().push(path);
                }
            }
        }
        let manifest = text_of(tree, "Cargo.toml").unwrap_or_default().lines();
        let foreign = manifest.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        Self { places, rooms, foreign }
    }

    /// Whether `name` is a path such as `engine::State` or `trash::a_test` that leads to nothing: what its last part names
    /// must be defined in a file that has the first part in its own path.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        let is_part = |part: &str| part.starts_with(|c: char| c.is_alphabetic()) && part.chars().all(is_word);
        let (Some((first, _)), Some((_, last))) = (name.split_once("::"), name.rsplit_once("::")) else {
            return false;
        };
        if !name.split("::").all(is_part) || first.starts_with(|c: char| c.is_uppercase()) {
            return false;
        }
        if !self.rooms.contains(first) {
            return first != "std" && !self.foreign.contains(first);
        }
        let is_under = |path: &&str| parts(path).any(|part| part == first);
        !self.places.get(last).is_some_and(|paths| paths.iter().any(is_under))
    }
}

/// Folders of a path, and its file without the end.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part))
}
