//! Relative links in Markdown files lead to something.

use std::path::{Component, Path, PathBuf};

use super::Problem;

/// `exists` is asked with paths relative to the root.
pub fn check(path: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Problem> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    for (line, target) in links(text) {
        let file = target.split(['#', '?']).next().unwrap_or_default();
        if file.is_empty() || file.contains(':') {
            continue; // within the page, or somewhere else altogether
        }
        if !resolve(folder, file).is_some_and(|target| exists(&target)) {
            problems.push(Problem::new(
                path,
                line,
                format!("the link to `{target}` leads nowhere"),
            ));
        }
    }
    problems
}

/// Line and target of each `[text](target)` outside of code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let prose = without_code(line);
            for (at, _) in prose.match_indices("](") {
                let target = prose[at + 2..].split([')', ' ']).next().unwrap_or_default();
                found.push((index + 1, target.trim_matches(['<', '>']).to_string()));
            }
        }
    }
    found
}

/// The line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The target seen from the root; none when it leads out of it.
fn resolve(folder: &Path, target: &str) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in folder.join(target).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let text = "[a](a.md) and [b](../README.md#top \"title\"), [c](https://example.org/x)\n\
                    `[code](no.md)` [d](#here)\n```\n[code](no.md)\n```\n\
                    [e](gone.md) [f](../../outside.md) [g](/etc/passwd)\n";
        let exists = |path: &Path| path == Path::new("docs/a.md") || path == Path::new("README.md");
        let problems = check(Path::new("docs/b.md"), text, &exists);
        let found: Vec<_> = problems
            .iter()
            .map(|it| (it.line, it.expected.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (6, "the link to `gone.md` leads nowhere"),
                (6, "the link to `../../outside.md` leads nowhere"),
                (6, "the link to `/etc/passwd` leads nowhere"),
            ]
        );
    }
}
