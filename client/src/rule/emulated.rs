//! The compiler that a tool takes for a model: what it predefines and where it searches is what the tool goes by.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::remembered::Remembered;
use crate::direct::hashes::hash_of;
use crate::direct::memo::Hash;
use crate::environment;
use crate::invocation::is_compiler;
use crate::reason::Reason;
use crate::toolchain::resolve;

/// What a compiler says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The hash of its predefined macros, and of the folders in which it searches.
    pub hash: Hash,
    /// Those folders, in order.
    pub folders: Vec<String>,
}

/// Asks a compiler, or remembers what it said if it is machine code that nobody has touched since.
///
/// # Errors
/// The reason to pass the call through.
pub fn ask(words: &[String], is_cxx: bool, dir: &Path) -> Result<Model, Reason> {
    environment::check(environment::of_process)?;
    let unknown = Reason::new("emulated compiler that can't be asked");
    let (name, arguments) = words.split_first().ok_or(unknown.clone())?;
    let search = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::current_dir().map_err(|_| unknown.clone())?;
    let found = resolve::find(name, &search, &here).ok_or(unknown.clone())?;
    let remembered = Remembered::of(dir, "model", &(&found.program, arguments, is_cxx, &search));
    // What a script says may depend on anything, and so may what `sh` or `env` says.
    let is_steady = is_compiler(name.as_ref())
        && found.compiler.as_ref().is_ok_and(|compiler| *compiler == found.program);
    if let Some(model) = remembered.recall().filter(|_| is_steady) {
        return Ok(model);
    }
    let suffix = if is_cxx { ".cpp" } else { ".c" };
    let empty = tempfile::Builder::new().suffix(suffix).tempfile().map_err(|_| unknown.clone())?;
    let output = Command::new(&found.program)
        .args(arguments)
        .args(["-E", "-dM", "-v"])
        .arg(empty.path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|_| unknown.clone())?;
    if !output.status.success() {
        return Err(unknown);
    }
    let about = String::from_utf8_lossy(&output.stderr);
    let folders = folders(&about);
    let mut said = output.stdout;
    said.extend(folders.join("\n").as_bytes());
    let model = Model { hash: hash_of(&said), folders };
    if is_steady {
        let files = sources(&found.program, &about);
        remembered.keep(&model, files.iter().map(PathBuf::as_path));
    }
    Ok(model)
}

/// Where it says that it searches.
fn folders(about: &str) -> Vec<String> {
    let lists = about.lines().skip_while(|line| !line.starts_with("#include \"...\""));
    lists
        .take_while(|line| !line.starts_with("End of search list"))
        .filter_map(|line| line.strip_prefix(' '))
        .map(|line| line.trim_end_matches(" (framework directory)").to_owned())
        .collect()
}

/// The files that its answer comes from: the driver, the compiler behind it, its specs, and the folders that it looked
/// for, there or not.
fn sources(driver: &Path, about: &str) -> Vec<PathBuf> {
    let mut files = vec![driver.to_owned()];
    files.extend(driver.canonicalize());
    for line in about.lines() {
        if let Some(specs) = line.strip_prefix("Reading specs from ") {
            files.push(specs.into());
        } else if let Some(folder) = line.strip_prefix("ignoring nonexistent directory \"") {
            files.push(folder.trim_end_matches('"').into());
        } else if line.starts_with(" /") || line.starts_with(" \"/") {
            let program = line.trim().trim_start_matches('"').split(['"', ' ']).next().unwrap_or_default();
            // Of the folders that it searches, what is in them is looked at elsewhere.
            if Path::new(program).is_file() {
                files.push(program.into());
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list_is_read() {
        let about = " /usr/lib/gcc/cc1plus -E\nignoring nonexistent directory \"/none\"\n#include \"...\" search starts here:\n\
            #include <...> search starts here:\n /usr/include/c++/12\n /usr/include\nEnd of search list.\n x\n";
        assert_eq!(folders(about), ["/usr/include/c++/12", "/usr/include"]);
        assert!(sources(Path::new("/usr/bin/g++"), about).contains(&PathBuf::from("/none")));
    }
}
