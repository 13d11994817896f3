//! A put over a key that was read compares with what was read: else it undoes what somebody else did between
//! look and put.
//!
//! Found by words: for the key of each `Op::put` a `Compare` of the same function names the same expression,
//! or the function is listed below with what keeps others away. It does not see whether that compare is of
//! the same transaction, nor whether what it compares with was read before the value was made.

use super::rust::{code_only, functions, line_of, test_modules, words};
use super::source::is_test_file;
use super::{Tree, text_of};

/// The store itself: it does what transactions say.
const STORE: &str = "crates/meta/";
const PUTS: [&str; 2] = ["Op::put", "Op::put_leased"];
const COMPARES: [&str; 3] = ["Compare::absent", "Compare::unchanged", "Compare::value"];

/// Functions that put without a compare of that key: file, name, why nothing is lost.
const UNCOMPARED: &[(&str, &str, &str)] = &[
    (
        "crates/catalog/src/definition.rs",
        "try_set_definition",
        "the VM's record is compared, and alone names the key",
    ),
    ("crates/catalog/src/points/make.rs", "parts", "a key of a number that was never used"),
    ("crates/catalog/src/snapshots.rs", "try_snapshot", "a key of a number that was never used"),
    ("crates/catalog/src/snapshots.rs", "try_clone_vm", "a key of a number that was never used"),
    ("crates/catalog/src/trash.rs", "set_trash_keep", "the value is the caller's alone"),
    ("crates/catalog/src/trash.rs", "throw", "a key of a number that was never used"),
    ("crates/compute/src/restored.rs", "allow_missing", "the value is the caller's alone"),
    ("crates/engine/src/holds.rs", "clock_op", "site time, which never goes back"),
    ("crates/engine/src/holds.rs", "hold", "compared by `unchanged`"),
    (
        "crates/engine/src/reseal.rs",
        "retire_containers",
        "one resealing at a time, and the last line drawn counts",
    ),
    ("crates/engine/src/stubs.rs", "put", "under the cleaner's guard"),
    ("crates/site/src/upkeep.rs", "change_scrub", "under its own guard from look to put"),
    ("crates/task/src/tasks.rs", "put", "its callers have the turn of tasks"),
    ("crates/task/src/work.rs", "begin_work", "a number that is free, in the turn of tasks"),
    ("crates/task/src/work.rs", "end_work", "in the turn of tasks"),
];

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    for path in tree.keys().filter(|path| path.ends_with(".rs") && path.starts_with("crates/")) {
        if is_test_file(path) || path.starts_with(STORE) {
            continue;
        }
        let Some(source) = text_of(tree, path) else { continue };
        let code = code_only(source);
        let bare = uncompared(&code);
        let listed: Vec<&str> =
            UNCOMPARED.iter().filter(|(file, ..)| file == path).map(|(_, name, _)| *name).collect();
        for (line, name) in bare.iter().filter(|(_, name)| !listed.contains(&name.as_str())) {
            found.push(format!(
                "{path}:{line}: {name} puts a key that it does not compare: compare it with what was read, or say in \
                 xtask/src/tidy/puts.rs what keeps others away"
            ));
        }
        for name in listed.iter().filter(|name| !bare.iter().any(|(_, bare)| bare == *name)) {
            found.push(format!("xtask/src/tidy/puts.rs: {name} of {path} puts nothing without a compare"));
        }
    }
}

/// Line and function of each put whose key its function does not compare.
fn uncompared(code: &str) -> Vec<(usize, String)> {
    let (all, tests) = (functions(code), test_modules(code));
    let mut found = Vec::new();
    for at in calls(code, &PUTS) {
        let line = line_of(code, at);
        if tests.iter().any(|(first, last)| (*first..=*last).contains(&line)) {
            continue;
        }
        let holds = |first: usize, lines: usize| (first..first + lines).contains(&line);
        let inner = all.iter().filter(|it| holds(it.line, it.lines)).max_by_key(|it| it.line);
        let Some(function) = inner else { continue };
        let own = |at: &usize| (function.line..function.line + function.lines).contains(&line_of(code, *at));
        let compared: Vec<String> =
            calls(code, &COMPARES).into_iter().filter(own).map(|at| key_of(code, at)).collect();
        if !compared.contains(&key_of(code, at)) {
            found.push((line, function.name.clone()));
        }
    }
    found
}

/// Where one of these functions is called.
fn calls(code: &str, names: &[&str]) -> Vec<usize> {
    let called = |name: &&str| {
        let behind = name.len();
        words(code, name).into_iter().filter(move |at| code[at + behind..].starts_with('('))
    };
    names.iter().flat_map(called).collect()
}

/// The first argument of the call at `at`, without spaces, and whether or not it is cloned.
fn key_of(code: &str, at: usize) -> String {
    let Some((_, arguments)) = code[at..].split_once('(') else { return String::new() };
    let mut depth = 0;
    let is_end = |c: char| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ',' | ')' if depth == 0 => return true,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        false
    };
    let end = arguments.find(is_end).unwrap_or(arguments.len());
    let key: String = arguments[..end].chars().filter(|c| !c.is_whitespace()).collect();
    key.trim_end_matches(".clone()").to_owned()
}
