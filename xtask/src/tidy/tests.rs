//! Goal: each rule fires on one planted violation and stays silent on a sound tree.
//! Model: a sound tree of two crates; every test changes one file and looks for the one line it should give.

mod references;

use super::rust::{code_only, functions, test_modules};
use super::*;

const ROOT: &str = "[workspace.dependencies]\nlow = { path = \"crates/low\" }\nhigh = { path = \"crates/high\" }\nbytes = \"1\"\n";
const BOOK: &str = "\
# Architecture

```layers
low    words
high   deeds
xtask  tools
```

## Dependencies

| crate | reason |
|---|---|
| `bytes` | shared buffers |

## More
| `other` | not part of the table |
";
const DOC: &str = "//! What it is.\n//! Its words.\n//! What it does not do.\n";

fn manifest(name: &str, dependencies: &str) -> String {
    format!("[package]\nname = \"{name}\"\n\n[lints]\nworkspace = true\n\n[dependencies]\n{dependencies}")
}

fn sound() -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: &str, text: String| tree.insert(path.to_owned(), text.into_bytes());
    put("Cargo.toml", ROOT.to_owned());
    put("ARCHITECTURE.md", BOOK.to_owned());
    put("Cargo.lock", format!("source = \"{}\"\n", concat!("https://index.", "crates.io")));
    put("crates/low/Cargo.toml", manifest("low", "bytes.workspace = true\n"));
    put("crates/low/src/lib.rs", format!("{DOC}\npub fn one() -> u8 {{\n    1\n}}\n"));
    put(
        "crates/high/Cargo.toml",
        manifest("high", "low.workspace = true\n\n[dev-dependencies]\nbytes = { workspace = true }\n"),
    );
    put("crates/high/src/lib.rs", DOC.to_owned());
    put("xtask/Cargo.toml", manifest("xtask", ""));
    put("xtask/src/main.rs", DOC.to_owned());
    put("docs/decisions/0001-first.md", "# 0001 First\n".to_owned());
    put("docs/decisions/0002-second.md", "# 0002 Second\n".to_owned());
    tree
}

/// The violations of the sound tree with `text` at `path`.
fn with(path: &str, text: impl Into<Vec<u8>>) -> Vec<String> {
    let mut tree = sound();
    tree.insert(path.to_owned(), text.into());
    violations(&tree)
}

#[track_caller]
fn assert_one(found: &[String], part: &str) {
    assert_eq!(found.len(), 1, "one violation expected: {found:#?}");
    assert!(found[0].contains(part), "{part:?} expected in {:?}", found[0]);
}

#[test]
fn the_tree_is_tidy() {
    let found = violations(&read_tree().expect("the work tree is readable"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_sound_tree_passes() {
    assert_eq!(violations(&sound()), Vec::<String>::new());
}

#[test]
fn long_files_are_found_by_lines_of_code() {
    let full = format!("{DOC}{}", "pub const A: u8 = 1; // why\n\n/* long\nstory */\n".repeat(500));
    assert!(with("crates/low/src/lib.rs", full.clone()).is_empty());
    assert_one(&with("crates/low/src/lib.rs", full.clone() + "pub const B: u8 = 1;\n"), "501 lines of code");
    assert_one(&with("crates/low/tests/main.rs", full + "const B: u8 = 1;\n"), "501 lines of code");
}

#[test]
fn long_functions_are_found_outside_tests() {
    let body =
        |lines: usize| format!("fn long(\n    _a: [u8; 3],\n) {{\n{}}}\n", "    a();\n".repeat(lines - 4));
    let file = |function: &str| format!("{DOC}\nfn short() {{}}\n{function}\nfn after() {{}}\n");
    assert!(with("crates/low/src/lib.rs", file(&body(70))).is_empty());
    assert_one(&with("crates/low/src/lib.rs", file(&body(71))), "lib.rs:6: fn long has 71 lines");
    assert!(with("crates/low/src/lib/tests.rs", file(&body(71))).is_empty());
    let module = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body(71));
    assert!(with("crates/low/src/lib.rs", file(&module)).is_empty());
    let outside = format!("#[cfg(test)]\nmod tests;\n{}", body(71));
    assert_one(&with("crates/low/src/lib.rs", file(&outside)), "fn long has 71 lines");
}

#[test]
fn crate_roots_without_a_word_are_found() {
    assert_one(&with("crates/low/src/lib.rs", "//! Low.\n//!\n//! Lower.\n"), "opens with 2 lines");
    assert_one(&with("crates/low/src/bin/tool.rs", "fn main() {}\n"), "opens with 0 lines");
    assert!(with("crates/low/src/inner.rs", "fn a() {}\n").is_empty());
}

#[test]
fn unsafe_is_found_where_it_does_not_belong() {
    let source = format!("{DOC}fn a() {{ unsafe {{ b() }} }}\n");
    assert_one(&with("crates/low/src/lib.rs", source.clone()), "lib.rs:4: unsafe outside");
    assert!(with("crates/media/src/ring.rs", source).is_empty());
    let only_words = format!("{DOC}// unsafe\nconst A: &str = \"unsafe\"; // unsafe_code\n");
    assert!(with("crates/low/src/lib.rs", only_words).is_empty());
}

#[test]
fn guards_that_nothing_holds_are_found() {
    let types = "pub struct Seat(u8);\nimpl Drop for Seat {\n    fn drop(&mut self) {}\n}\n\
                 pub struct Turn<'a>(std::sync::MutexGuard<'a, ()>);\n\
                 impl Seat {\n    fn begin(x: u8) -> Self {\n        Seat(x)\n    }\n}\n\
                 fn turn() -> Option<Turn<'static>> {\n    None\n}\nfn plain(seat: &Seat) -> u8 {\n    seat.0\n}\n";
    let file = |body: &str| format!("{DOC}{types}fn a() {{\n    {body}\n}}\n");
    for body in
        ["let _ = Seat::begin(1);", "let _ = turn().unwrap();", "let _ = m.lock();", "let _ = x.turn()?;"]
    {
        assert_one(&with("crates/low/src/lib.rs", file(body)), "drops the guard");
    }
    for body in ["let _seat = Seat::begin(1);", "let _ = plain(&Seat::begin(1));", "let _ = (m.lock(), 1);"] {
        assert!(with("crates/low/src/lib.rs", file(body)).is_empty(), "{body}");
    }
}

#[test]
fn puts_without_a_compare_of_their_key_are_found() {
    let file = |body: &str| format!("{DOC}fn a() {{\n    {body}\n}}\n");
    for body in [
        "Txn::new().then(Op::put(kv.key, value));",
        "Txn::new().when(Compare::unchanged(owner.key, at)).then(Op::put(kv.key.clone(), value));",
        "}\nfn b() {\n    Compare::absent(key.clone());\n}\nfn c() {\n    Op::put_leased(key, value, lease);",
    ] {
        assert_one(&with("crates/low/src/lib.rs", file(body)), "puts a key that it does not compare");
        assert!(with("crates/low/src/tests.rs", file(body)).is_empty(), "{body}");
    }
    for body in [
        "Txn::new().when(Compare::unchanged(kv.key.clone(), at)).then(Op::put(kv.key, value));",
        "let put = Op::put(key(id)?, value);\n    txn.when(Compare::absent(\n        key(id)?,\n    )).then(put);",
        "TxnOp::put(key, value);",
    ] {
        assert!(with("crates/low/src/lib.rs", file(body)).is_empty(), "{body}");
    }
}

#[test]
fn leftovers_are_found() {
    for leftover in [concat!("to", "do!()"), concat!("unim", "plemented!()"), concat!("d", "bg!(1)")] {
        let found = with("crates/low/src/lib.rs", format!("{DOC}fn a() {{ {leftover} }}\n"));
        assert_one(&found, "left behind");
        assert!(with("crates/low/src/lib.rs", format!("{DOC}const A: &str = \"{leftover}\";\n")).is_empty());
    }
    for note in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")] {
        assert_one(&with("crates/low/src/lib.rs", format!("{DOC}// {note}: later\n")), "lib.rs:4");
        assert_one(&with("docs/testing.md", format!("# Testing\n{note}\n")), "testing.md:2");
        assert!(with("docs/testing.md", format!("mktemp /tmp/x.{note}{note}\n")).is_empty());
    }
}

#[test]
fn doc_examples_must_be_text() {
    assert_one(
        &with("crates/low/src/a.rs", "//! ```\n//! a();\n//! ```\nfn a() {}\n"),
        "a.rs:1: a doc example",
    );
    assert!(with("crates/low/src/a.rs", "//! ```text\n//! | a |\n//! ```\nfn a() {}\n").is_empty());
}

#[test]
fn layers_are_kept() {
    let upward = manifest("low", "bytes.workspace = true\nhigh.workspace = true\n");
    assert_one(&with("crates/low/Cargo.toml", upward), "crate low: uses high, which is not below it");
    let table = manifest("low", "bytes.workspace = true\n\n[build-dependencies.high]\nworkspace = true\n");
    assert_one(&with("crates/low/Cargo.toml", table), "crate low: uses high");
    let for_tests = manifest("low", "bytes.workspace = true\n\n[dev-dependencies]\nhigh.workspace = true\n");
    assert!(with("crates/low/Cargo.toml", for_tests).is_empty());
    assert_one(&with("ARCHITECTURE.md", BOOK.replace("high   deeds\n", "")), "misses crate high");
    assert_one(
        &with("ARCHITECTURE.md", BOOK.replace("high ", "high  deeds\nhigher ")),
        "higher, which is no crate",
    );
    assert_one(&with("ARCHITECTURE.md", BOOK.replace("xtask ", "low\nxtask ")), "names low twice");
}

#[test]
fn dependencies_need_a_reason() {
    assert_one(&with("ARCHITECTURE.md", BOOK.replace("| `bytes` | shared buffers |\n", "")), "misses bytes");
    assert_one(
        &with("ARCHITECTURE.md", BOOK.replace("shared buffers", "")),
        "no reason for dependency bytes",
    );
    let stale = BOOK.replace("| `bytes`", "| `gone` | it went |\n| `bytes`");
    assert_one(&with("ARCHITECTURE.md", stale), "gone, which nothing uses");
    assert_one(&with("Cargo.toml", format!("{ROOT}serde = {{ version = \"1\" }}\n")), "misses serde");
    let own = manifest("low", "bytes = \"1\"\n");
    assert_one(&with("crates/low/Cargo.toml", own), "bytes is not taken from the workspace");
}

#[test]
fn manifests_inherit_the_lints() {
    let bare = manifest("low", "").replace("[lints]\nworkspace = true\n", "");
    assert_one(&with("crates/low/Cargo.toml", bare), "crate low: no `[lints] workspace = true`");
    assert_one(&with("crates/low/Cargo.toml", manifest("lower", "")), "different names");
}

#[test]
fn places_of_one_machine_are_found() {
    for place in
        [concat!("/wo", "rk/main"), concat!("/fa", "rm/x"), concat!("https://deb.debian", ".org/debian")]
    {
        assert_one(&with("README.md", format!("see {place}\n")), "README.md:1");
    }
}

#[test]
fn large_files_are_found() {
    assert!(with("logo.png", vec![0xff; 1 << 20]).is_empty());
    assert_one(&with("logo.png", vec![0xff; (1 << 20) + 1]), "logo.png: 1048577 bytes");
}

#[test]
fn decisions_are_numbered() {
    assert_one(&with("docs/decisions/0004-late.md", "# 0004 Late\n"), "would be 0003");
    assert_one(&with("docs/decisions/0003-third.md", "# Third\n"), "does not begin `# 0003`");
    assert_eq!(with("docs/decisions/0001-again.md", "# 0001 Again\n").len(), 2);
}

#[test]
fn comments_and_literals_are_no_code() {
    let source = r####"let a = '{'; /* { /* nested { */ */ let b = "\"{"; // {
let c = r#"{" fn no() {"#; let d: &'static str = b'\''; let e = '\u{7b}'; let r = r + b;
"####;
    let code = code_only(source);
    assert_eq!(code.matches('{').count(), 0, "{code}");
    assert_eq!(code.lines().count(), 2);
    assert!(code.contains("&'static str") && code.contains("let r = r + b;"), "{code}");
}

#[test]
fn functions_are_measured() {
    let code = "trait T { fn a(&self) -> [u8; 2]; fn b(f: fn(u8) -> u8) { f(1); }\n}\nfn c<F: Fn()>()\nwhere\n    F: Copy,\n{\n    if x {\n    }\n}\n";
    let found: Vec<(String, usize, usize)> =
        functions(code).into_iter().map(|function| (function.name, function.line, function.lines)).collect();
    assert_eq!(found, [("b".to_owned(), 1, 1), ("c".to_owned(), 3, 7)]);
    assert_eq!(test_modules("#[cfg(test)]\nmod a;\n#[cfg(test)]\nmod b {\n}\n"), [(3, 5)]);
}
