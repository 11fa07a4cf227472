//! [`Command`]: a tool's command line, understood by its rule.

use std::path::Path;

use super::book::{Rule, value_at};
use crate::paths::Place;
use crate::reason::Reason;

/// Most files that the globs of a rule may find.
const GLOB_FILES_MAX: usize = 10_000;

/// A command line, taken apart. Paths are as they are spelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// All words behind the program.
    pub words: Vec<String>,
    /// Files that it is told to write.
    pub outputs: Vec<String>,
    /// The folder for further outputs, with the number of its first word, if the command line names it.
    pub folder: Option<(String, usize)>,
    /// The dependency file, if it is told to write one.
    pub depfile: Option<String>,
    /// Folders in which it searches.
    pub search: Vec<String>,
    /// Files that it is told to read, each once.
    pub inputs: Vec<String>,
    /// The compiler that it asks what it predefines, with its arguments, and whether for C++.
    pub emulated: Option<(Vec<String>, bool)>,
}

impl Command {
    /// Reads a command line.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn read(rule: &Rule, words: &[String], place: &Place) -> Result<Self, Reason> {
        let mut command = Self { words: words.to_vec(), ..Self::default() };
        let mut at = 0;
        while at < words.len() {
            at += command.word(rule, words, at, place)?;
        }
        command.depfile = command.depfile.or_else(|| rule.depfile_at.clone());
        for glob in &rule.inputs {
            command.inputs.extend(found(glob, place)?);
        }
        command.inputs.sort();
        command.inputs.dedup();
        command.inputs.retain(|input| !command.outputs.contains(input));
        if rule.inputs_max > 0 && command.inputs.len() > rule.inputs_max {
            return Err("several inputs".into());
        }
        if command.inputs.is_empty() {
            return Err("no input".into());
        }
        let leaves_more = !rule.leaves.is_empty() || rule.folder.is_some() || rule.depfile_names_outputs;
        if command.outputs.is_empty() && !leaves_more {
            return Err("no output that is known".into());
        }
        Ok(command)
    }

    /// Takes a word, with those that belong to it, and returns how many these are.
    fn word(&mut self, rule: &Rule, words: &[String], at: usize, place: &Place) -> Result<usize, Reason> {
        let (rest, word) = (&words[at..], &words[at]);
        if let Some((compiler, taken)) = emulated(rule, rest) {
            self.emulated = Some(compiler);
            return Ok(taken);
        }
        if let Some((path, taken)) = value_at(&rule.outputs, rest) {
            self.outputs.push(path);
            return Ok(taken);
        }
        if let Some((path, taken)) = value_at(&rule.folder, rest) {
            self.folder = Some((path, at));
            return Ok(taken);
        }
        if let Some((path, taken)) = value_at(&rule.depfile, rest) {
            self.depfile = Some(path);
            return Ok(taken);
        }
        if let Some((path, taken)) = value_at(&rule.search, rest) {
            self.search.push(path);
            return Ok(taken);
        }
        if rule.refuses(word) {
            return Err(Reason::of(format!("`{word}`")));
        }
        if word.starts_with('@') {
            return Err("response file of a tool".into());
        }
        let path = if word.starts_with('-') {
            word.split_once('=').map(|(_, path)| path)
        } else {
            Some(word.as_str())
        };
        if let Some(path) = path {
            let real = place.absolute(path);
            match Path::new(&real).metadata() {
                Ok(metadata) if metadata.is_file() => self.inputs.push(path.to_owned()),
                Ok(metadata) if metadata.is_dir() && !rule.tells_what_it_reads() => {
                    return Err("folder as an argument".into());
                }
                _ => {}
            }
        }
        Ok(1)
    }
}

impl Rule {
    /// Whether it is known what a tool has read once it has.
    pub const fn tells_what_it_reads(&self) -> bool {
        !self.depfile_words.is_empty()
            || !self.depfile.is_empty()
            || !self.preprocess.is_empty()
            || self.depfile_at.is_some()
    }
}

/// The compiler behind the flag that names one, alone or in parentheses.
fn emulated(rule: &Rule, words: &[String]) -> Option<((Vec<String>, bool), usize)> {
    let name = words.first()?.strip_prefix(rule.emulates.as_deref()?)?;
    let is_cxx = !name.ends_with("-c");
    if words.get(1)? != "(" {
        return Some(((vec![words[1].clone()], is_cxx), 2));
    }
    let end = words.iter().position(|word| word == ")")?;
    Some(((words[2..end].to_vec(), is_cxx), end + 1))
}

/// The files that a glob finds, sorted, as spelled.
pub fn found(glob: &str, place: &Place) -> Result<Vec<String>, Reason> {
    let absolute = place.absolute(glob);
    let paths = glob::glob(&absolute).map_err(|_| Reason::new("glob that is none"))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|_| Reason::new("folder that can't be read"))?;
        if !path.is_file() {
            continue;
        }
        if files.len() == GLOB_FILES_MAX {
            return Err("glob that finds too many files".into());
        }
        let path =
            path.into_os_string().into_string().map_err(|_| Reason::new("file with an unusual name"))?;
        // Relative if it was, so that the key does not hold where we are.
        let spelled = if glob.starts_with('/') {
            &path
        } else {
            path.strip_prefix(&format!("{}/", place.folder)).unwrap_or(&path)
        };
        files.push(spelled.to_owned());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::book::Book;

    fn read(program: &str, line: &str) -> Result<Command, Reason> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.h", "b.i", "x.proto", "y.proto"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let root = folder.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        let place = Place::new(root.clone(), Some(root)).unwrap();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Command::read(Book::open(None).unwrap().for_program(program).unwrap(), &words, &place)
    }

    #[test]
    fn a_command_line_is_read_by_its_rule() {
        let read = |line| read("castxml", line).unwrap();
        let command = read("--castxml-output=1 --castxml-cc-gnu ( g++ -std=c++17 ) -Iinc -o a.xml a.h");
        assert_eq!(command.emulated, Some((vec!["g++".to_owned(), "-std=c++17".to_owned()], true)));
        assert_eq!(
            (command.outputs, command.search, command.inputs),
            (vec!["a.xml".to_owned()], vec!["inc".to_owned()], vec!["a.h".to_owned()])
        );
        let command = read("--castxml-cc-gnu-c gcc -o a.xml a.h");
        assert_eq!(command.emulated, Some((vec!["gcc".to_owned()], false)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let reason = |program, line| read(program, line).unwrap_err().to_string();
        assert_eq!(reason("castxml", "-E a.h"), "`-E`");
        assert_eq!(reason("castxml", "@words"), "response file of a tool");
        assert_eq!(reason("castxml", "-o a.xml nothing.h"), "no input");
        assert_eq!(reason("protoc", "--cpp_out=. x.proto y.proto"), "several inputs");
        assert_eq!(reason("protoc", "--plugin=x --cpp_out=. x.proto"), "`--plugin=x`");
        assert_eq!(reason("protoc", "--go_out=. x.proto"), "`--go_out=.`");
    }
}
