//! Goal: what points to nothing is found, and so is prose that is too wide; what points to something is left alone.

use super::*;

const DESIGN: &str =
    "# Design\n\n## 1. The whole\n\nSee section 2.1 and `low::one`.\n\n### 2.1 A part's name, here\n";
const REQUIREMENTS: &str = "| | asked |\n|---|---|\n| R1 | one thing |\n";
const INVARIANTS: &str = "| name | holds |\n|---|---|\n| I3 one_admitter | always |\n";

/// The sound tree with pages that things are looked up in, and with `text` at `path`.
fn with_pages(path: &str, text: &str) -> Vec<String> {
    let mut tree = sound();
    for (path, text) in [
        ("docs/design.md", DESIGN),
        ("docs/requirements.md", REQUIREMENTS),
        ("docs/invariants.md", INVARIANTS),
        ("tests/planted/04-trim-early.patch", ""),
        (path, text),
    ] {
        tree.insert(path.to_owned(), text.as_bytes().to_vec());
    }
    violations(&tree)
}

/// A comment that says `text`, in a file of its own.
fn said(text: &str) -> Vec<String> {
    with_pages("crates/low/src/inner.rs", &format!("fn a() {{\n    b(); // {text}\n}}\n"))
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn numbers_of_requirements_and_invariants_are_looked_up() {
    assert_none(&said("what R1 asks, and [I3]"));
    assert_one(&said(concat!("what R", "2 asks")), "inner.rs:2: R2 is not in docs/requirements.md");
    assert_one(&said(concat!("[I", "30]")), "is not in docs/invariants.md");
    let message = concat!("fn a() {\n    assert!(b, \"I", "4: it holds\");\n}\n");
    assert_one(&with_pages("crates/low/tests/a.rs", message), "a.rs:2: I4 is not in");
    assert_one(&with_pages("docs/testing.md", concat!("as R", "128 asks\n")), "testing.md:1: R128");
    assert_none(&said(concat!("SR", "9 R", "x2 R", "1234 I", "o")));
}

#[test]
fn sections_are_looked_up() {
    assert_none(&said("(sections 1 and 2.1 of docs/design.md, [I3])"));
    assert_none(&said("(Lamport 1998, section 9)"));
    assert_one(&said(concat!("as in section", " 2.1 of")), "inner.rs:2: a section is named on one line");
    assert_one(&said(concat!("(section", " 3 of docs/design.md)")), "docs/design.md has no section 3");
    assert_one(&said(concat!("(sections", " 1, 2.2 of docs/design.md)")), "has no section 2.2");
    assert_one(&with_pages("docs/design.md", &format!("{DESIGN}as section 4 says\n")), "has no section 4");
    assert_none(&with_pages("docs/testing.md", "as section 2.1 of design.md says\n"));
    assert_one(
        &with_pages("docs/testing.md", "as section 4 of design.md says\n"),
        "testing.md:1: docs/design.md",
    );
}

#[test]
fn decisions_and_documents_are_looked_up() {
    assert_none(&said("decision 0002, by design"));
    assert_one(&said(concat!("(decision", " 0009)")), "there is no decision 0009");
    assert_one(&said(concat!("(DES", "IGN 4)")), "DESIGN is no document of the repository");
    assert_none(&with_pages("crates/low/src/inner.rs", concat!("const DES", "IGN: u8 = 1;\n")));
    assert_one(
        &with_pages("packaging/a.service", concat!("# decision", " 0009\n")),
        "a.service:1: there is no",
    );
    assert_one(&with_pages("clippy.toml", concat!("# STY", "LE rule 5\n")), "clippy.toml:1: STYLE");
}

#[test]
fn files_and_folders_are_looked_up() {
    assert_none(&said(
        "`inner.rs`, src/lib.rs, crates/low, crates/low/src/lib.rs, docs/decisions/0001-first.md.",
    ));
    assert_none(&said(
        "docs/decisions/NNNN-slug.md, tests/planted/*.patch, /docs/x.md, https://a.example/b.md",
    ));
    assert_one(&said(concat!("see docs", "/gone.md.")), "docs/gone.md is no file or folder");
    assert_one(&said(concat!("`gone", ".rs`")), "gone.rs is no file or folder");
    assert_one(&with_pages("docs/testing.md", "x\nin `crates/gone`\n"), "testing.md:2: crates/gone");
    assert_none(&with_pages("docs/testing.md", "```sh\ncat docs/gone.md\n```\n"));
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let good =
        "# Read me\n[a](docs/decisions/0001-first.md) [b](docs/decisions/) [c](https://example.org/x)\n";
    assert_none(&with_pages("README.md", good));
    assert_none(&with_pages(
        "README.md",
        "# Read me\n[d](#read-me) [e](docs/design.md#21-a-parts-name-here)\n",
    ));
    assert_one(&with_pages("README.md", "# Read me\n[d](#read)\n"), "README.md:2: the link to #read leads");
    let gone = with_pages("docs/testing.md", "[up](design.md#2-the-rest)\n");
    assert_one(&gone, "the link to design.md#2-the-rest leads nowhere");
    assert_one(
        &with("docs/testing.md", "[up](../README.md) [by](decisions/0001-first.md)\n"),
        "../README.md",
    );
    assert_one(&with("docs/testing.md", "x\n[gone](decisions/0009-gone.md)\n"), "testing.md:2: the link to");
}

#[test]
fn names_in_pages_are_looked_up() {
    let page = |text: &str| with_pages("docs/testing.md", text);
    assert_none(&page(
        "`low::one`, `low::inner::one`, `lib::one`, `bytes::Bytes`, `a::…`, `x::<u8>`, `04-trim-early`\n",
    ));
    assert_one(&page("shown by `low::two`\n"), "testing.md:1: nothing defines low::two");
    assert_one(&page("shown by `high::one`\n"), "nothing defines high::one");
    assert_one(&page("shown by `gone::a_test`\n"), "nothing defines gone::a_test");
    assert_one(&page("broken by `05-trim-late`\n"), "there is no planted bug 05-trim-late");
}

#[test]
fn wide_prose_is_found() {
    let wide = "word ".repeat(22);
    assert_none(&with("README.md", format!("{wide}\n")));
    assert_one(&with("README.md", format!("# Title\n\n{wide}x\n")), "README.md:3: 111 columns of prose");
    assert_none(&with("README.md", format!("| {wide} | {wide} |\n")));
    assert_none(&with("README.md", format!("```text\n{wide}{wide}\n```\n")));
    assert_none(&with("README.md", format!("- https://example.org/{}\n", "x".repeat(100))));
    assert_none(&with("docs/cli.md", format!("{wide}{wide}\n")));
    assert_none(&with("README.md", format!("{}\n", "ä".repeat(55) + " " + &"ö".repeat(54))));
}
