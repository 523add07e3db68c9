//! What is wrong with a topology file, and where: a [`Mistake`] knows its line and column, and
//! [`Mistakes`] is the error that a whole file answers with. Both are miette diagnostics, so the
//! command line shows the lines themselves.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// A longer line isn't shown along with a mistake in it.
const LINE_BYTES_MAX: usize = 1000;

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Byte offset of its first character.
    pub start: usize,
    /// Byte offset behind its last character.
    pub end: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A value together with where it was written. Two are equal when their values are.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Puts a value and its place together.
    pub fn new(value: T, span: Span) -> Self {
        Spanned { value, span }
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// Where.
    pub span: Span,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it, where that can be said.
    pub help: Option<String>,
    source: Arc<NamedSource<String>>,
}

impl Mistake {
    /// A mistake at a place of a source.
    pub(crate) fn new(source: &Arc<NamedSource<String>>, span: Span, message: String) -> Self {
        Mistake {
            span,
            message,
            help: None,
            source: Arc::clone(source),
        }
    }

    /// Whether its line is one that people read; a label is of no use without it.
    fn can_be_shown(&self) -> bool {
        let text = self.source.inner().as_bytes();
        let (before, after) = text.split_at(self.span.start.min(text.len()));
        let is_newline = |byte: &u8| *byte == b'\n';
        let start = before
            .iter()
            .rev()
            .take(LINE_BYTES_MAX)
            .take_while(|it| !is_newline(it));
        let end = after
            .iter()
            .take(LINE_BYTES_MAX)
            .take_while(|it| !is_newline(it));
        start.count() + end.count() < LINE_BYTES_MAX
    }

    /// The name of the file it is in.
    pub fn file(&self) -> &str {
        self.source.name()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, .. } = self.span;
        write!(f, "{}:{line}:{column}: {}", self.file(), self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.can_be_shown()
            .then_some(&*self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if !self.can_be_shown() {
            return None;
        }
        let length = self.span.end.saturating_sub(self.span.start);
        let label = LabeledSpan::new(Some("here".into()), self.span.start, length);
        Some(Box::new(std::iter::once(label)))
    }
}

/// Everything that is wrong with a file; never empty.
#[derive(Clone, Debug)]
pub struct Mistakes {
    /// In the order of the file.
    pub list: Vec<Mistake>,
}

impl Mistakes {
    /// Sorts mistakes into the order of the file.
    pub(crate) fn new(mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| (mistake.span.line, mistake.span.column));
        list.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        Mistakes { list }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
            if let Some(help) = &mistake.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistake at the last byte of `text`.
    fn last(text: &str) -> Mistake {
        let source = Arc::new(NamedSource::new("f", text.to_owned()));
        let span = Span {
            start: text.len() - 1,
            end: text.len(),
            line: 2,
            column: 1,
        };
        Mistake::new(&source, span, "wrong".into())
    }

    #[test]
    fn a_line_is_shown_unless_it_is_too_long() {
        let shown =
            |mistake: &Mistake| (mistake.source_code().is_some(), mistake.labels().is_some());
        let long = "x".repeat(100_000);
        assert_eq!(shown(&last(&format!("{long}\nab"))), (true, true));
        assert_eq!(shown(&last(&format!("a\n{long}"))), (false, false));
    }
}
