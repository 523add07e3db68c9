//! Printing: tables for people, the API's types for machines, colour on a terminal only.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;

use crate::args::Format;

/// Where results go, and how.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// What was asked for.
    pub format: Format,
    colour: bool,
}

impl Output {
    /// Standard output in a format.
    pub fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output {
            format,
            colour: wanted && io::stdout().is_terminal(),
        }
    }

    /// Prints a value: as JSON or YAML if that was asked for, else as `table` makes it.
    pub fn show<T: Serialize + ?Sized>(
        &self,
        value: &T,
        table: impl FnOnce() -> String,
    ) -> Result<()> {
        let text = match self.format {
            // Drawings are what `graph` makes itself.
            Format::Table | Format::Svg | Format::Dot | Format::Mermaid => table(),
            Format::Json => serde_json::to_string_pretty(value).context("writing JSON")? + "\n",
            Format::Yaml => serde_saphyr::to_string(&value).context("writing YAML")?,
        };
        self.text(&text)
    }

    /// Prints text as it is. Whoever reads a pipe may stop when it has enough.
    pub fn text(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("writing to standard output"),
        }
    }

    /// Text in a colour, on a terminal.
    pub fn paint(&self, text: &str, colour: AnsiColors) -> String {
        if self.colour {
            text.color(colour).to_string()
        } else {
            text.to_owned()
        }
    }

    /// A table's heading, set off on a terminal.
    fn heading(&self, text: &str) -> String {
        if self.colour {
            text.bold().to_string()
        } else {
            text.to_owned()
        }
    }

    /// A table without borders; columns named in `right` are numbers.
    pub fn table(&self, columns: &[&str], right: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(columns.iter().map(|column| column.to_string()));
        table.add_rows(rows);
        for (index, name) in columns.iter().enumerate() {
            let Some(column) = table.column_mut(index) else {
                continue;
            };
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.trim_fmt();
        match text.split_once('\n') {
            Some((first, rest)) => format!("{}\n{rest}\n", self.heading(first)),
            None => format!("{}\n", self.heading(&text)),
        }
    }
}

/// What a table shows for nothing.
pub fn or_dash(text: Option<impl Into<String>>) -> String {
    text.map(Into::into)
        .filter(|text: &String| !text.is_empty())
        .unwrap_or_else(|| "-".into())
}

/// "3 s", "2 min 5 s", "4 h 10 min", "3 d 2 h".
pub fn duration(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86400);
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{minutes} min {} s", secs % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_borders_and_no_trailing_blanks() {
        let output = Output {
            format: Format::Table,
            colour: false,
        };
        let rows = vec![
            vec!["web/web-1".to_owned(), "7".to_owned(), "x".to_owned()],
            vec!["a".to_owned(), "1234".to_owned(), String::new()],
        ];
        let text = output.table(&["PORT", "PACKETS", "NOTE"], &["PACKETS"], rows);
        assert_eq!(
            text,
            "PORT       PACKETS  NOTE\nweb/web-1        7  x\na             1234\n"
        );
    }

    #[test]
    fn durations_have_two_units() {
        let texts = [5, 65, 3700, 90061].map(duration);
        assert_eq!(texts, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
