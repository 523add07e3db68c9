//! Rules for each Rust file: sizes, module documentation, nothing half done, no lint switched off in silence.

use super::rust::{RustFile, attributes, words};
use super::{Problem, line_of};

const FILE_LINES_MAX: usize = 799;
const FUNCTION_LINES_MAX: usize = 69;

pub fn check(file: &RustFile) -> Vec<Problem> {
    let mut problems = file_size(file);
    problems.extend(function_sizes(file));
    problems.extend(module_documentation(file));
    problems.extend(allowed_lints(file));
    problems.extend(unfinished(file));
    problems
}

fn file_size(file: &RustFile) -> Vec<Problem> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let expected = format!(
        "the file has {lines} lines; at most {FILE_LINES_MAX}: split it by what its parts are about"
    );
    vec![Problem::new(&file.path, FILE_LINES_MAX + 1, expected)]
}

fn function_sizes(file: &RustFile) -> Vec<Problem> {
    let long = file
        .functions
        .iter()
        .filter(|function| function.line_count > FUNCTION_LINES_MAX);
    long.map(|function| {
        let expected = format!(
            "function {} has {} lines; at most {FUNCTION_LINES_MAX}",
            function.name, function.line_count
        );
        Problem::new(&file.path, function.line, expected)
    })
    .collect()
}

fn module_documentation(file: &RustFile) -> Vec<Problem> {
    if file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![Problem::new(
        &file.path,
        1,
        "the file must begin with `//!`: its role, its state, who calls it",
    )]
}

fn allowed_lints(file: &RustFile) -> Vec<Problem> {
    let allowing = attributes(&file.code).into_iter().filter(|(_, inside)| {
        words(inside).any(|(at, word)| {
            word == "allow" && inside[at + word.len()..].trim_start().starts_with('(')
        })
    });
    allowing
        .map(|(at, _)| {
            let expected = "`expect(lint, reason = \"...\")` rather than `allow(lint)`";
            Problem::new(&file.path, line_of(&file.code, at), expected)
        })
        .collect()
}

fn unfinished(file: &RustFile) -> Vec<Problem> {
    let markers = words(&file.code).filter(|(at, word)| {
        matches!(*word, "todo" | "unimplemented") && file.code[at + word.len()..].starts_with('!')
    });
    markers
        .map(|(at, word)| {
            let expected = format!("`{word}!` must not land: finish it or return an error");
            Problem::new(&file.path, line_of(&file.code, at), expected)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The lines on which a rule finds something.
    fn lines(rule: fn(&RustFile) -> Vec<Problem>, text: &str) -> Vec<usize> {
        let file = RustFile::new(Path::new("a.rs"), text);
        rule(&file)
            .into_iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn a_file_of_800_lines_is_too_long() {
        assert!(lines(file_size, &"\n".repeat(799)).is_empty());
        assert_eq!(lines(file_size, &"\n".repeat(800)), [800]);
    }

    #[test]
    fn a_function_of_70_lines_is_too_long() {
        let function = |inner| format!("\nfn f() {{{}}}\n", "\n".repeat(inner));
        assert!(lines(function_sizes, &function(68)).is_empty());
        assert_eq!(lines(function_sizes, &function(69)), [2]);
    }

    #[test]
    fn a_module_begins_with_its_documentation() {
        assert!(lines(module_documentation, "//! What.\n").is_empty());
        assert_eq!(
            lines(module_documentation, "use std::fmt;\n//! What.\n"),
            [1]
        );
        assert_eq!(lines(module_documentation, ""), [1]);
    }

    #[test]
    fn lints_are_expected_and_not_allowed() {
        let text =
            "#[expect(dead_code, reason = \"x\")]\nfn allow(x: u8) {}\n// #[allow(dead_code)]\n";
        assert!(lines(allowed_lints, text).is_empty());
        let text = "#![allow(a)]\n\n#[allow (b)]\n#[cfg_attr(test, allow(c))]\n";
        assert_eq!(lines(allowed_lints, text), [1, 3, 4]);
    }

    #[test]
    fn unfinished_code_is_found_in_code_only() {
        assert!(
            lines(
                unfinished,
                "// todo!()\nlet s = \"todo!()\"; let todo = !done;\n"
            )
            .is_empty()
        );
        assert_eq!(
            lines(unfinished, "\ntodo!()\nunimplemented!(\"x\")\n"),
            [2, 3]
        );
    }
}
