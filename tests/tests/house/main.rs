//! The rules of the house, held by an ordinary test.
//!
//! A rule is a function from a tree of files to the breaches it finds, each a line that says where and what.
//! It runs over this repository, and over a small tree made for it, which shows that it would catch a breach.

mod crates;
mod homes;
mod links;
mod scan;
mod sizes;
mod tree;
mod words;

use tree::Tree;

/// Asserts that this repository keeps a rule.
fn holds(rule: fn(&Tree) -> Vec<String>) {
    let breaches = rule(&Tree::of_this_repository());
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// Asserts what a rule says of a tree of a single file.
fn says(rule: fn(&Tree) -> Vec<String>, path: &str, text: &str, expected: &[&str]) {
    assert_eq!(rule(&Tree::of([(path, text)])), expected, "{path}: {text}");
}
