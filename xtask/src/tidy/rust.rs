//! Just enough of Rust's grammar for tidy: code without comments and literals, its attributes, its functions.
//!
//! A scanner and not a parser, so that the inside of macros (`proptest!`) is seen like all else.

use std::path::{Path, PathBuf};

use super::line_of;

/// A Rust source file, read once for all rules.
pub struct RustFile {
    pub path: PathBuf,
    pub text: String,
    /// The text with comments, strings and character literals blanked out: same offsets, same lines.
    pub code: String,
    pub functions: Vec<Function>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Line of its `fn`, from 1.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub line_count: usize,
    /// What stands in its `#[...]`, literals blanked out.
    pub attributes: Vec<String>,
}

impl RustFile {
    pub fn new(path: &Path, text: &str) -> Self {
        let code = code_only(text);
        let functions = functions(&code);
        Self {
            path: path.to_path_buf(),
            text: text.to_string(),
            code,
            functions,
        }
    }
}

impl Function {
    /// Whether a harness runs it: `#[test]`, `#[tokio::test]`, `#[scenario]`, with arguments or without.
    pub fn is_test(&self) -> bool {
        self.attributes.iter().any(|attribute| {
            let path = attribute.split('(').next().unwrap_or_default();
            let name = path.rsplit("::").next().unwrap_or_default().trim();
            name == "test" || name == "scenario"
        })
    }

    pub fn is_ignored(&self) -> bool {
        self.attributes
            .iter()
            .any(|attribute| words(attribute).any(|(_, word)| word == "ignore"))
    }
}

/// Identifiers and keywords with their offsets.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is_ident(bytes[at]) {
            at += 1;
        }
        let start = at;
        while at < bytes.len() && is_ident(bytes[at]) {
            at += 1;
        }
        (start < at).then(|| (start, &code[start..at]))
    })
}

/// Offset and inside of each `#[...]` and `#![...]`.
pub fn attributes(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(hash) = code[at..].find('#').map(|found| at + found) {
        at = hash + 1;
        if let Some(range) = attribute_at(code, hash) {
            at = range.end;
            found.push((hash, &code[range]));
        }
    }
    found
}

/// Where the inside of the attribute is that starts with the `#` at `hash`, if one does.
fn attribute_at(code: &str, hash: usize) -> Option<std::ops::Range<usize>> {
    let rest = code[hash + 1..].trim_start();
    let rest = rest.strip_prefix('!').unwrap_or(rest).trim_start();
    let open = code.len() - rest.len();
    let end = closing(code.as_bytes(), open, b'[', b']')?;
    Some(open + 1..end)
}

/// Offset of the bracket that closes the one at `open`.
fn closing(code: &[u8], open: usize, opening: u8, closing: u8) -> Option<usize> {
    if code.get(open) != Some(&opening) {
        return None;
    }
    let mut depth = 0;
    for (offset, byte) in code.iter().enumerate().skip(open) {
        if *byte == opening {
            depth += 1;
        } else if *byte == closing {
            depth -= 1;
            if depth == 0 {
                return Some(offset);
            }
        }
    }
    None
}

fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut attributes: Vec<String> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                if let Some(range) = attribute_at(code, at) {
                    attributes.push(code[range.clone()].to_string());
                    at = range.end;
                }
            }
            // Attributes belong to the item right after them.
            b';' | b'{' | b'}' => attributes.clear(),
            byte if is_ident(byte) => {
                let word_end = at
                    + bytes[at..]
                        .iter()
                        .take_while(|byte| is_ident(**byte))
                        .count();
                if &code[at..word_end] == "fn"
                    && let Some((name, end)) = name_and_end(code, word_end)
                {
                    let line = line_of(code, at);
                    found.push(Function {
                        name,
                        line,
                        line_count: line_of(code, end) - line + 1,
                        attributes: std::mem::take(&mut attributes),
                    });
                }
                // On behind the word and not behind the body: functions stand in functions.
                at = word_end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The name after `fn`, and the offset of the body's closing brace; none for a type or a function without a body.
fn name_and_end(code: &str, after_fn: usize) -> Option<(String, usize)> {
    let bytes = code.as_bytes();
    let spaces = bytes[after_fn..]
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    let start = after_fn + spaces;
    let raw = if code[start..].starts_with("r#") {
        2
    } else {
        0
    };
    let length = bytes[start + raw..]
        .iter()
        .take_while(|byte| is_ident(**byte))
        .count();
    if spaces == 0 || length == 0 {
        return None;
    }
    let name_end = start + raw + length;
    let mut depth = 0;
    for (offset, byte) in bytes.iter().enumerate().skip(name_end) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => {
                return Some((
                    code[start + raw..name_end].to_string(),
                    closing(bytes, offset, b'{', b'}')?,
                ));
            }
            _ => {}
        }
    }
    None
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Blanks comments and the inside of literals.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal_length(text, at);
        if end > at {
            code.extend(
                bytes[at..end]
                    .iter()
                    .map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }),
            );
            at = end;
        } else {
            // A word as a whole: an `r` or `'` inside one starts nothing.
            let word = bytes[at..]
                .iter()
                .take_while(|byte| is_ident(**byte))
                .count()
                .max(1);
            code.extend(&bytes[at..at + word]);
            at += word;
        }
    }
    String::from_utf8(code).expect("whole characters were kept or blanked")
}

/// Length of the comment or literal that starts at `at`; 0 when none does.
fn literal_length(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let unprefixed = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - unprefixed.len();
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment_length(rest.as_bytes())
    } else if prefix <= 1 && unprefixed.starts_with('"') {
        prefix + quoted_length(unprefixed.as_bytes(), b'"')
    } else if prefix <= 1 && unprefixed.starts_with('r') {
        raw_string_length(unprefixed).map_or(0, |length| prefix + length)
    } else if prefix <= 1 && unprefixed.starts_with('\'') {
        let mut after = unprefixed[1..].chars();
        match (after.next(), after.next()) {
            (Some('\\'), _) => prefix + quoted_length(unprefixed.as_bytes(), b'\''),
            (Some(character), Some('\'')) => prefix + 2 + character.len_utf8(),
            _ => 0, // a lifetime or a label
        }
    } else {
        0
    }
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"..."` or `r#"..."#`; none for an identifier that begins with r.
fn raw_string_length(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let open = 1 + hashes;
    rest[open..].starts_with('"').then(|| {
        let end = format!("\"{}", "#".repeat(hashes));
        rest[open + 1..]
            .find(&end)
            .map_or(rest.len(), |found| open + 1 + found + end.len())
    })
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RustFile {
        RustFile::new(Path::new("a.rs"), text)
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a /* { /* } */ { */ b // {\n\"}\\\"}\" r#\"}\"}\"# b'{' '\\'' 'x' &'a str br\"}\" 'ü' r#fn for\"";
        let code = read(text).code;
        assert_eq!(code.len(), text.len());
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "&'a", "str", "r#fn", "for"]
        );
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn functions_have_names_lines_and_attributes() {
        let text = "#[inline]\nfn one(x: [u8; 3]) -> fn(u8) -> u8 {\n  fn two() { let s = \"}\"; }\n  {}\n}\n\
                    trait T { fn none(&self); }\n#[cfg(test)] struct S;\nfn r#three() {}\n";
        let found: Vec<_> = read(text)
            .functions
            .into_iter()
            .map(|f| (f.name, f.line, f.line_count, f.attributes))
            .collect();
        let expected = [
            ("one".into(), 2, 4, vec!["inline".to_string()]),
            ("two".into(), 3, 1, vec![]),
            ("three".into(), 8, 1, vec![]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_are_known_by_their_attributes() {
        let text = "proptest! { #[test]\nfn a(x in 0..3) {} }\n#[tokio::test(flavor = \"x\")] async fn b() {}\n\
                    #[scenario] #[ignore = \"later\"] fn c() {}\n#[cfg(test)] fn d() {}";
        let functions = read(text).functions;
        assert_eq!(
            functions.iter().map(Function::is_test).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert_eq!(
            functions
                .iter()
                .map(Function::is_ignored)
                .collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }
}
