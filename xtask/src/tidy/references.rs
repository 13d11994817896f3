//! Rules on references: what docs and comments point to is in the repository.
//!
//! ```text
//!  R12, I3                                rows of docs/requirements.md and docs/invariants.md
//!  section 4.1 of docs/design.md          a heading that begins with the number; in a page also `section 4.1` alone
//!  decision 0007                          a record of docs/decisions
//!  [text](file#heading), crates/engine    files, folders, headings
//!  `engine::State`, `names::is_missing`   in pages: something that a crate, or a file of that name, defines
//!  `04-trim-early`                        in pages: a planted bug
//! ```

use std::collections::BTreeSet;

use super::names::Names;
use super::prose::prose;
use super::rust::{is_word, line_of, words};
use super::{Tree, text_of};

/// Tables whose rows begin with a number, and the letter before it.
const NUMBERED: [(char, &str); 2] = [('R', "docs/requirements.md"), ('I', "docs/invariants.md")];
/// Documents that are kept elsewhere.
const ELSEWHERE: &[&str] = &["DESIGN", "HOUSE", "MISSION", "PEERS", "READINESS", "RELIABILITY", "STYLE"];
const DECISIONS: &str = "docs/decisions/";
const PLANTED: &str = "tests/planted/";
/// Ends of names that are files of the repository wherever they are named.
const ENDS: &[&str] = &[".rs", ".md", ".patch"];
/// Ends of files that are looked at besides pages.
const TEXTS: &[&str] = &[".rs", ".toml", ".service", ".sh"];
/// Parts of a path that stand for any.
const PLACEHOLDERS: &[&str] = &["*", "NN", "NAME"];

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    let places = Places::new(tree);
    let names = Names::new(tree);
    for path in tree.keys() {
        let Some(text) = text_of(tree, path) else { continue };
        let is_page = path.ends_with(".md");
        if is_page {
            for (number, line) in prose(text) {
                let mut at = Line { places: &places, path, number, found };
                at.links(line);
                at.named(line, &names);
                at.prose(&without_targets(line));
                at.numbered(line);
            }
        } else if TEXTS.iter().any(|end| path.ends_with(end)) {
            for (index, line) in text.lines().enumerate() {
                let mut at = Line { places: &places, path, number: index + 1, found };
                if let Some(comment) = comment(path, line) {
                    at.prose(comment);
                }
            }
            Line { places: &places, path, number: 1, found }.numbered(text);
        }
    }
}

/// What a line says to people.
fn comment<'a>(path: &str, line: &'a str) -> Option<&'a str> {
    if !path.ends_with(".rs") {
        return Some(line);
    }
    let start = line.trim_start();
    if start.starts_with("//") {
        return Some(start.trim_start_matches(['/', '!']));
    }
    line.split_once(" // ").map(|(_, comment)| comment)
}

/// A line of a page without where its links lead: these are looked up by themselves.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + "]" + part.split_once(')').map_or("", |(_, rest)| rest))
}

/// What can be pointed to.
struct Places<'a> {
    tree: &'a Tree,
    folders: BTreeSet<&'a str>,
    /// Folders at the root, each with its slash.
    roots: BTreeSet<&'a str>,
    numbers: BTreeSet<&'a str>,
    /// Page and heading, as links name it.
    anchors: BTreeSet<(&'a str, String)>,
    /// Page and number of a section.
    sections: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Places<'a> {
    fn new(tree: &'a Tree) -> Self {
        let slashes = |path: &'a str| path.match_indices('/').map(move |(at, _)| at);
        let folders = tree.keys().flat_map(|path| slashes(path).map(move |at| &path[..at])).collect();
        let roots = tree.keys().filter_map(|path| Some(&path[..=path.find('/')?])).collect();
        let rows = |(letter, page): (char, &str)| {
            let lines = text_of(tree, page).unwrap_or_default().lines();
            let first = lines.filter_map(|line| line.strip_prefix("| ")?.split_whitespace().next());
            first.filter(move |word| word.starts_with(letter) && is_all_digits(&word[1..]))
        };
        let numbers = NUMBERED.into_iter().flat_map(rows).collect();
        let (mut anchors, mut sections) = (BTreeSet::new(), BTreeSet::new());
        for path in tree.keys().filter(|path| path.ends_with(".md")) {
            for (_, line) in prose(text_of(tree, path).unwrap_or_default()) {
                let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim())
                else {
                    continue;
                };
                anchors.insert((path.as_str(), anchor(title)));
                let number = title.split_whitespace().next().unwrap_or_default();
                sections.insert((path.as_str(), number.trim_end_matches('.')));
            }
        }
        Self { tree, folders, roots, numbers, anchors, sections }
    }

    fn is_there(&self, path: &str) -> bool {
        self.tree.contains_key(path) || self.folders.contains(path)
    }

    /// Where `target` leads from the file at `path`.
    fn from(path: &str, target: &str) -> String {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in target.split('/').filter(|part| !part.is_empty()) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                _ => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// Whether a path named in the file at `path` is one: from the root, from that file, or as the end of a file's path.
    fn is_named(&self, path: &str, named: &str) -> bool {
        let is_end = |file: &String| file.strip_suffix(named).is_some_and(|rest| rest.ends_with('/'));
        self.is_there(named) || self.is_there(&Self::from(path, named)) || self.tree.keys().any(is_end)
    }
}

/// A heading as links name it.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|&c| is_word(c) || matches!(c, ' ' | '-'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn is_all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A line that may point to something.
struct Line<'a> {
    places: &'a Places<'a>,
    path: &'a str,
    number: usize,
    found: &'a mut Vec<String>,
}

impl Line<'_> {
    fn refuse(&mut self, what: &str) {
        self.found.push(format!("{}:{}: {what}", self.path, self.number));
    }

    /// Links of a page, relative to the file that they stand in.
    fn links(&mut self, line: &str) {
        for (at, _) in line.match_indices("](") {
            let Some((link, _)) = line[at + 2..].split_once(')') else { continue };
            if link.contains("://") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let page = if target.is_empty() { self.path.to_owned() } else { Places::from(self.path, target) };
            let is_heading =
                heading.is_empty() || self.places.anchors.contains(&(page.as_str(), heading.to_owned()));
            if !self.places.is_there(&page) || !is_heading {
                self.refuse(&format!("the link to {link} leads nowhere"));
            }
        }
    }

    /// Numbers of requirements and invariants, in one line or in all from this one on.
    fn numbered(&mut self, text: &str) {
        for (letter, page) in NUMBERED {
            for (at, _) in text.match_indices(letter) {
                let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
                let end = (at + 1..).find(|end| !is_digit(*end)).unwrap_or(at);
                let is_word_at = |c: Option<char>| c.is_some_and(is_word);
                if !(2..=4).contains(&(end - at))
                    || is_word_at(text[..at].chars().next_back())
                    || is_word_at(text[end..].chars().next())
                {
                    continue;
                }
                let name = &text[at..end];
                if !self.places.numbers.contains(name) {
                    let number = self.number + line_of(text, at) - 1;
                    self.found.push(format!("{}:{number}: {name} is not in {page}", self.path));
                }
            }
        }
    }

    /// What prose points to without a link: sections, decisions, files, documents.
    fn prose(&mut self, line: &str) {
        self.sections(line);
        for (at, _) in line.match_indices("decision ") {
            let number: String = line[at + "decision ".len()..].chars().take_while(|&c| is_word(c)).collect();
            let is_there = |path: &String| path.starts_with(&format!("{DECISIONS}{number}-"));
            if number.len() == 4 && is_all_digits(&number) && !self.places.tree.keys().any(is_there) {
                self.refuse(&format!("there is no decision {number}"));
            }
        }
        for document in ELSEWHERE {
            for _ in words(line, document) {
                self.refuse(&format!("{document} is no document of the repository"));
            }
        }
        // Most lines name no file, and the rest is slow.
        if line.contains('/') || ENDS.iter().any(|end| line.contains(end)) {
            self.paths(line);
        }
    }

    fn paths(&mut self, line: &str) {
        let is_path = |c: char| is_word(c) || matches!(c, '.' | '/' | '*' | '-' | ':');
        for word in line.split(|c: char| !is_path(c)) {
            let named = word.trim_end_matches(['.', '/', ':', '-']);
            let is_ours = self.places.roots.iter().any(|root| named.starts_with(root));
            let ends = ENDS.iter().any(|end| named.strip_suffix(end).is_some_and(|name| !name.is_empty()));
            let is_any = PLACEHOLDERS.iter().any(|part| named.contains(part));
            let is_foreign = named.starts_with(['/', '.']) || named.contains(':');
            if (is_ours || ends) && !is_any && !is_foreign && !self.places.is_named(self.path, named) {
                self.refuse(&format!("{named} is no file or folder"));
            }
        }
    }

    /// `section 4.1 of docs/design.md`, `sections 4 and 7.2 of ...`; in a page also `section 4.1`, of its own.
    fn sections(&mut self, line: &str) {
        for (at, word) in line.match_indices("section") {
            let rest = line[at + word.len()..].trim_start_matches('s');
            let mut numbers = Vec::new();
            let mut words = rest.split_whitespace();
            let mut page = None;
            let mut is_cut = false;
            for word in words.by_ref() {
                let number = word.trim_matches(|c: char| !c.is_ascii_digit());
                match word {
                    "and" | "to" => {}
                    "of" => {
                        page = words.next();
                        is_cut = page.is_none();
                        break;
                    }
                    _ if word.starts_with(|c: char| c.is_ascii_digit()) => numbers.push(number),
                    _ => break,
                }
            }
            if is_cut && !self.path.ends_with(".md") && !numbers.is_empty() {
                self.refuse("a section is named on one line with its page");
            }
            let page =
                page.map(|page| page.trim_matches(|c: char| !is_word(c))).filter(|p| p.ends_with(".md"));
            let page = match page {
                Some(page) if self.places.is_there(page) => page.to_owned(),
                Some(page) => Places::from(self.path, page),
                None if self.path.ends_with(".md") && !is_cut => self.path.to_owned(),
                None => continue,
            };
            for number in numbers {
                if !self.places.sections.contains(&(page.as_str(), number)) {
                    self.refuse(&format!("{page} has no section {number}"));
                }
            }
        }
    }

    /// Names in backticks: of what is defined, and of planted bugs.
    fn named(&mut self, line: &str, names: &Names<'_>) {
        for name in line.split('`').skip(1).step_by(2) {
            let is_slug = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            let is_planted = name.split_once('-').is_some_and(|(number, slug)| {
                number.len() == 2 && is_all_digits(number) && slug.contains('-')
            });
            if is_slug && is_planted && !self.places.tree.contains_key(&format!("{PLANTED}{name}.patch")) {
                self.refuse(&format!("there is no planted bug {name}"));
            }
            if names.is_missing(name) {
                self.refuse(&format!("nothing defines {name}"));
            }
        }
    }
}
