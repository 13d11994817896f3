//! Reading Rust source just well enough: comments and literals out, functions and test modules found.
//!
//! Good for code that rustfmt accepts; it is no parser.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Line of `fn`, from 1.
    pub(super) line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub(super) lines: usize,
}

/// The source with comments blanked and the insides of string and character literals replaced by `_`. Line breaks
/// stay where they are.
pub(super) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => string_end(&chars, at),
            '\'' => char_end(&chars, at),
            'r' | 'b' | 'c' if at == 0 || !is_word(chars[at - 1]) => raw_string_end(&chars, at),
            _ => at + 1,
        };
        let comment = chars[at] == '/' && end > at + 1;
        let literal = !comment && end > at + 1;
        for (offset, &c) in chars[at..end].iter().enumerate() {
            code.push(match c {
                '\n' => '\n',
                _ if comment => ' ',
                _ if literal && offset > 0 && offset + 1 < end - at => '_',
                _ => c,
            });
        }
        at = end;
    }
    code
}

/// True for characters of identifiers and numbers.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| at + length)
}

/// Block comments nest.
fn comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut next = at;
    while next + 1 < chars.len() {
        match (chars[next], chars[next + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                next += 1;
                continue;
            }
        }
        next += 2;
        if depth == 0 {
            return next;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut next = at + 1;
    while next < chars.len() {
        match chars[next] {
            '\\' => next += 2,
            '"' => return next + 1,
            _ => next += 1,
        }
    }
    chars.len()
}

/// A character literal, or one step past the tick of a lifetime.
fn char_end(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let close = chars[(at + 3).min(chars.len())..].iter().position(|&c| c == '\'');
        return close.map_or(chars.len(), |length| at + 3 + length + 1);
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { at + 1 }
}

/// `r"..."`, `br##"..."##` and the like, or one step past the letter of anything else.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let letters = chars[at..].iter().take_while(|&&c| matches!(c, 'r' | 'b' | 'c')).count();
    if chars[at + letters - 1] != 'r' {
        return at + 1;
    }
    let hashes = chars[at + letters..].iter().take_while(|&&c| c == '#').count();
    let open = at + letters + hashes;
    if chars.get(open) != Some(&'"') {
        return at + 1;
    }
    let mut next = open + 1;
    while next < chars.len() {
        if chars[next] == '"' && chars[next + 1..].iter().take_while(|&&c| c == '#').count() >= hashes {
            return next + 1 + hashes;
        }
        next += 1;
    }
    chars.len()
}

/// Every function with a body in `code`, which [`code_only`] made.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
        if name.is_empty() {
            continue;
        }
        let Some(open) = body_start(code, at) else { continue };
        let close = matching_brace(code, open);
        let line = line_of(code, at);
        found.push(Function { name, line, lines: line_of(code, close) - line + 1 });
    }
    found
}

/// Where `word` stands alone in `code`, as byte offsets.
pub(super) fn words(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].chars().next_back().is_some_and(is_word))
        .filter(|&at| !code[at + word.len()..].chars().next().is_some_and(is_word))
        .collect()
}

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|&byte| byte == b'\n').count() + 1
}

/// The brace that opens the item at `at`; `None` when a semicolon ends it first.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some(at + offset),
            _ => {}
        }
    }
    None
}

fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

/// First and last line of every `#[cfg(test)]` module with its body in this file.
pub(super) fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let Some(open) = body_start(code, at + "#[cfg(test)]".len()) else { continue };
        found.push((line_of(code, at), line_of(code, matching_brace(code, open))));
    }
    found
}
