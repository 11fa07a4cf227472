//! [`Rule`]: what is to be known of a tool beyond what can be seen when it is run.

use std::path::Path;

use super::globs::fits;

/// What is known of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// The names of the programs that it is about.
    pub tools: Vec<String>,
    /// Files that count as read, whether they are or not: patterns of paths, as seen from the working folder.
    pub inputs: Vec<String>,
    /// What has to be made, and nothing else may be; if there are none, anything that is made counts.
    pub outputs: Vec<String>,
    /// A file, in the format of Make, in which the tool says what it read: all of it counts.
    pub depfile: Option<String>,
    /// The variables that count, in which `*` stands for anything; without them, all do.
    pub environment: Option<Vec<String>>,
    /// What the tool may start, in the same form; a program called like a compiler is `@compiler`. Without them, anything.
    pub programs: Option<Vec<String>>,
    /// Whether the tool itself may be a script.
    pub may_be_script: bool,
    /// Beginnings of words with which it is passed through.
    pub refused: Vec<String>,
    /// Whether what it makes depends on where it is made by nothing but names of folders that show in its outputs.
    pub moves: bool,
    /// Whether it is known to make its outputs anew, though it looks whether they are there.
    pub makes_anew: bool,
    /// Whether it is known that permissions of files, and the order in which a folder lists its names, don't show in what
    /// it makes.
    pub is_known: bool,
    /// Whether it is `CastXML`, whose outputs are known well enough to be moved.
    pub is_castxml: bool,
    /// Whether it is `nvcc`, which starts what it starts by a shell.
    pub is_nvcc: bool,
}

impl Rule {
    /// Whether a program of this name is meant.
    pub fn is_for(&self, name: &str) -> bool {
        let name = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        let name = name.strip_suffix(".exe").unwrap_or(name);
        self.tools.iter().any(|tool| fits(tool, name))
    }

    /// Whether a variable counts.
    pub fn reads(&self, variable: &str) -> bool {
        match &self.environment {
            Some(known) => known.iter().any(|pattern| fits(pattern, variable)),
            None => !IGNORED.iter().any(|pattern| fits(pattern, variable)),
        }
    }

    /// Whether it starts compilers by their names: not us in their place, whom it would be seen to talk to others.
    pub fn starts_compilers(&self) -> bool {
        self.programs.iter().flatten().any(|name| name == COMPILER)
    }

    /// Whether permissions and the order of lists count.
    pub const fn counts_all(&self) -> bool {
        !self.is_known
    }

    /// The values in words of a flag that a `{FLAG}` in a pattern stands for.
    pub fn patterns(patterns: &[String], words: &[String]) -> Vec<String> {
        patterns.iter().flat_map(|pattern| filled(pattern, words)).collect()
    }
}

/// What stands among programs for one that is called like a compiler.
pub const COMPILER: &str = "@compiler";

/// Variables that are our own.
const IGNORED: [&str; 2] = ["CASTWORK_*", "_"];

/// A pattern in which `{FLAG}` stands for the value of a flag: one for each value, and none if the flag isn't there.
fn filled(pattern: &str, words: &[String]) -> Vec<String> {
    let split = pattern.split_once('{').and_then(|(before, rest)| {
        let (flag, after) = rest.split_once('}')?;
        flag.starts_with('-').then_some((before, flag, after))
    });
    let Some((before, flag, after)) = split else { return vec![pattern.to_owned()] };
    let mut values = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if word == flag {
            values.extend(words.get(at + 1).cloned());
        } else if let Some(rest) = word.strip_prefix(flag) {
            let is_long = flag.starts_with("--");
            match rest.strip_prefix('=') {
                Some(value) => values.push(value.to_owned()),
                None if is_long => {}
                None => values.push(rest.to_owned()),
            }
        }
    }
    values.iter().map(|value| format!("{before}{value}{after}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_a_flag_stands_for_each_of_its_values() {
        let words: Vec<String> = ["-o", "a.c", "-ob.c", "--out=x", "--outer"].map(str::to_owned).to_vec();
        assert_eq!(filled("{-o}", &words), ["a.c", "b.c"]);
        assert_eq!(filled("{--out}/*.py", &words), ["x/*.py"]);
        assert_eq!(filled("{-q}", &words), Vec::<String>::new());
        assert_eq!(filled("*.c", &words), ["*.c"]);
    }

    #[test]
    fn variables_count_by_name_or_all() {
        let some = Rule { environment: Some(vec!["LC_*".into(), "PATH".into()]), ..Rule::default() };
        assert!(some.reads("LC_ALL") && some.reads("PATH") && !some.reads("PATHS"));
        assert!(Rule::default().reads("ANYTHING") && !Rule::default().reads("CASTWORK_DIR"));
    }
}
