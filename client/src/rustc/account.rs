//! What a compile of a crate was made of, for `castwork why`.

use std::path::Path;

use super::asked::Asked;
use crate::config::Config;
use crate::direct::call::Call;
use crate::paths::{INPUT_ROOT, Place};
use crate::why::{Account, Part};

/// Letters of a hash that tell it from others.
const SHOWN: usize = 16;

/// Writes it down.
pub fn of(config: &Config, asked: &Asked, call: &Call) -> Account {
    let Asked { compile, here, compiler, linker, inputs, .. } = asked;
    let part = |name: &str, content: String| Part { name: name.to_owned(), content };
    let shown = |hash: &[u8]| hex::encode(hash)[..SHOWN].to_owned();
    let maps = compile
        .maps
        .iter()
        .map(|(old, new)| format!("--remap-path-prefix={INPUT_ROOT}/{}={new}", here.alias(old)));
    let search =
        compile.search.iter().map(|(kind, folder)| format!("-L {kind}={INPUT_ROOT}/{}", here.alias(folder)));
    let source = here.place.absolute(&compile.source);
    let named = named(config, &source);
    let named = |name: &str| here.place.real_of(name).map_or_else(|| name.to_owned(), |path| named(&path));
    let files = call.files.iter().map(|file| part(&named(&file.name), shown(&file.hash)));
    let externs = inputs.iter().map(|input| part(&input.name, shown(&input.hash)));
    let unset = || "(not set)".to_owned();
    let mut settings: Vec<Part> = call
        .variables
        .iter()
        .map(|variable| part(&variable.name, variable.value.clone().unwrap_or_else(unset)))
        .collect();
    settings.push(part("folder", here.place.alias(&here.place.folder)));
    let mut tools = vec![part("rustc", shown(&compiler.digest))];
    tools.extend(linker.iter().map(|linker| part(&linker.real.to_string_lossy(), shown(&linker.hash))));
    Account {
        source: named(&here.place.alias(&source)),
        action: call.action.clone(),
        words: compile.words.iter().cloned().chain(maps).chain(search).collect(),
        files: files.chain(externs).collect(),
        tools,
        settings,
        place: if call.place.is_empty() { String::new() } else { here.outputs.clone() },
        bound_by: String::new(),
    }
}

/// Names files as who asks about `source` will name it.
fn named(config: &Config, source: &str) -> impl Fn(&str) -> String + use<> {
    let folder = Path::new(source).parent().unwrap_or(Path::new("/"));
    let place = Place::of_folder(folder, config.project_root.as_deref()).ok();
    move |path: &str| place.as_ref().map_or_else(|| path.to_owned(), |place| place.alias(path))
}
