//! YAML text into a tree of nodes that know where they stand. Nothing of Weft's format is known
//! here; that is `reader`. Built on the event parser rather than a ready-made loader, because a
//! loader loses keys written twice, and that is the mistake a long file hides best.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use miette::NamedSource;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::mistake::{Mistake, Span};

/// Nesting deeper than this is refused: the format itself needs seven levels.
const DEPTH_MAX: usize = 32;
/// Nodes of a file after its aliases are followed; what bounds "billion laughs" files.
const NODES_MAX: usize = 1_000_000;

/// Characters of a value that an error tells.
const FOUND_CHARS_MAX: usize = 60;

/// A file's text, able to turn the parser's character positions into bytes.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    named: Arc<NamedSource<String>>,
    /// Byte offset of each character; empty for pure ASCII, where both are the same.
    offsets: Vec<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices()
                .map(|(offset, _)| offset)
                .chain([text.len()])
                .collect()
        };
        Source {
            named: Arc::new(NamedSource::new(name, text.to_owned())),
            offsets,
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.named.inner()
    }

    pub(crate) fn mistake(&self, span: Span, message: impl Into<String>) -> Mistake {
        Mistake::new(&self.named, span, message.into())
    }

    /// The place of one character, given by its byte offset.
    pub(crate) fn span_at(&self, start: usize) -> Span {
        let text = self.text();
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let length = text[start..].chars().next().map_or(0, char::len_utf8);
        Span {
            start,
            end: start + length,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// A tab that indents, on the line of `marker` or, where `below` says so, on a later one.
    fn leading_tab(&self, marker: &Marker, below: bool) -> Option<usize> {
        let text = self.text();
        let mut start = text[..self.offset(marker)]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let lines = text[start..].split_inclusive('\n');
        for line in lines.take(if below { usize::MAX } else { 1 }) {
            let tab = line.bytes().take_while(|byte| *byte == b' ').count();
            let content = line.trim_start();
            let is_content = !content.is_empty() && !content.starts_with('#');
            if is_content && line.as_bytes().get(tab) == Some(&b'\t') {
                return Some(start + tab);
            }
            start += line.len();
        }
        None
    }

    /// A tab between a key and its value, right before `marker`.
    fn tab_behind_colon(&self, marker: &Marker) -> Option<usize> {
        let before = &self.text()[..self.offset(marker)];
        let key = before.trim_end_matches('\t');
        (key.len() < before.len() && key.ends_with(':')).then_some(key.len())
    }

    fn offset(&self, marker: &Marker) -> usize {
        let length = self.text().len();
        if self.offsets.is_empty() {
            return marker.index().min(length);
        }
        self.offsets.get(marker.index()).copied().unwrap_or(length)
    }

    /// A span, cut at the end of its first line: labels point, they don't paint whole blocks.
    fn span(&self, start: &Marker, end: &Marker) -> Span {
        let (from, to) = (self.offset(start), self.offset(end));
        let line_end = self.text()[from..]
            .find('\n')
            .map_or(self.text().len(), |n| from + n);
        let end = to.min(line_end).max(from);
        Span {
            start: from,
            end,
            line: start.line(),
            column: start.col() + 1,
        }
    }
}

/// One node of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text as written; `plain` without quotes, so that `~`, `true` and `80` mean what they say.
    Scalar { text: String, plain: bool },
    /// `[a, b]` or `- a`.
    Sequence(Vec<Node>),
    /// Keys in the order of the file, repeated ones included.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// Whether nothing was written: an empty value, `~` or `null`.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The same in JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.value {
            _ if self.is_nothing() => serde_json::Value::Null,
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" => true.into(),
                "false" => false.into(),
                text => text
                    .parse::<u64>()
                    .map_or_else(|_| text.into(), serde_json::Value::from),
            },
            Value::Scalar { text, plain: false } => text.as_str().into(),
            Value::Sequence(items) => items.iter().map(Node::json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .filter_map(|(key, value)| match &key.value {
                    Value::Scalar { text, .. } => Some((text.clone(), value.json())),
                    Value::Sequence(_) | Value::Mapping(_) => None,
                })
                .collect(),
        }
    }

    /// How an error message calls it.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            _ if self.is_nothing() => "nothing".into(),
            Value::Scalar { text, .. } => format!("`{}`", brief(text)),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }
}

/// A text as errors tell it: not more of it than it takes to find it.
pub(crate) fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Parses all documents of a file; empty ones (between two `---`) are left out.
pub(crate) fn documents(source: &Source) -> Result<Vec<Node>, Mistake> {
    let mut builder = Builder {
        source,
        parser: Parser::new_from_str(source.text()),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let mut documents = Vec::new();
    loop {
        let (event, _) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                let first = builder.next()?;
                let node = builder.node(first, 0)?;
                if !node.is_nothing() {
                    documents.push(node);
                }
            }
            _ => {}
        }
    }
}

type Spotted<'a> = (Event<'a>, saphyr_parser::Span);

struct Builder<'a> {
    source: &'a Source,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Spotted<'a>, Mistake> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                // The parser speaks of tabs where what they are in starts, or behind them.
                let below = error.info().contains("tab");
                let leading = self.source.leading_tab(error.marker(), below);
                let behind = || self.source.tab_behind_colon(error.marker());
                if let Some(tab) = leading.or_else(behind) {
                    let span = self.source.span_at(tab);
                    return Err(self.source.mistake(span, "found a tab, expected spaces"));
                }
                let span = self.source.span(error.marker(), error.marker());
                Err(self
                    .source
                    .mistake(span, format!("not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, saphyr_parser::Span::default())),
        }
    }

    /// Builds the node that starts with `first`.
    fn node(&mut self, (event, at): Spotted<'a>, depth: usize) -> Result<Node, Mistake> {
        let span = self.source.span(&at.start, &at.end);
        self.count(1, span)?;
        if depth > DEPTH_MAX {
            return Err(self
                .source
                .mistake(span, format!("nested deeper than {DEPTH_MAX}")));
        }
        let (anchor, tag, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (
                    anchor,
                    tag,
                    Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                )
            }
            Event::SequenceStart(anchor, tag) => {
                let (items, tag) = (self.sequence(depth)?, tag);
                (anchor, tag, Value::Sequence(items))
            }
            Event::MappingStart(anchor, tag) => {
                let (entries, tag) = (self.mapping(depth)?, tag);
                (anchor, tag, Value::Mapping(entries))
            }
            other => {
                return Err(self
                    .source
                    .mistake(span, format!("not YAML: unexpected {other:?}")));
            }
        };
        if let Some(tag) = tag {
            let tag = tag.to_string();
            let message = format!("found the tag `{}`, expected a plain value", brief(&tag));
            return Err(self.source.mistake(span, message));
        }
        let node = Node { span, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Mistake> {
        let mut items = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(next, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Mistake> {
        let mut entries = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::MappingEnd) {
                return Ok(entries);
            }
            let key = self.node(next, depth + 1)?;
            let next = self.next()?;
            let mut value = self.node(next, depth + 1)?;
            // An empty value has no place of its own; the parser reports the next token's.
            if matches!(&value.value, Value::Scalar { text, plain: true } if text.is_empty()) {
                value.span = key.span;
            }
            entries.push((key, value));
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Mistake> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self
                .source
                .mistake(span, "an alias of a value that contains it"));
        };
        self.count(size(&node), span)?;
        Ok(Node {
            span,
            value: node.value,
        })
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Mistake> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(self
                .source
                .mistake(span, format!("more than {NODES_MAX} values")));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Mapping(entries) => entries.iter().map(|(k, v)| size(k) + size(v)).sum(),
    }
}
