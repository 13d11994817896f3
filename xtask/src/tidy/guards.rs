//! A guard that nothing holds: `let _ =` drops what it is given at once, so what it was to guard is not guarded.
//!
//! A **guard** is a type with `Drop`, a lock's guard, or a struct with one of these in it. A call gives one when it is a
//! guard's own function (`Looking::begin`), or when every function of that name in the tree gives one.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::{code_only, is_word, line_of, words};
use super::{Tree, text_of};

/// Guards of other people, and what gives them.
const FOREIGN: &[&str] = &[
    "MutexGuard",
    "OwnedMutexGuard",
    "RwLockReadGuard",
    "RwLockWriteGuard",
    "OwnedSemaphorePermit",
    "SemaphorePermit",
];
const FOREIGN_CALLS: &[&str] = &["lock", "lock_owned", "acquire", "acquire_owned"];

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    let sources: Vec<(&String, String)> = tree
        .keys()
        .filter(|path| path.ends_with(".rs"))
        .filter_map(|path| Some((path, code_only(text_of(tree, path)?))))
        .collect();
    let guards = guards(&sources);
    let gives = given(&sources, &guards);
    for (path, code) in &sources {
        for at in words(code, "let") {
            let rest = &code[at..];
            let Some(value) = rest.strip_prefix("let _ = ") else { continue };
            let Some(call) = last_call(value) else { continue };
            let is_own = call.of.is_some_and(|of| guards.contains(of));
            if is_own || gives.contains(call.name) {
                let line = line_of(code, at);
                found.push(format!(
                    "{path}:{line}: `let _ =` drops the guard that {} gives: name it",
                    call.name
                ));
            }
        }
    }
}

fn guards<'a>(sources: &'a [(&String, String)]) -> BTreeSet<&'a str> {
    let mut guards: BTreeSet<&str> = FOREIGN.iter().copied().collect();
    for (_, code) in sources {
        for at in words(code, "Drop") {
            let behind = code[at + 4..].strip_prefix(" for ");
            guards.extend(behind.map(first_word).filter(|name| !name.is_empty()));
        }
    }
    // Structs that hold one: of one step, since what holds more is no guard any more.
    let mut holders = BTreeSet::new();
    for (_, code) in sources {
        for at in words(code, "struct") {
            let name = first_word(code[at + 6..].trim_start());
            let Some(body) = code[at..].split_once(['{', '(', ';']).map(|(_, rest)| rest) else { continue };
            let body = body.split_once(['}', ';']).map_or(body, |(body, _)| body);
            let holds_lock = FOREIGN.iter().any(|guard| !words(body, guard).is_empty());
            if holds_lock {
                holders.insert(name);
            }
        }
    }
    guards.extend(holders);
    guards
}

/// Names of functions that give a guard wherever they are defined.
fn given<'a>(sources: &'a [(&String, String)], guards: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let mut by_name: BTreeMap<&str, bool> = BTreeMap::new();
    for (_, code) in sources {
        for at in words(code, "fn") {
            let name = first_word(code[at + 2..].trim_start());
            if name.is_empty() {
                continue;
            }
            let end = code[at..].find(['{', ';']).map_or(code.len(), |end| at + end);
            let result = code[at..end].rsplit_once("->").map_or("", |(_, result)| result);
            let result = result.split_once("where").map_or(result, |(result, _)| result);
            // What is borrowed is not given.
            let is_guard = !result.trim_start().starts_with('&')
                && guards.iter().any(|guard| !words(result, guard).is_empty());
            let all = by_name.entry(name).or_insert(true);
            *all = *all && is_guard;
        }
    }
    let own = by_name.into_iter().filter(|(_, all)| *all).map(|(name, _)| name);
    own.chain(FOREIGN_CALLS.iter().copied()).collect()
}

struct Call<'a> {
    /// The type before `::`.
    of: Option<&'a str>,
    name: &'a str,
}

/// The last call outside of all brackets of the expression that `text` begins with, up to its `;`; what unwraps its result
/// does not count.
fn last_call(text: &str) -> Option<Call<'_>> {
    let (mut depth, mut last, mut word) = (0_usize, None, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => {
                if depth == 0 && c == '(' {
                    let name = &text[word..at];
                    if !["unwrap", "expect", "unwrap_or_else", ""].contains(&name) {
                        let of = text[..word].strip_suffix("::").map(last_word);
                        last = Some(Call { of, name });
                    }
                }
                depth += 1;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => break,
            _ => {}
        }
        if depth == 0 && !is_word(c) {
            word = at + c.len_utf8();
        }
    }
    last
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

fn last_word(text: &str) -> &str {
    let start = text.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
    &text[start..]
}
