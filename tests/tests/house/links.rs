//! Links between our documents lead somewhere.

use std::path::Path;

use super::tree::Tree;
use super::{holds, says};

fn broken(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_ending(".md") {
        for (line, target) in links(text) {
            if !leads_somewhere(tree, path, target) {
                breaches.push(format!("{path}:{line}: `{target}` leads nowhere"));
            }
        }
    }
    breaches
}

/// Targets of links with their line, without those in code and those to elsewhere in the world.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (number, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        if in_fence {
            continue;
        }
        let prose = line.split('`').step_by(2);
        let inline =
            prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
        let defined =
            line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        found.extend(inline.chain(defined).map(|target| (number + 1, target.trim())));
    }
    found.retain(|(_, target)| !target.contains("://") && !target.starts_with("mailto:"));
    found
}

/// Whether a target is a file or folder of the tree and, if a heading is named, has that heading.
fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let (file, heading) =
        target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let place = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let Some(place) = place else { return false };
    match (tree.files.get(&place), heading) {
        (Some(text), Some(heading)) => headings(text).any(|found| found == heading),
        (Some(_), None) => true,
        (None, _) => tree.files.keys().any(|path| place.is_empty() || Path::new(path).starts_with(&place)),
    }
}

/// A relative path from a file's folder, as a path from the root; none if it leaves the tree.
fn resolve(from: &str, file: &str) -> Option<String> {
    let mut segments: Vec<&str> = from.split('/').collect();
    segments.pop();
    for segment in file.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            name => segments.push(name),
        }
    }
    Some(segments.join("/"))
}

/// Headings in the form in which links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let titles = titles.map(|line| line.trim_start_matches('#').trim());
    titles.map(|title| {
        let kept = title.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    })
}

#[test]
fn every_link_leads_somewhere() {
    holds(broken);
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    let broken_in =
        |text: &str| broken(&Tree::of([("docs/a.md", text), ("docs/sub/b.md", "# Two words"), ("c.md", "")]));
    for good in [
        "[b](sub/b.md) [c](../c.md) [x](https://a.example/b) [s](sub/) [own](#top)\n# Top",
        "[b](sub/b.md#two-words)",
        "`[b](nowhere.md)`\n```\n[b](nowhere.md)\n```",
        "[b]: sub/b.md",
    ] {
        assert_eq!(broken_in(good), Vec::<String>::new(), "{good}");
    }
    for bad in ["b.md", "../a.md", "../../c.md", "sub/b.md#one", "#down", "nowhere/"] {
        assert_eq!(broken_in(&format!("[x]({bad})")), [format!("docs/a.md:1: `{bad}` leads nowhere")]);
    }
    says(broken, "a.md", "\n[b]: b.md", &["a.md:2: `b.md` leads nowhere"]);
}
