//! Rules on the prose of Markdown: its lines end at a column that two windows side by side have room for.

use super::{Tree, text_of};

const COLUMNS_MAX: usize = 110;
/// Pages that the program writes from what it says of itself.
const GENERATED: &[&str] = &["docs/cli.md", "docs/errors.md"];

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    for path in tree.keys().filter(|path| path.ends_with(".md") && !GENERATED.contains(&path.as_str())) {
        for (number, line) in prose(text_of(tree, path).unwrap_or_default()) {
            let columns = line.chars().count();
            // A table's row is one line, and so is a link or an address that has no break.
            let is_breakable = !line.trim_start().starts_with('|') && words(line) > 1;
            if columns > COLUMNS_MAX && is_breakable {
                found.push(format!("{path}:{number}: {columns} columns of prose, at most {COLUMNS_MAX}"));
            }
        }
    }
}

/// The lines of a page outside of blocks of code, with their numbers from 1.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        (!inside && !is_fence).then_some((index + 1, line))
    })
}

/// Words of a line, without the mark of a list's item.
fn words(line: &str) -> usize {
    line.split_whitespace().skip_while(|word| matches!(*word, "-" | "*") || is_number(word)).count()
}

fn is_number(word: &str) -> bool {
    word.strip_suffix('.').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}
