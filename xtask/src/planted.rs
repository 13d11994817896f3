//! Planted bugs: patches that break a guarantee, each naming the test that must notice.
//!
//! `tests/planted/NAME.patch` opens with a header and goes on as a unified diff against the tree:
//!
//! ```text
//! # what: the bug in a few words
//! # test: arguments for cargo, e.g.  test -p journal -- trim
//! # expect: text of the output that proves the right test failed, e.g. the test's name
//! ```
//!
//! Each patch is applied alone to a scratch copy of the work tree, which has its own build directory. The named
//! command must pass on the unpatched copy, and fail on the patched one with the expected text on a line that does
//! not report success. A patch that no longer applies or builds has failed: the code moved on and it must follow.

mod scratch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Outcome, Show, run, seconds};
use crate::tally::Tally;
use crate::{Result, failed, tree};
use scratch::Scratch;

/// One test command, its build included. A planted bug may well hang the test.
const TEST_LIMIT: Duration = Duration::from_secs(900);
const FOLDER: &str = "tests/planted";

/// A patch with its header.
#[derive(Debug, PartialEq, Eq)]
struct Planted {
    name: String,
    what: String,
    test: Vec<String>,
    expect: String,
}

/// Applies each patch in turn and prints a table.
pub(crate) fn run_all() -> Result<Tally> {
    let patches = read_all()?;
    if patches.is_empty() {
        return Err(failed(format!("no patches in {FOLDER}")));
    }
    let scratch = Scratch::make()?;
    let mut sound: BTreeMap<&[String], bool> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut tally = Tally::default();
    for planted in &patches {
        println!("== planted {}: {}", planted.name, planted.what);
        let start = Instant::now();
        scratch.restore()?;
        if !sound.contains_key(planted.test.as_slice()) {
            let passes = run(&mut scratch.cargo(&planted.test), Show::Quiet, TEST_LIMIT)?.success;
            sound.insert(&planted.test, passes);
        }
        let verdict = match sound[planted.test.as_slice()] {
            false => Err("its test fails without the bug too".to_owned()),
            true => try_one(&scratch, planted)?,
        };
        match &verdict {
            Ok(()) => tally.passed += 1,
            Err(_) => tally.failed += 1,
        }
        let said = verdict.err().unwrap_or_else(|| "noticed".to_owned());
        println!("{said} after {}", seconds(start.elapsed()));
        rows.push(format!(
            "  {:<28} {:<34} {:>9}  {}",
            planted.name,
            said,
            seconds(start.elapsed()),
            planted.what
        ));
    }
    scratch.restore()?;
    println!("\nplanted bugs:\n{}", rows.join("\n"));
    Ok(tally)
}

/// The inner result says why the bug went unnoticed.
fn try_one(scratch: &Scratch, planted: &Planted) -> Result<std::result::Result<(), String>> {
    if let Err(why) = scratch.apply(&tree::root().join(FOLDER).join(format!("{}.patch", planted.name)))? {
        println!("{why}");
        return Ok(Err("no longer applies".to_owned()));
    }
    let outcome = run(&mut scratch.cargo(&planted.test), Show::Quiet, TEST_LIMIT)?;
    let verdict = judge(&outcome, &planted.expect);
    if verdict.is_err() {
        println!("{}", outcome.tail(20));
    }
    Ok(verdict)
}

fn judge(outcome: &Outcome, expect: &str) -> std::result::Result<(), String> {
    if outcome.output.lines().any(|line| line.starts_with("error: could not compile")) {
        return Err("does not build".to_owned());
    }
    if outcome.success {
        return Err("UNNOTICED".to_owned());
    }
    let reports_success = |line: &str| line.ends_with("... ok") || line.trim_start().starts_with("PASS");
    if outcome.output.lines().any(|line| line.contains(expect) && !reports_success(line)) {
        return Ok(());
    }
    Err(if outcome.timed_out { "hangs before its test" } else { "something else failed" }.to_owned())
}

fn read_all() -> Result<Vec<Planted>> {
    let mut patches = Vec::new();
    let only = std::env::var("HOLDFAST_PLANTED").unwrap_or_default();
    let is_wanted = |name: &str| only.is_empty() || only.split(',').any(|start| name.starts_with(start));
    for path in tree::files()? {
        let Some(name) = path.strip_prefix("tests/planted/").and_then(|name| name.strip_suffix(".patch"))
        else {
            continue;
        };
        if !is_wanted(name) {
            continue;
        }
        let text = std::fs::read_to_string(tree::root().join(&path))
            .map_err(|error| failed(format!("{path}: {error}")))?;
        patches.push(parse(name, &text).map_err(|why| failed(format!("{path}: {why}")))?);
    }
    Ok(patches)
}

/// Reads a patch's header: the lines before the diff.
fn parse(name: &str, text: &str) -> std::result::Result<Planted, String> {
    let header: Vec<&str> = text.lines().take_while(|line| !is_diff(line)).collect();
    if header.len() == text.lines().count() {
        return Err("there is no diff".to_owned());
    }
    let field = |key: &str| -> std::result::Result<String, String> {
        let start = format!("# {key}:");
        let mut values = header.iter().filter_map(|line| line.strip_prefix(&start)).map(str::trim);
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Ok(value.to_owned()),
            (Some(_), Some(_)) => Err(format!("two lines `{start}`")),
            _ => Err(format!("no line `{start} ...` before the diff")),
        }
    };
    let test: Vec<String> = field("test")?.split_whitespace().map(str::to_owned).collect();
    if !matches!(test[0].as_str(), "test" | "nextest" | "run") {
        return Err(format!(
            "`# test:` holds arguments for cargo, such as `test -p journal`, not {:?}",
            test[0]
        ));
    }
    Ok(Planted { name: name.to_owned(), what: field("what")?, test, expect: field("expect")? })
}

fn is_diff(line: &str) -> bool {
    line.starts_with("diff ") || line.starts_with("--- ")
}

/// A git that knows no repository: it must treat the scratch copy as plain files.
fn plain_git(directory: &std::path::Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    command.env("GIT_CEILING_DIRECTORIES", directory.parent().unwrap_or(directory));
    command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
    command
}
