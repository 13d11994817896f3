//! Tidy: the house rules a machine can check.
//!
//! Rules look at a [`Tree`], every file of the repository by path, and give one line per violation that says where,
//! what and how much. `cargo x check` runs them, and so does the test `the_tree_is_tidy`, so `cargo x test` does too.

mod guards;
mod layers;
mod names;
mod prose;
mod puts;
mod references;
mod rust;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use crate::{Result, failed, tree};

/// Every file of the repository by its path from the root.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// Reads the work tree: tracked files and those that would be.
pub(crate) fn read_tree() -> Result<Tree> {
    let mut all = Tree::new();
    for path in tree::files()? {
        let bytes =
            std::fs::read(tree::root().join(&path)).map_err(|error| failed(format!("{path}: {error}")))?;
        all.insert(path, bytes);
    }
    Ok(all)
}

/// What is wrong with the tree, one line each; empty when it is tidy.
pub(crate) fn violations(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    source::check(tree, &mut found);
    guards::check(tree, &mut found);
    puts::check(tree, &mut found);
    layers::check(tree, &mut found);
    text::check(tree, &mut found);
    references::check(tree, &mut found);
    prose::check(tree, &mut found);
    found
}

/// The file as text; `None` when it is not there or not text.
fn text_of<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    std::str::from_utf8(tree.get(path)?).ok()
}
