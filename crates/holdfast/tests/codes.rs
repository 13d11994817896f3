//! Goal: every code of the table is given somewhere, and says what there is to say. That every code that is given is in the
//! table the compiler sees.

use std::path::{Path, PathBuf};

use api::Code;

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

#[test]
fn the_table_of_codes_is_whole() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
    let all: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let given: Vec<&str> = all
        .split("code::")
        .skip(1)
        .map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
        .collect();
    for code in Code::all() {
        assert!(given.contains(&code.name.to_ascii_uppercase().as_str()), "nothing gives {code}");
        assert!(!code.title.is_empty() && code.cause.ends_with('.') && code.next.ends_with('.'), "{code:?}");
        assert!(matches!(code.exit, 1 | 2 | 4..=7 | 130), "{code:?}");
        assert!(code.status == 0 || (400..600).contains(&code.status), "{code:?}");
    }
    let names: Vec<&str> = Code::all().iter().map(|code| code.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "the alphabet's order, each once");
}
