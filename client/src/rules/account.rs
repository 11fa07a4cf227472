//! What a run of a tool was made of, for `castwork why`.

use super::asked::Asked;
use super::seen::Seen;
use crate::paths::ABSOLUTE;
use crate::why::{Account, Part};

/// Letters of a hash that tell it from others.
const SHOWN: usize = 16;

/// Writes it down. The source is the last file that a word names and that was looked at.
pub fn of(asked: &Asked, seen: &Seen) -> Account {
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
    let named = asked
        .words
        .iter()
        .rev()
        .map(|word| asked.place.alias(&crate::paths::normal(&asked.place.absolute(word))));
    let mut read = named.filter(|name| files.iter().any(|file| file.name == *name));
    let source = read.next().unwrap_or_else(|| asked.rule.name.clone());
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
