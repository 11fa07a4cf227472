//! Words that no file holds: what is unfinished, and what is true on one machine only.

use std::env;

use super::scan::{line_of, words};
use super::tree::Tree;
use super::{holds, says};

const UNFINISHED_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
const UNFINISHED_COMMENTS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Names that an example may give to somebody's home.
const EXAMPLE_HOMES: [&str; 5] = ["a", "me", "other", "runner", "user"];

fn unfinished(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, layers) in tree.rust() {
        for (at, word) in words(&layers.code) {
            if UNFINISHED_MACROS.contains(&word) && layers.code[at + word.len()..].starts_with('!') {
                breaches.push(format!("{path}:{}: `{word}!`", line_of(&layers.code, at)));
            }
        }
        for (at, word) in words(&layers.comments).filter(|(_, word)| UNFINISHED_COMMENTS.contains(word)) {
            breaches.push(format!("{path}:{}: `{word}` in a comment", line_of(&layers.comments, at)));
        }
    }
    breaches
}

fn paths_of_one_machine(tree: &Tree) -> Vec<String> {
    let own: Vec<String> =
        [Some(env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests").to_owned()), env::var("HOME").ok()]
            .into_iter()
            .flatten()
            .filter(|path| path.matches('/').count() > 1)
            .collect();
    let mut breaches = Vec::new();
    for (path, text) in &tree.files {
        for (number, line) in text.lines().enumerate() {
            let found = own.iter().any(|own| line.contains(own.as_str()));
            if found || names_a_home(line) {
                breaches.push(format!("{path}:{}: a path of somebody's machine", number + 1));
            }
        }
    }
    breaches
}

/// Whether a line has a path below somebody's home, other than an example's.
fn names_a_home(line: &str) -> bool {
    let homes = [["/ho", "me/"].concat(), ["/Us", "ers/"].concat()];
    let somebodys = homes.iter().any(|home| {
        line.match_indices(home.as_str()).any(|(at, _)| {
            let name = line[at + home.len()..].split(|sign: char| !sign.is_alphanumeric()).next();
            name.is_some_and(|name| !name.is_empty() && !EXAMPLE_HOMES.contains(&name))
        })
    });
    somebodys || line.contains(&["/ro", "ot/."].concat())
}

#[test]
fn nothing_is_left_unfinished() {
    holds(unfinished);
}

#[test]
fn no_path_is_of_one_machine_only() {
    holds(paths_of_one_machine);
}

#[test]
fn what_is_unfinished_is_seen() {
    for name in UNFINISHED_MACROS {
        says(unfinished, "a.rs", &format!("\nfn a() {{ {name}!() }}"), &[&format!("a.rs:2: `{name}!`")]);
    }
    for word in UNFINISHED_COMMENTS {
        says(unfinished, "a.rs", &format!("// {word}: b"), &[&format!("a.rs:1: `{word}` in a comment")]);
    }
    says(unfinished, "a.rs", "let todo = 1; if todo != 2 {} // todo!()", &[]);
}

#[test]
fn a_path_of_one_machine_is_seen() {
    let breach = ["a.md:1: a path of somebody's machine"];
    for start in [["/ho", "me/jack/a"], ["/Us", "ers/jack"], ["/ro", "ot/.cargo"]] {
        says(paths_of_one_machine, "a.md", &start.concat(), &breach);
    }
    says(paths_of_one_machine, "a.md", "/home/user/project /home/ /usr/lib /root", &[]);
}
