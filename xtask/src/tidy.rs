//! `tidy`: rules of DESIGN and STYLE that no compiler checks. Reads files and `cargo metadata`, changes nothing.
//!
//! Each rule is a function from text to [`Problem`]s, tested on a small input that must fail.

mod crates;
mod drops;
mod files;
mod links;
mod rust;
mod scenarios;
mod sources;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::workspace::{Workspace, stdout};
use rust::RustFile;

/// What is wrong, where, and what was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    file: PathBuf,
    line: usize,
    expected: String,
}

impl Problem {
    /// `line` counts from 1.
    fn new(file: &Path, line: usize, expected: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            expected: expected.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.file.display(),
            self.line,
            self.expected
        )
    }
}

pub fn run(ws: &Workspace) -> Result<()> {
    let metadata = stdout(&mut ws.cargo(["metadata", "--format-version", "1"]))?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let crates = crates::Graph::read(&metadata)?;

    let mut contents = BTreeMap::new();
    for path in ws.files()? {
        let content = std::fs::read(ws.root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        contents.insert(path, content);
    }
    let rust_files: Vec<RustFile> = texts(&contents, "rs")
        .map(|(path, text)| RustFile::new(path, text))
        .collect();

    let mut problems = crates.check(&ws.root);
    for file in &rust_files {
        problems.extend(sources::check(file));
    }
    for (path, content) in &contents {
        problems.extend(files::check(path, content));
    }
    for (path, text) in texts(&contents, "md") {
        problems.extend(links::check(path, text, &|target| {
            ws.root.join(target).exists()
        }));
    }
    problems.extend(drops::check(&contents));
    problems.extend(scenarios::check(
        &contents,
        &rust_files,
        &crates.folders(&ws.root),
    ));

    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy found {} problem(s)", problems.len());
    }
    eprintln!("tidy: {} files, nothing to mend", contents.len());
    Ok(())
}

/// The text files with that extension.
fn texts<'a>(
    contents: &'a BTreeMap<PathBuf, Vec<u8>>,
    extension: &'a str,
) -> impl Iterator<Item = (&'a Path, &'a str)> {
    contents.iter().filter_map(move |(path, content)| {
        let text = std::str::from_utf8(content).ok()?;
        (path.extension()? == extension).then_some((path.as_path(), text))
    })
}

/// The line, from 1, on which the byte at `offset` stands.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
