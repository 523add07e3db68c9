//! Rules for every tracked file: no path of one machine, no blob, no heap of measurements.

use std::path::Path;

use super::{Problem, line_of};

/// Folders of the machines on which Weft is written; in two parts, for this file is checked as well.
const MACHINE_FOLDERS: [&str; 2] = [concat!("/", "work"), concat!("/", "root")];
const BENCH_FOLDER: &str = "docs/bench";
const BENCH_BYTES_MAX: usize = 200_000;

pub fn check(path: &Path, content: &[u8]) -> Vec<Problem> {
    let mut problems = bench_size(path, content);
    match std::str::from_utf8(content) {
        Ok(text) if !text.contains('\0') => problems.extend(machine_paths(path, text)),
        _ => problems.push(Problem::new(
            path,
            1,
            "no binary files: generate it, or write it as text",
        )),
    }
    problems
}

fn bench_size(path: &Path, content: &[u8]) -> Vec<Problem> {
    if !path.starts_with(BENCH_FOLDER) || content.len() < BENCH_BYTES_MAX {
        return Vec::new();
    }
    let expected = format!(
        "{} bytes; files in {BENCH_FOLDER} stay below {BENCH_BYTES_MAX}",
        content.len()
    );
    vec![Problem::new(path, 1, expected)]
}

fn machine_paths(path: &Path, text: &str) -> Vec<Problem> {
    let is_word = |character: char| character.is_alphanumeric() || "_-.".contains(character);
    let mut problems = Vec::new();
    for folder in MACHINE_FOLDERS {
        for (at, _) in text.match_indices(folder) {
            let before = text[..at].chars().next_back();
            let after = text[at + folder.len()..].chars().next();
            // `a/root` is relative, and `/workspace` another name.
            if !before.is_some_and(|it| is_word(it) || "}~$/)".contains(it))
                && !after.is_some_and(is_word)
            {
                let expected = format!("a path of one machine ({folder}): use a relative one");
                problems.push(Problem::new(path, line_of(text, at), expected));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, content: &[u8]) -> Vec<usize> {
        check(Path::new(path), content)
            .into_iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let fine = format!(
            "frame{0} {0}space ../a{1} https://docs.rs{1}",
            MACHINE_FOLDERS[0], MACHINE_FOLDERS[1]
        );
        assert!(found("a.md", fine.as_bytes()).is_empty());
        for folder in MACHINE_FOLDERS {
            assert_eq!(found("a.md", format!("\nsee `{folder}/x`").as_bytes()), [2]);
            assert_eq!(found("a.toml", folder.as_bytes()), [1]);
        }
    }

    #[test]
    fn blobs_are_found() {
        assert!(found("a.txt", "grün\n".as_bytes()).is_empty());
        assert_eq!(found("a.o", b"\x7fELF\0"), [1]);
        assert_eq!(found("a.bin", b"\xff\xfe"), [1]);
    }

    #[test]
    fn measurements_stay_small() {
        assert!(found("docs/bench/a.json", &vec![b' '; 199_999]).is_empty());
        assert_eq!(found("docs/bench/a.json", &vec![b' '; 200_000]), [1]);
        assert!(found("docs/a.json", &vec![b' '; 200_000]).is_empty());
    }
}
