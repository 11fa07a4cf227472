//! Files and functions that a reader can hold in mind.

use super::tree::Tree;
use super::{holds, says};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

fn long_files(tree: &Tree) -> Vec<String> {
    let files = tree.with_ending(".rs").map(|(path, text)| (path, text.lines().count()));
    let long = files.filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(path, lines)| format!("{path} has {lines} lines; {FILE_LINES_MAX} is the most")).collect()
}

fn long_functions(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, layers) in tree.rust() {
        for found in layers.functions().iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            let (name, line, lines) = (&found.name, found.line, found.lines);
            breaches
                .push(format!("{path}:{line}: `{name}` has {lines} lines; {FUNCTION_LINES_MAX} is the most"));
        }
    }
    breaches
}

#[test]
fn no_file_is_too_long() {
    holds(long_files);
}

#[test]
fn no_function_is_too_long() {
    holds(long_functions);
}

#[test]
fn a_file_that_is_too_long_is_seen() {
    says(long_files, "a.rs", &"\n".repeat(600), &[]);
    says(long_files, "a.rs", &"\n".repeat(601), &["a.rs has 601 lines; 600 is the most"]);
}

#[test]
fn a_function_that_is_too_long_is_seen() {
    let function = |lines: usize| format!("// c\nfn a() {{{}}}\n", "\n".repeat(lines - 1));
    says(long_functions, "a.rs", &function(70), &[]);
    says(long_functions, "a.rs", &function(71), &["a.rs:2: `a` has 71 lines; 70 is the most"]);
}
