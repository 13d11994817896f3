//! Rules on Rust files: small rooms, a word at every door, `unsafe` where it belongs.

use super::rust::{code_only, functions, line_of, test_modules, words};
use super::{Tree, text_of};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// A crate root says what the crate is in at least so many lines.
const ROOT_DOC_LINES_MIN: usize = 3;
/// Crates that may hold `unsafe`: SIMD kernels, and the ring with its buffers.
const UNSAFE_CRATES: &[&str] = &["crates/erasure/", "crates/media/"];
/// Macros for work left undone or a look at a value. In halves, so that this file keeps its own rule.
const LEFTOVERS: &[&str] = &[concat!("to", "do!"), concat!("unim", "plemented!"), concat!("d", "bg!")];

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    for path in tree.keys().filter(|path| path.ends_with(".rs")) {
        let Some(source) = text_of(tree, path) else {
            found.push(format!("{path}: not text"));
            continue;
        };
        let code = code_only(source);
        file_size(path, &code, found);
        if !is_test_file(path) {
            function_sizes(path, &code, found);
        }
        if is_crate_root(path) {
            root_doc(path, source, found);
        }
        if !UNSAFE_CRATES.iter().any(|allowed| path.starts_with(allowed)) {
            for at in words(&code, "unsafe") {
                found.push(format!(
                    "{path}:{}: unsafe outside {}",
                    line_of(&code, at),
                    UNSAFE_CRATES.join(", ")
                ));
            }
        }
        for leftover in LEFTOVERS {
            let word = leftover.trim_end_matches('!');
            for at in words(&code, word).into_iter().filter(|at| code[at + word.len()..].starts_with('!')) {
                found.push(format!("{path}:{}: {leftover} left behind", line_of(&code, at)));
            }
        }
        doc_examples(path, source, found);
    }
}

fn file_size(path: &str, code: &str, found: &mut Vec<String>) {
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{path}: {lines} lines of code, at most {FILE_LINES_MAX}"));
    }
}

fn function_sizes(path: &str, code: &str, found: &mut Vec<String>) {
    let tests = test_modules(code);
    for function in functions(code) {
        let is_test = tests.iter().any(|(first, last)| (*first..=*last).contains(&function.line));
        if function.lines > FUNCTION_LINES_MAX && !is_test {
            let (name, line, lines) = (&function.name, function.line, function.lines);
            found.push(format!("{path}:{line}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}"));
        }
    }
}

/// Tests are exempt from the cap on functions: a schedule reads best in one piece.
pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn is_crate_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs") || path.contains("/src/bin/")
}

fn root_doc(path: &str, source: &str, found: &mut Vec<String>) {
    let said = source
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .filter(|line| !line.trim_start_matches("//!").trim().is_empty())
        .count();
    if said < ROOT_DOC_LINES_MIN {
        found.push(format!(
            "{path}: opens with {said} lines of `//!`, at least {ROOT_DOC_LINES_MIN}: what it is"
        ));
    }
}

/// No suite runs code in doc comments, so a fence there must say that it holds text.
fn doc_examples(path: &str, source: &str, found: &mut Vec<String>) {
    let mut inside = false;
    for (number, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("//!").or_else(|| line.strip_prefix("///"));
        let Some(tag) = doc.and_then(|doc| doc.trim().strip_prefix("```")) else { continue };
        if !inside && tag.is_empty() {
            found.push(format!("{path}:{}: a doc example nobody runs: write ```text", number + 1));
        }
        inside = !inside;
    }
}
