//! Goal: every code that the sources give is in the table, and every code of the table is given somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use site::Code;

/// What stands before a code, without white space.
const LEADS: &[&str] = &[
    "SiteError::invalid(",
    "Failure::of_code(",
    "Self::of_code(",
    "Failure::failed(",
    "Problem::new(",
    "fn problem(",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "codes.rs" {
            found.push(path);
        }
    }
}

fn literal(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('"')?;
    rest.split_once('"').map(|(literal, _)| literal)
}

#[test]
fn the_table_of_codes_is_whole() {
    let mut files = Vec::new();
    for name in ["site", "node", "cluster", "compute", "api", "holdfast"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &mut files);
    }
    let mut given = BTreeSet::new();
    let mut all = String::new();
    for path in &files {
        let text: String =
            std::fs::read_to_string(path).unwrap().chars().filter(|c| !c.is_whitespace()).collect();
        for lead in LEADS {
            given.extend(
                text.match_indices(lead)
                    .filter_map(|(at, _)| literal(&text[at + lead.len()..]))
                    .map(str::to_owned),
            );
        }
        // `ErrorKind::Busy, "busy"`, in a call or a pair.
        for (at, _) in text.match_indices("ErrorKind::") {
            // Those of other types give reasons.
            if text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()) {
                continue;
            }
            let behind = text[at + 11..].trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            given.extend(behind.strip_prefix(',').and_then(literal).map(str::to_owned));
        }
        all.push_str(&text);
    }
    assert!(given.len() > 50, "{given:?}");
    for code in &given {
        assert!(Code::find(code).is_some(), "{code} is in no table");
    }
    for code in Code::all() {
        assert!(all.contains(&format!("\"{}\"", code.code)), "nothing gives {}", code.code);
        assert!(!code.title.is_empty() && code.cause.ends_with('.') && code.next.ends_with('.'), "{code:?}");
        assert!(matches!(code.exit, 1 | 2 | 4..=7 | 130), "{code:?}");
        assert!(code.status == 0 || (400..600).contains(&code.status), "{code:?}");
    }
    let names: Vec<&str> = Code::all().iter().map(|code| code.code).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "the alphabet's order, each once");
}
