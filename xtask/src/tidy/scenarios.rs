//! docs/SCENARIOS.md says how each demand is shown: what it names must exist and be run.
//!
//! Its tables have rows `| demand | shown by | state |`. State is `open`, `shown`, or `not here: why`. In
//! "shown by", backticks hold references: `net area::name`, `bpf area::name`, `unit PACKAGE path::name`,
//! `demo`, `ci`; all else there is prose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::rust::{Function, RustFile};

const FILE: &str = "docs/SCENARIOS.md";
const SUITES_FOLDER: &str = "tests/suites";
const HEADER: [&str; 3] = ["demand", "shown by", "state"];

/// `folders`: the workspace's packages by name.
pub fn check(
    contents: &BTreeMap<PathBuf, Vec<u8>>,
    files: &[RustFile],
    folders: &BTreeMap<String, PathBuf>,
) -> Vec<Problem> {
    let path = Path::new(FILE);
    let Some(text) = contents
        .get(path)
        .and_then(|content| std::str::from_utf8(content).ok())
    else {
        return vec![Problem::new(
            path,
            1,
            "the file must exist: each demand, how it is shown, its state",
        )];
    };
    let rows = rows(text);
    if rows.is_empty() {
        let expected = format!("a table with the columns {}", HEADER.join(", "));
        return vec![Problem::new(path, 1, expected)];
    }
    let wrong = rows.iter().flat_map(|row| {
        let reasons = row_problems(row, files, folders);
        reasons
            .into_iter()
            .map(|reason| Problem::new(path, row.line, reason))
    });
    wrong.collect()
}

struct Row {
    line: usize,
    cells: Vec<String>,
}

/// The rows of the tables with our header.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let Some(cells) = cells(line) else {
            inside = false;
            continue;
        };
        if cells.iter().map(|cell| cell.to_lowercase()).eq(HEADER) {
            inside = true;
        } else if inside
            && !cells
                .iter()
                .all(|cell| cell.chars().all(|it| "-: ".contains(it)))
        {
            rows.push(Row {
                line: index + 1,
                cells,
            });
        }
    }
    rows
}

/// The cells of a table's line; none for any other line.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    // A pipe inside a cell is written `\|`.
    let inner = inner.replace("\\|", "\u{0}");
    Some(
        inner
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect(),
    )
}

fn row_problems(row: &Row, files: &[RustFile], folders: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let [_, shown_by, state] = row.cells.as_slice() else {
        return vec![format!(
            "expected 3 cells ({}), found {}",
            HEADER.join(", "),
            row.cells.len()
        )];
    };
    let mut reasons = Vec::new();
    let mut references = 0;
    for token in shown_by.split('`').skip(1).step_by(2) {
        match reference(token) {
            Ok(Some(reference)) => {
                references += 1;
                reasons.extend(reference.problem(token, files, folders));
            }
            Ok(None) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    match state.as_str() {
        "open" => {}
        "shown" if references > 0 => {}
        "shown" => reasons.push("state `shown` needs a reference under \"shown by\"".into()),
        _ if state
            .strip_prefix("not here:")
            .is_some_and(|why| !why.trim().is_empty()) => {}
        _ => reasons.push(format!(
            "state is `open`, `shown` or `not here: why`, and not `{state}`"
        )),
    }
    reasons
}

/// What a row names as its proof.
enum Reference<'a> {
    /// A command of xtask: demo, ci.
    Command,
    /// A function of a suite: the suite, the area, the function.
    Suite(&'a str, &'a str, &'a str),
    /// A function of a package: the package, the function.
    Unit(&'a str, &'a str),
}

/// None for a token that is no reference.
fn reference(token: &str) -> Result<Option<Reference<'_>>, String> {
    let words: Vec<&str> = token.split_whitespace().collect();
    let reference = match words.as_slice() {
        ["demo" | "ci"] => Reference::Command,
        [suite @ ("net" | "bpf"), path] => match (path.split_once("::"), path.rsplit_once("::")) {
            (Some((area, _)), Some((_, name))) => Reference::Suite(suite, area, name),
            _ => return Err(format!("`{token}` needs the form `{suite} area::name`")),
        },
        ["unit", package, path] => Reference::Unit(
            package,
            path.rsplit_once("::").map_or(path, |(_, name)| name),
        ),
        ["unit" | "net" | "bpf", ..] => {
            return Err(format!(
                "`{token}` needs the form `net area::name`, `bpf area::name` or `unit PACKAGE path::name`"
            ));
        }
        _ if token.contains("::") => {
            return Err(format!(
                "`{token}` says not where it is: begin with net, bpf or unit"
            ));
        }
        _ => return Ok(None),
    };
    Ok(Some(reference))
}

impl Reference<'_> {
    /// What is wrong with the test that is named, if something is.
    fn problem(
        &self,
        token: &str,
        files: &[RustFile],
        folders: &BTreeMap<String, PathBuf>,
    ) -> Option<String> {
        let (name, found) = match self {
            Reference::Command => return None,
            Reference::Suite(suite, area, name) => {
                let folder = Path::new(SUITES_FOLDER).join(suite);
                let (file, subfolder) = (folder.join(format!("{area}.rs")), folder.join(area));
                (
                    name,
                    tests(files, name, |path| {
                        path == file || path.starts_with(&subfolder)
                    }),
                )
            }
            Reference::Unit(package, name) => {
                let Some(folder) = folders.get(*package) else {
                    return Some(format!("`{token}`: there is no package {package}"));
                };
                (name, tests(files, name, |path| path.starts_with(folder)))
            }
        };
        if found.is_empty() {
            return Some(format!("`{token}`: there is no test function {name} there"));
        }
        let all_ignored = found.iter().all(|function| function.is_ignored());
        all_ignored.then(|| format!("`{token}` is ignored: nobody runs it"))
    }
}

/// The test functions of that name in the files that `here` picks.
fn tests<'a>(files: &'a [RustFile], name: &str, here: impl Fn(&Path) -> bool) -> Vec<&'a Function> {
    let functions = files
        .iter()
        .filter(|file| here(&file.path))
        .flat_map(|file| &file.functions);
    functions
        .filter(|function| function.name == name && function.is_test())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Part 1\n\n| Demand | Shown by | State |\n|---|:-:|---|\n";

    fn problems(rows: &str) -> Vec<String> {
        let file = |path: &str, text: &str| RustFile::new(Path::new(path), text);
        let files = [
            file(
                "tests/suites/net/bridge.rs",
                "#[scenario] fn ping() {} #[scenario] #[ignore] fn later() {}",
            ),
            file(
                "tests/suites/net/router/ttl.rs",
                "#[scenario]\nfn exceeded() {}\nfn helper() {}",
            ),
            file("tests/suites/bpf/encap.rs", "#[test] fn key() {}"),
            file(
                "userspace/vnet/src/mask.rs",
                "proptest! { #[test] fn exact(x in 0..2) {} }",
            ),
        ];
        let folders = BTreeMap::from([("weft-vnet".to_string(), PathBuf::from("userspace/vnet"))]);
        let text = format!("{TABLE}{rows}");
        let contents = BTreeMap::from([(PathBuf::from(FILE), text.into_bytes())]);
        check(&contents, &files, &folders)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn rows_that_name_real_tests_are_fine() {
        let rows = "| a | `net bridge::ping`, `bpf encap::key` | shown |\n\
                    | b | `unit weft-vnet mask::tests::exact` and `net router::exceeded` | shown |\n\
                    | c | `demo` prints `weft flows \\| head` | shown |\n\
                    | d | | open |\n\
                    | e | | not here: part 2 |\n\
                    \n| another | table |\n|---|---|\n| x | y |\n";
        assert_eq!(problems(rows), [""; 0]);
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        let rows = "| a | `net bridge::gone` | open |\n| b | `net router::helper` | shown |\n\
                    | c | `bpf bridge::ping` | shown |\n| d | `unit weft-wire exact` | shown |\n";
        assert_eq!(
            problems(rows),
            [
                "docs/SCENARIOS.md:5: `net bridge::gone`: there is no test function gone there",
                "docs/SCENARIOS.md:6: `net router::helper`: there is no test function helper there",
                "docs/SCENARIOS.md:7: `bpf bridge::ping`: there is no test function ping there",
                "docs/SCENARIOS.md:8: `unit weft-wire exact`: there is no package weft-wire",
            ]
        );
    }

    #[test]
    fn an_ignored_test_shows_nothing() {
        let found = problems("| a | `net bridge::later` | shown |\n");
        assert_eq!(
            found,
            ["docs/SCENARIOS.md:5: `net bridge::later` is ignored: nobody runs it"]
        );
    }

    #[test]
    fn shown_needs_a_reference() {
        let found = problems("| a | by looking at `weft status` | shown |\n");
        assert_eq!(
            found,
            ["docs/SCENARIOS.md:5: state `shown` needs a reference under \"shown by\""]
        );
    }

    #[test]
    fn what_is_misspelt_is_found() {
        let rows = "| a | | done |\n| b | | not here: |\n| c | `bridge::ping` | open |\n\
                    | d | `net ping` | open |\n| e | `unit exact` | open |\n| f | open |\n";
        assert_eq!(problems(rows).len(), 6, "{:?}", problems(rows));
    }

    #[test]
    fn a_missing_file_or_table_is_found() {
        let none = BTreeMap::new();
        assert_eq!(check(&none, &[], &BTreeMap::new()).len(), 1);
        let prose = BTreeMap::from([(PathBuf::from(FILE), b"| a | b |\n".to_vec())]);
        assert_eq!(check(&prose, &[], &BTreeMap::new()).len(), 1);
    }
}
