//! [`Rule`]: what is known of a tool's command line, shipped or the user's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glob::Pattern;
use serde::{Deserialize, Serialize};

/// The rules that everybody has.
const SHIPPED: &str = include_str!("shipped.toml");

/// The file in a project's root with rules of its own.
pub const FILE: &str = "castwork.toml";

/// Most bytes of that file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known of a tool. Words and patterns are as in `docs/rules.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Names of the programs it is for, as globs.
    pub programs: Vec<String>,
    /// How an argument names an output, e.g. `-o {}`.
    pub outputs: Vec<String>,
    /// Outputs beyond those that arguments name: paths, or globs of files that the tool writes anew.
    pub leaves: Vec<String>,
    /// How an argument names the folder for further outputs: it is run with an empty one, all that is in it then counts.
    pub folder: Option<String>,
    /// How an argument names a dependency file.
    pub depfile: Vec<String>,
    /// A dependency file that it writes without being told where.
    pub depfile_at: Option<String>,
    /// Words that make the tool write one, where no argument does; `{}` stands for its path.
    pub depfile_words: Vec<String>,
    /// Set if the tool then chooses its name: the output's, with this behind it.
    pub depfile_beside: Option<String>,
    /// Whether what a dependency file has as targets are the outputs.
    pub depfile_names_outputs: bool,
    /// Words that make the tool print what it would work on, as the preprocessor of C does.
    pub preprocess: Vec<String>,
    /// How an argument names a folder in which files are searched for.
    pub search: Vec<String>,
    /// What is read beyond what arguments name, as globs.
    pub inputs: Vec<String>,
    /// Most arguments that name files to read; 0 for any number.
    pub inputs_max: usize,
    /// Variables of the environment that it reads.
    pub variables: Vec<String>,
    /// Files that are part of the tool, as globs; `{}` stands for the program's folder.
    pub tool: Vec<String>,
    /// The beginning of the flag behind which is a compiler that the tool asks what it predefines.
    pub emulates: Option<String>,
    /// Words, as globs, with which a call is passed through.
    pub without: Vec<String>,
    /// Words, as globs, that are understood although `without` fits them.
    pub with: Vec<String>,
}

/// Why there is no rule to go by.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The project's file can't be read.
    #[error("can't read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says what is no rule.
    #[error("`{}` holds what is no rule: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        what: String,
    },
    /// There is no rule of this name.
    #[error("no rule `{name}`; known are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
}

/// All rules that hold in a project.
#[derive(Debug)]
pub struct Book(BTreeMap<String, Rule>);

/// What a rules' file holds.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    rule: BTreeMap<String, Rule>,
}

impl Book {
    /// The shipped rules, with those of the project at `root` in front of them.
    ///
    /// # Errors
    /// If the project's file is there and can't be read.
    pub fn open(root: Option<&Path>) -> Result<Self, RuleError> {
        let shipped: BTreeMap<String, Rule> = toml::from_str(SHIPPED).expect("the shipped rules are tested");
        let mut book = Self(shipped);
        if let Some(path) = root.map(|root| root.join(FILE)).filter(|path| path.exists()) {
            book.0.extend(read(&path)?.rule);
        }
        Ok(book)
    }

    /// The rule for a program: the first by name whose programs' names fit.
    pub fn for_program(&self, program: &str) -> Option<&Rule> {
        let name = Path::new(program).file_name()?.to_str()?;
        let name = name.strip_suffix(".exe").unwrap_or(name);
        let fits = |glob: &String| Pattern::new(glob).is_ok_and(|pattern| pattern.matches(name));
        self.0.values().find(|rule| rule.programs.iter().any(fits))
    }

    /// The rule of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(&self, name: &str) -> Result<&Rule, RuleError> {
        self.0.get(name).ok_or_else(|| RuleError::Unknown {
            name: name.to_owned(),
            known: self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

fn read(path: &Path) -> Result<File, RuleError> {
    let wrong = |what: String| RuleError::Wrong { path: path.to_owned(), what };
    let unread = |source| RuleError::Read { path: path.to_owned(), source };
    if path.metadata().map_err(unread)?.len() > FILE_BYTES_MAX {
        return Err(wrong("it is too long".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    let file: File =
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().replace('\n', " ")))?;
    for (name, rule) in &file.rule {
        rule.check().map_err(|what| wrong(format!("rule `{name}`: {what}")))?;
    }
    Ok(file)
}

impl Rule {
    /// Checks that patterns are some.
    ///
    /// # Errors
    /// The first that is none.
    pub fn check(&self) -> Result<(), String> {
        let globs = [&self.programs, &self.leaves, &self.inputs, &self.tool, &self.without, &self.with];
        for glob in globs.into_iter().flatten() {
            Pattern::new(glob).map_err(|error| format!("`{glob}` is no glob: {error}"))?;
        }
        let patterns = [&self.outputs, &self.depfile, &self.search];
        for pattern in patterns.into_iter().flatten().chain(&self.folder) {
            if !pattern.ends_with("{}") || pattern.matches("{}").count() != 1 || pattern.len() == 2 {
                return Err(format!(
                    "`{pattern}` does not say where a path stands; write for example `-o {{}}`"
                ));
            }
        }
        Ok(())
    }

    /// Whether a word is one with which a call is not understood.
    pub fn refuses(&self, word: &str) -> bool {
        let fits = |glob: &String| Pattern::new(glob).is_ok_and(|pattern| pattern.matches(word));
        self.without.iter().any(fits) && !self.with.iter().any(fits)
    }
}

/// What one of some patterns finds at the start of `words`: the path, and how many words that took.
pub fn value_at<'a>(
    patterns: impl IntoIterator<Item = &'a String>,
    words: &[String],
) -> Option<(String, usize)> {
    let first = words.first()?;
    patterns.into_iter().find_map(|pattern| {
        let before = pattern.strip_suffix("{}")?;
        match before.strip_suffix(' ') {
            Some(flag) => (first == flag).then(|| words.get(1).map(|value| (value.clone(), 2)))?,
            None => {
                first.strip_prefix(before).filter(|rest| !rest.is_empty()).map(|rest| (rest.to_owned(), 1))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_are_rules() {
        let book = Book::open(None).unwrap();
        for (name, rule) in &book.0 {
            rule.check().unwrap_or_else(|what| panic!("{name}: {what}"));
            assert!(!(rule.programs.is_empty() || rule.outputs.is_empty()), "{name}");
        }
        for (program, name) in
            [("/usr/bin/castxml", "castxml"), ("swig4.0", "swig"), ("x86_64-linux-gnu-as", "as")]
        {
            assert_eq!(book.for_program(program), book.named(name).ok(), "{program}");
        }
        assert_eq!(book.for_program("ls"), None);
    }

    #[test]
    fn a_path_is_found_behind_its_flag() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let patterns = ["-o {}".to_owned(), "-I{}".to_owned(), "--out={}".to_owned()];
        let found = |line: &str| value_at(&patterns, &words(line));
        assert_eq!(found("-o a.xml b"), Some(("a.xml".to_owned(), 2)));
        assert_eq!(found("-Iinc b"), Some(("inc".to_owned(), 1)));
        assert_eq!(found("--out=x"), Some(("x".to_owned(), 1)));
        assert_eq!((found("-o"), found("-I"), found("-oa.xml")), (None, None, None));
    }

    #[test]
    fn a_rule_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            Book::open(Some(folder.path())).unwrap_err().to_string()
        };
        assert!(said("[rule.x]\noutput = [\"-o {}\"]").contains("unknown field `output`"));
        assert!(said("[rule.x]\noutputs = [\"-o\"]").contains("rule `x`: `-o` does not say"));
        std::fs::write(
            folder.path().join(FILE),
            "[rule.gen]\nprograms = [\"gen.py\"]\nleaves = [\"out.h\"]\n",
        )
        .unwrap();
        let book = Book::open(Some(folder.path())).unwrap();
        assert!(book.for_program("tools/gen.py").is_some() && book.named("swig").is_ok());
        assert!(book.named("pony").unwrap_err().to_string().contains("castxml, cython, gen"));
    }
}
