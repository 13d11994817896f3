//! Goal: every command has help with an example, and the pages in the repository are those of the program.
//! `HOLDFAST_REGENERATE=1 cargo test -p holdfast` writes them anew.

use std::path::Path;

use api::Code;
use clap::{Command, CommandFactory};

use super::Arguments;

/// Every command, by its words.
fn all() -> Vec<(String, Command)> {
    fn walk(words: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        let name = format!("{words}{}", command.get_name());
        found.push((name.clone(), command.clone()));
        for below in command.get_subcommands() {
            walk(&format!("{name} "), below, found);
        }
    }
    let mut root = Arguments::command().term_width(100);
    root.build();
    let mut found = Vec::new();
    walk("", &root, &mut found);
    found
}

fn kept(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/{name} is not up to date: HOLDFAST_REGENERATE=1 cargo test -p holdfast");
}

#[test]
fn every_command_has_an_example() {
    let all = all();
    assert!(all.len() > 25, "{}", all.len());
    for (name, command) in &all {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example") && after.contains("holdfast "), "{name}: {after:?}");
        assert!(command.get_about().is_some(), "{name}");
    }
    Arguments::command().debug_assert();
}

#[test]
fn the_page_of_the_command_line_is_up_to_date() {
    let mut page = "# The command line\n\n\
        Made from the program: `HOLDFAST_REGENERATE=1 cargo test -p holdfast` writes this page. Results go to standard \
        output,\nerrors and progress to standard error; `-o json` and `-o yaml` hold for both, and their types are those \
        of\n[openapi.json](openapi.json). No command asks questions.\n"
        .to_owned();
    for (name, mut command) in all().into_iter().filter(|(_, command)| !command.is_hide_set()) {
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    }
    kept("cli.md", &page);
}

#[test]
fn the_page_of_the_errors_is_up_to_date() {
    let mut page = "# Errors\n\n\
        Every code that the interface and the command line give. Made from `crates/api/src/codes.rs`:\n\
        `HOLDFAST_REGENERATE=1 cargo test -p holdfast` writes this page. `holdfast explain CODE` says the same.\n\n\
        | code | HTTP | exit | cause | next step |\n|---|---|---|---|---|\n"
        .to_owned();
    for code in Code::all() {
        let status = if code.status == 0 { "-".to_owned() } else { code.status.to_string() };
        let row =
            format!("| `{}` | {status} | {} | {} | {} |\n", code.name, code.exit, code.cause, code.next);
        page.push_str(&row);
    }
    kept("errors.md", &page);
}
