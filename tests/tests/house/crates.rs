//! Crates: arrows point one way, versions stand in one place, lints hold everywhere, names say something.

use toml::{Table, Value};

use super::tree::Tree;
use super::{holds, says};

/// Which of our crates a crate may use, by folder. Nothing uses `castwork`, the client.
const ARROWS: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("cas", &["castwork-proto"]),
    ("trace", &["castwork-proto"]),
    ("worker", &["castwork-cas", "castwork-proto", "castwork-trace"]),
    ("scheduler", &["castwork-cas", "castwork-proto", "castwork-tests", "castwork-trace", "castwork-worker"]),
    ("client", &["castwork-cas", "castwork-proto", "castwork-trace"]),
    // What plays a client, and starts our programs, is in `tests`.
    ("bench", &["castwork-cas", "castwork-proto", "castwork-scheduler", "castwork-tests", "castwork-worker"]),
    ("tests", &["castwork-cas", "castwork-proto"]),
];

/// Names under which anything would fit.
const GRAB_BAGS: [&str; 7] = ["common", "util", "utils", "utilities", "helper", "helpers", "misc"];

/// Names that say something of a module, within what its parent is, and nothing of a crate.
const CRATE_GRAB_BAGS: [&str; 2] = ["core", "shared"];

/// Not of the workspace: libFuzzer has it built in another way.
const APART: &str = "fuzz/Cargo.toml";

/// The manifest of each crate, by its folder.
fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, Table)> {
    tree.with_ending("/Cargo.toml").filter(|(path, _)| *path != APART).map(|(path, text)| {
        let manifest = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        (path.trim_end_matches("/Cargo.toml"), manifest)
    })
}

/// All dependencies of a manifest, of whatever kind and for whatever target.
fn dependencies(manifest: &Table) -> Vec<(&String, &Value)> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let tables = std::iter::once(manifest).chain(targets);
    let lists = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    lists.flatten().collect()
}

fn wrong_arrows(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (folder, manifest) in manifests(tree) {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == folder) else {
            breaches.push(format!("{folder}: a crate without a place among the arrows"));
            continue;
        };
        for (name, _) in dependencies(&manifest) {
            if name.starts_with("castwork") && !allowed.contains(&name.as_str()) {
                breaches.push(format!("{folder} must not use {name}"));
            }
        }
    }
    breaches
}

fn versions_elsewhere(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (folder, manifest) in manifests(tree) {
        for (name, wanted) in dependencies(&manifest) {
            let inherited = wanted.get("workspace").and_then(Value::as_bool) == Some(true);
            if !inherited {
                breaches.push(format!("{folder}: {name} is not taken from the workspace"));
            }
        }
        let package = manifest.get("package").and_then(Value::as_table);
        for field in ["version", "edition", "rust-version", "license"] {
            let value = package.and_then(|package| package.get(field)?.get("workspace")?.as_bool());
            if value != Some(true) {
                breaches.push(format!("{folder}: package.{field} is not taken from the workspace"));
            }
        }
    }
    breaches
}

fn lints_not_inherited(tree: &Tree) -> Vec<String> {
    let lacks = |manifest: &Table| {
        manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) != Some(true)
    };
    let lacking = manifests(tree).filter(|(_, manifest)| lacks(manifest));
    lacking.map(|(folder, _)| format!("{folder}: lints are not taken from the workspace")).collect()
}

/// Crates, and modules of crates, whose name refuses nothing.
fn grab_bags(tree: &Tree) -> Vec<String> {
    let crates = manifests(tree).map(|(folder, manifest)| {
        let name =
            manifest.get("package").and_then(|package| package.get("name")?.as_str()).unwrap_or(folder);
        (format!("{folder}/Cargo.toml"), name.trim_start_matches("castwork-").to_owned())
    });
    let modules = tree.with_ending(".rs").filter(|(path, _)| path.contains("src/")).map(|(path, _)| {
        let name = path.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap_or(path);
        (path.to_owned(), name.to_owned())
    });
    let crates =
        crates.filter(|(_, name)| [&GRAB_BAGS[..], &CRATE_GRAB_BAGS].concat().contains(&name.as_str()));
    let modules = modules.filter(|(_, name)| GRAB_BAGS.contains(&name.as_str()));
    crates.chain(modules).map(|(path, name)| format!("{path}: `{name}` is a grab-bag")).collect()
}

#[test]
fn arrows_point_one_way() {
    holds(wrong_arrows);
}

#[test]
fn versions_stand_in_the_workspace() {
    holds(versions_elsewhere);
}

#[test]
fn every_crate_inherits_the_lints() {
    holds(lints_not_inherited);
}

#[test]
fn no_crate_or_module_is_a_grab_bag() {
    holds(grab_bags);
}

#[test]
fn every_crate_is_looked_at() {
    let tree = Tree::of_this_repository();
    let mut found: Vec<_> = manifests(&tree).map(|(folder, _)| folder).collect();
    let workspace: Table = tree.files["Cargo.toml"].parse().expect("the workspace's manifest");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let mut members: Vec<_> = members.iter().filter_map(Value::as_str).collect();
    found.sort_unstable();
    members.sort_unstable();
    assert_eq!(found, members);
}

#[test]
fn a_wrong_arrow_is_seen() {
    let says = |path, text, expected: &[&str]| says(wrong_arrows, path, text, expected);
    says("cas/Cargo.toml", "[dependencies]\ncastwork-proto.workspace = true", &[]);
    says(
        "cas/Cargo.toml",
        "[dependencies]\ncastwork-worker.workspace = true",
        &["cas must not use castwork-worker"],
    );
    says(
        "worker/Cargo.toml",
        "[dev-dependencies]\ncastwork = { path = \"x\" }",
        &["worker must not use castwork"],
    );
    says(
        "proto/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\ncastwork-cas = \"1\"",
        &["proto must not use castwork-cas"],
    );
    says("other/Cargo.toml", "", &["other: a crate without a place among the arrows"]);
}

const PACKAGE: &str = "version.workspace = true\nedition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true";

#[test]
fn a_version_elsewhere_is_seen() {
    let says = |text: String, expected: &[&str]| says(versions_elsewhere, "cas/Cargo.toml", &text, expected);
    let breach = ["cas: hex is not taken from the workspace"];
    says(format!("[package]\n{PACKAGE}\n[dependencies]\nhex.workspace = true"), &[]);
    says(format!("[package]\n{PACKAGE}\n[dependencies]\nhex = \"0.4\""), &breach);
    says(format!("[package]\n{PACKAGE}\n[dev-dependencies]\nhex = {{ version = \"0.4\" }}"), &breach);
    let own = PACKAGE.replace("version.workspace = true\nedition", "version = \"1\"\nedition");
    says(format!("[package]\n{own}"), &["cas: package.version is not taken from the workspace"]);
}

#[test]
fn a_crate_without_our_lints_is_seen() {
    says(lints_not_inherited, "cas/Cargo.toml", "[lints]\nworkspace = true", &[]);
    let breach = ["cas: lints are not taken from the workspace"];
    says(lints_not_inherited, "cas/Cargo.toml", "[lints]\nworkspace = false", &breach);
    says(lints_not_inherited, "cas/Cargo.toml", "[lints.rust]\nunused = \"allow\"", &breach);
}

#[test]
fn a_grab_bag_is_seen() {
    let breach = ["x/Cargo.toml: `common` is a grab-bag"];
    says(grab_bags, "x/Cargo.toml", "[package]\nname = \"castwork-common\"", &breach);
    says(grab_bags, "cas/Cargo.toml", "[package]\nname = \"castwork-cas\"", &[]);
    says(grab_bags, "cas/src/util.rs", "", &["cas/src/util.rs: `util` is a grab-bag"]);
    says(grab_bags, "cas/src/common/mod.rs", "", &["cas/src/common/mod.rs: `common` is a grab-bag"]);
    says(
        grab_bags,
        "x/Cargo.toml",
        "[package]\nname = \"castwork-core\"",
        &["x/Cargo.toml: `core` is a grab-bag"],
    );
    says(grab_bags, "cas/src/digest.rs", "", &[]);
}
