//! What a run of a tool was made of, for `castwork why`.

use std::path::Path;

use super::asked::Asked;
use super::seen::Seen;
use crate::config::Config;
use crate::paths::{ABSOLUTE, normal};
use crate::why::{self, Account, Part};

/// Letters of a hash that tell it from others.
const SHOWN: usize = 16;

/// Writes it down. The source is the last file that a word names and that was looked at.
pub fn of(config: &Config, asked: &Asked, seen: &Seen) -> Account {
    let part = |name: &str, content: String| Part { name: name.to_owned(), content };
    let mut files = Vec::new();
    for folder in &seen.folders {
        for file in &folder.files {
            let hash = if file.hash.is_empty() { &file.essence } else { &file.hash };
            let hash = hex::encode(hash);
            let name = format!("{}/{}", folder.name, file.name);
            files.push(part(&name, hash[..SHOWN.min(hash.len())].to_owned()));
        }
    }
    let mut source = asked.rule.name.clone();
    for path in asked.words.iter().rev().map(|word| normal(&asked.place.absolute(word))) {
        let alias = asked.place.alias(&path);
        if let Some(file) = files.iter_mut().find(|file| file.name == alias) {
            // Whoever asks for it may be in another folder.
            file.name = why::name_of_file(config, Path::new(&path)).unwrap_or(alias);
            source.clone_from(&file.name);
            break;
        }
    }
    let (tools, files) = files.into_iter().partition(|file| {
        file.name.strip_prefix(ABSOLUTE).is_some_and(|path| asked.program.to_str() == Some(path))
    });
    let mut settings: Vec<Part> =
        seen.facts.iter().map(|fact| part(&fact.name, fact.value.clone())).collect();
    settings.push(part("folder", asked.place.alias(&asked.place.folder)));
    Account {
        source,
        action: seen.action.clone(),
        words: asked.words.clone(),
        files,
        tools,
        settings,
        place: if seen.place.is_empty() { String::new() } else { asked.place.folder.clone() },
        bound_by: String::new(),
    }
}
