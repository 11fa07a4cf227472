//! `castwork toolchain show`: every file, and why it is there.

use std::path::Path;

use castwork_cas::Digest;
use serde_json::json;

use super::pack::{Contents, Size};
use super::subject::{Subject, root_of};
use crate::commands::{print, to_float};
use crate::run::complain;
use crate::toolchain::{Luggage, Packed};

/// Prints what there is to say; whether every compiler travels.
pub(super) fn show(subjects: &[Subject], json: bool) -> bool {
    let mut is_well = true;
    let mut list = Vec::new();
    for subject in subjects {
        is_well &= subject.luggage.is_ok();
        if json {
            list.push(as_json(subject));
        } else {
            print(&as_text(subject));
        }
    }
    if json {
        print(&format!("{:#}\n", serde_json::Value::from(list)));
    }
    is_well
}

/// A compiler's own folders of headers, with what they hold.
fn headers(subject: &Subject) -> impl Iterator<Item = (&Path, Size)> {
    subject.headers.iter().map(|folder| {
        let size = Contents::of_headers(folder).map_or_else(
            |what| {
                complain(&what);
                Size::default()
            },
            |contents| contents.size(),
        );
        (folder.as_path(), size)
    })
}

fn as_json(subject: &Subject) -> serde_json::Value {
    let mut value = json!({
        "compiler": subject.name,
        "driver": subject.toolchain.driver,
        "family": subject.toolchain.family,
        "major": subject.toolchain.major,
    });
    let luggage = match &subject.luggage {
        Ok(luggage) => luggage,
        Err(reason) => {
            value["stays"] = json!(reason);
            return value;
        }
    };
    let file = |(path, file): (&std::path::PathBuf, &Packed)| {
        json!({
            "path": path,
            "digest": file.digest,
            "is_executable": file.is_executable,
            "role": subject.roles.get(path),
        })
    };
    let base =
        |(folder, size): (&Path, Size)| json!({ "folder": folder, "files": size.files, "bytes": size.bytes });
    value["root"] = json!(root_of(luggage).map(|root| root.to_string()).ok());
    value["bytes"] = json!(luggage.size_bytes());
    value["files"] = luggage.files.iter().map(file).collect();
    value["links"] = json!(luggage.links);
    value["library_path"] = json!(luggage.library_path);
    value["headers"] = headers(subject).map(base).collect();
    value
}

fn as_text(subject: &Subject) -> String {
    let toolchain = &subject.toolchain;
    let driver = toolchain.driver.display();
    let mut lines = vec![format!("{}: {driver}, {:?} {}", subject.name, toolchain.family, toolchain.major)];
    match &subject.luggage {
        Ok(luggage) => lines.extend(luggage_lines(subject, luggage)),
        Err(reason) => {
            lines.push(format!("  stays here: {reason}"));
            lines.push("  hint: only a worker that has the same files runs its compiles".to_owned());
        }
    }
    lines.join("\n") + "\n"
}

fn luggage_lines(subject: &Subject, luggage: &Luggage) -> Vec<String> {
    let (files, links, size) = (luggage.files.len(), luggage.links.len(), megabytes(luggage.size_bytes()));
    let what = if subject.links { "to compile and link" } else { "goes along" };
    let mut lines = vec![format!("  {what}: {files} files and {links} links, {size}")];
    lines.extend(root_of(luggage).map(|root| format!("  root {root}")));
    for (path, file) in &luggage.files {
        let digest = file.digest.parse::<Digest>();
        let size = digest.map_or(0, |digest| digest.size_bytes());
        let (hash, role) = (&file.digest[..12], subject.roles.get(path).map_or("", String::as_str));
        lines.push(format!("  {size:>11}  {hash}  {}  ({role})", path.display()));
    }
    for (path, target) in &luggage.links {
        lines.push(format!("  {:>11}  {:12}  {} -> {target}", "link", "", path.display()));
    }
    if let Some(folders) = &luggage.library_path {
        lines.push(format!("  with LD_LIBRARY_PATH={folders}"));
    }
    lines.push("  headers, of which each compile takes along what it reads:".to_owned());
    for (folder, Size { files, bytes }) in headers(subject) {
        lines.push(format!(
            "  {:>11}  {:12}  {}",
            format!("{files} files"),
            megabytes(bytes),
            folder.display()
        ));
    }
    lines
}

/// A size for people.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", to_float(bytes) / 1e6)
}
