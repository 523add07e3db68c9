//! Reads typed values out of YAML nodes and collects every mistake on the way, so that one run
//! tells a person all that is wrong. A `None` from here means: reported, go on with the rest.

use std::str::FromStr;

use ipnet::IpNet;

use super::mistake::{Mistake, Span, Spanned};
use super::yaml::{Node, Source, Value, brief};

/// Longest name of an object.
const NAME_LENGTH_MAX: usize = 63;
/// Longest name of a Linux interface (IFNAMSIZ without its zero).
const INTERFACE_LENGTH_MAX: usize = 15;

/// The keys that a mapping may have.
pub(crate) struct Keys {
    /// What the mapping describes, with its article: "a port".
    pub(crate) what: &'static str,
    /// Keys of this version.
    pub(crate) known: &'static [&'static str],
    /// Keys that the format has but this version doesn't do; refused by name.
    pub(crate) later: &'static [&'static str],
}

/// The entries of a mapping whose keys were checked.
pub(crate) struct Fields<'n> {
    entries: Vec<(&'n str, Span, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// The value of a key, if it was written.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(name, ..)| *name == key)
            .map(|(.., node)| *node)
    }

    /// Where a key was written.
    pub(crate) fn key_span(&self, key: &str) -> Option<Span> {
        self.entries
            .iter()
            .find(|(name, ..)| *name == key)
            .map(|(_, span, _)| *span)
    }
}

/// Collects the mistakes of one file.
pub(crate) struct Reader<'s> {
    pub(crate) source: &'s Source,
    pub(crate) mistakes: Vec<Mistake>,
}

impl<'s> Reader<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Reader {
            source,
            mistakes: Vec::new(),
        }
    }

    /// Reports a mistake.
    pub(crate) fn report(&mut self, span: Span, message: impl Into<String>) -> &mut Mistake {
        let mistake = self.source.mistake(span, message);
        self.mistakes.push(mistake);
        self.mistakes.last_mut().expect("just pushed")
    }

    /// Reports that something else was found than expected.
    pub(crate) fn expected<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        self.report(
            node.span,
            format!("found {}, expected {expected}", node.found()),
        );
        None
    }

    /// A mapping with fixed keys.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, keys: &Keys) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &node.value else {
            let keys_known: Vec<String> = keys.known.iter().map(|key| format!("`{key}`")).collect();
            let expected = format!("{} as a mapping of {}", keys.what, keys_known.join(", "));
            return self.expected(node, &expected);
        };
        let mut fields = Fields {
            entries: Vec::with_capacity(entries.len()),
        };
        for (key, value) in entries {
            let Value::Scalar { text, .. } = &key.value else {
                let _: Option<()> = self.expected(key, &format!("one of {}", list(keys.known)));
                continue;
            };
            let name = text.as_str();
            if let Some(first) = fields.key_span(name) {
                self.duplicate(key.span, &format!("key `{name}`"), first);
            } else if keys.known.contains(&name) {
                fields.entries.push((name, key.span, value));
            } else if keys.later.contains(&name) {
                self.later(key.span, &format!("`{name}` of {}", keys.what));
            } else {
                self.unknown_key(key.span, name, keys);
            }
        }
        Some(fields)
    }

    fn unknown_key(&mut self, span: Span, name: &str, keys: &Keys) {
        let message = format!(
            "found `{}`, expected a key of {}: {}",
            brief(name),
            keys.what,
            list(keys.known)
        );
        let near = closest(name, keys.known);
        self.report(span, message).help = near.map(|near| format!("did you mean `{near}`?"));
    }

    /// Refuses, by name, what the format has but this version doesn't do.
    pub(crate) fn later(&mut self, span: Span, what: &str) {
        self.report(
            span,
            format!("{what} is not supported by this version of weft"),
        );
    }

    /// Reports something that was already written further up.
    pub(crate) fn duplicate(&mut self, span: Span, what: &str, first: Span) {
        let message = format!(
            "found {what} again, first written at {}:{}",
            first.line, first.column
        );
        self.report(span, message);
    }

    /// A mapping from names to things, each name once. Nothing at all is an empty one.
    pub(crate) fn named<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
    ) -> Vec<(Spanned<String>, &'n Node)> {
        let Value::Mapping(entries) = &node.value else {
            if !node.is_nothing() {
                let _: Option<()> = self.expected(node, &format!("a mapping from names to {what}"));
            }
            return Vec::new();
        };
        let mut named: Vec<(Spanned<String>, &Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(name) = self.name(key) else { continue };
            if let Some((first, _)) = named.iter().find(|(n, _)| n.value == name.value) {
                let span = first.span;
                self.duplicate(key.span, &format!("`{}`", name.value), span);
            } else {
                named.push((name, value));
            }
        }
        named
    }

    /// The items of a list.
    pub(crate) fn items<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => self.expected(node, expected),
        }
    }

    /// Text of a scalar that isn't empty.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_nothing() && !text.is_empty() => Some(text),
            _ => self.expected(node, expected),
        }
    }

    /// A scalar that parses as `T`.
    pub(crate) fn parsed<T: FromStr>(&mut self, node: &Node, expected: &str) -> Option<Spanned<T>> {
        match self.text(node, expected)?.parse() {
            Ok(value) => Some(Spanned::new(value, node.span)),
            Err(_) => self.expected(node, expected),
        }
    }

    /// A name of an object.
    pub(crate) fn name(&mut self, node: &Node) -> Option<Spanned<String>> {
        let expected = "a name of 1 to 63 letters, digits, `-`, `_` or `.`";
        let text = self.text(node, expected)?;
        if is_name(text) {
            Some(Spanned::new(text.to_owned(), node.span))
        } else {
            self.expected(node, expected)
        }
    }

    /// A name of a Linux interface.
    pub(crate) fn interface(&mut self, node: &Node) -> Option<Spanned<String>> {
        let expected = "the name of a network interface (at most 15 characters)";
        let text = self.text(node, expected)?;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.len() > INTERFACE_LENGTH_MAX || text.contains(bad) || matches!(text, "." | "..") {
            return self.expected(node, expected);
        }
        Some(Spanned::new(text.to_owned(), node.span))
    }

    /// A path to a port, `DEVICE/PORT`.
    pub(crate) fn port_path(&mut self, node: &Node) -> Option<Spanned<(String, String)>> {
        let expected = "a port as DEVICE/PORT, like core/web";
        let text = self.text(node, expected)?;
        match text.split_once('/') {
            Some((device, port)) if is_name(device) && is_name(port) => Some(Spanned::new(
                (device.to_owned(), port.to_owned()),
                node.span,
            )),
            _ => self.expected(node, expected),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node) -> Option<Spanned<bool>> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => {
                Some(Spanned::new(true, node.span))
            }
            Value::Scalar { text, plain: true } if text == "false" => {
                Some(Spanned::new(false, node.span))
            }
            _ => self.expected(node, "true or false"),
        }
    }

    /// A prefix without host bits.
    pub(crate) fn prefix(&mut self, node: &Node) -> Option<Spanned<IpNet>> {
        let expected = "a prefix like 10.0.1.0/24 or fd00:1::/64";
        let prefix: Spanned<IpNet> = self.parsed(node, expected)?;
        if prefix.value != prefix.value.trunc() {
            let expected = format!("a prefix without host bits: {}", prefix.value.trunc());
            return self.expected(node, &expected);
        }
        Some(prefix)
    }
}

/// Whether a text can name an object.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `a`, `b` and `c`.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => "nothing".into(),
        [one] => format!("`{one}`"),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", rest.join(", "))
        }
    }
}

/// The known word that is at most two edits away.
pub(crate) fn closest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    known
        .iter()
        .filter(|candidate| word.len().abs_diff(candidate.len()) <= 2)
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_word_is_found_within_two_edits() {
        assert_eq!(
            closest("adresses", &["mac", "addresses", "bind"]),
            Some("addresses")
        );
        assert_eq!(closest("bidn", &["mac", "addresses", "bind"]), Some("bind"));
        assert_eq!(closest("colour", &["mac", "addresses", "bind"]), None);
    }
}
