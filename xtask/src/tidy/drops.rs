//! docs/OPERATING.md says of each drop reason what it means and what to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;

const REASONS: &str = "common/src/drop.rs";
const PAGE: &str = "docs/OPERATING.md";

pub fn check(contents: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<Problem> {
    let text = |path: &str| {
        let content = contents.get(Path::new(path));
        content.and_then(|content| std::str::from_utf8(content).ok())
    };
    let (Some(reasons), Some(page)) = (text(REASONS), text(PAGE)) else {
        let expected = format!("{REASONS} and {PAGE} must exist");
        return vec![Problem::new(Path::new(PAGE), 1, expected)];
    };
    untold(reasons, page)
        .into_iter()
        .map(|(line, name)| {
            let expected = format!(
                "drop reason {name}: expected a row \"| `{name}` | what it means | what to do |\" in {PAGE}, \"Drop reasons\""
            );
            Problem::new(Path::new(REASONS), line, expected)
        })
        .collect()
}

/// Reasons without a row of three cells, with the line where each is defined.
fn untold<'a>(reasons: &'a str, page: &str) -> Vec<(usize, &'a str)> {
    let is_told = |name: &str| {
        let start = format!("| `{name}` |");
        let mut rows = page.lines().filter(|line| line.starts_with(&start));
        rows.any(|row| {
            row.split('|')
                .filter(|cell| !cell.trim().is_empty())
                .count()
                == 3
        })
    };
    let lines = reasons.lines().enumerate();
    lines
        .filter_map(|(index, line)| Some((index + 1, name_in(line)?)))
        .filter(|(_, name)| !is_told(name))
        .collect()
}

/// The name in a line like `Truncated = 1, "truncated";`.
fn name_in(line: &str) -> Option<&str> {
    let (definition, rest) = line.split_once(", \"")?;
    let (_, number) = definition.split_once(" = ")?;
    number.parse::<u8>().ok()?;
    rest.strip_suffix("\";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_without_a_whole_row_is_found() {
        let reasons = "drop_reasons! {\n    /// Words.\n    A = 1, \"a\";\n    B = 2, \"b\";\n    C = 3, \"c\";\n}\n";
        let page = "| `a` | means | do |\n| `b` | means |\n";
        assert_eq!(untold(reasons, page), [(4, "b"), (5, "c")]);
    }
}
