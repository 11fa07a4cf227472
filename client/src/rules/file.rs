//! Rules of a project: the tables `[[rule]]` in the nearest `castwork.toml`, up to the project's root.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::rule::Rule;
use super::shipped;
use crate::paths::ancestors;

/// What the file is called.
const NAME: &str = "castwork.toml";

/// Most bytes of it.
const BYTES_MAX: u64 = 1 << 20;

/// What lies at the root of a project, above which no rules are looked for.
const ROOT_MARKS: [&str; 3] = [".git", ".hg", NAME];

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    #[serde(default)]
    rule: Vec<Table>,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    outputs: Vec<String>,
    depfile: Option<String>,
    environment: Option<Vec<String>>,
    programs: Option<Vec<String>>,
    #[serde(default)]
    refused: Vec<String>,
}

/// The rules that hold somewhere.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Those of the project, which come before ours.
    pub own: Vec<Rule>,
    /// The file that they are in.
    pub file: Option<PathBuf>,
}

impl Rules {
    /// Reads the rules that hold in a folder.
    ///
    /// # Errors
    /// What is wrong with the file, for people.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let Some(file) = nearest(folder) else { return Ok(Self::default()) };
        let wrong = |what: String| format!("`{}` {what}", file.display());
        if file.metadata().is_ok_and(|metadata| metadata.len() > BYTES_MAX) {
            return Err(wrong("is too long".to_owned()));
        }
        let text =
            std::fs::read_to_string(&file).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let own = parse(&text).map_err(wrong)?;
        Ok(Self { own, file: Some(file) })
    }

    /// The rule for a program, if there is one.
    pub fn find(&self, program: &str) -> Option<Rule> {
        let own = self.own.iter().find(|rule| rule.is_for(program)).cloned();
        own.or_else(|| shipped::find(program))
    }

    /// The rule of a name, if there is one.
    pub fn named(&self, name: &str) -> Option<Rule> {
        let is_named = |rule: &Rule| rule.name == name;
        let own = self.own.iter().find(|rule| is_named(rule)).cloned();
        own.or_else(|| shipped::all().into_iter().find(is_named))
    }
}

/// Whether rules of a project may be about a program; cheap, where there is no file.
pub fn may_know(folder: &Path) -> bool {
    nearest(folder).is_some()
}

fn nearest(folder: &Path) -> Option<PathBuf> {
    for ancestor in ancestors(folder.to_str()?) {
        let file = ancestor.join(NAME);
        if file.is_file() {
            return Some(file);
        }
        if ROOT_MARKS.iter().any(|mark| ancestor.join(mark).exists()) {
            return None;
        }
    }
    None
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let project: Project = toml::from_str(text)
        .map_err(|error| format!("is wrong: {}", error.to_string().trim_end().replace('\n', " ")))?;
    let mut rules: Vec<Rule> = Vec::new();
    for table in project.rule {
        let Table { name, tools, inputs, outputs, depfile, environment, programs, refused } = table;
        if rules.iter().any(|rule| rule.name == name) {
            return Err(format!("has two rules named `{name}`"));
        }
        let tools = if tools.is_empty() { vec![name.clone()] } else { tools };
        rules.push(Rule {
            name,
            tools,
            inputs,
            outputs,
            depfile,
            environment: environment.map(shipped::with_common),
            programs,
            refused,
            may_be_script: true,
            moves: false,
            makes_anew: false,
            is_known: false,
            is_castxml: false,
            is_nvcc: false,
        });
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_mistakes_named() {
        let rules = parse(
            "[[rule]]\nname = \"gen\"\ninputs = [\"*.def\"]\noutputs = [\"{-o}\"]\nenvironment = [\"LANG\"]\n",
        )
        .unwrap();
        assert!(rules[0].is_for("/x/gen") && rules[0].reads("LANG") && !rules[0].reads("HOME"));
        for (text, word) in
            [("[[rule]]\n", "name"), ("[[rule]]\nname = \"x\"\noutput = []\n", "output"), ("[[rule", "wrong")]
        {
            assert!(parse(text).unwrap_err().contains(word), "{text}");
        }
        assert!(parse("[[rule]]\nname = \"x\"\n[[rule]]\nname = \"x\"\n").is_err());
    }

    #[test]
    fn the_nearest_file_up_to_the_root_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/.git")).unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("castwork.toml"), "[[rule]]\nname = \"x\"\n").unwrap();
        assert!(Rules::of(&folder.path().join("a/b")).unwrap().find("x").is_none());
        std::fs::write(folder.path().join("a/castwork.toml"), "[[rule]]\nname = \"moc\"\n").unwrap();
        let rules = Rules::of(&folder.path().join("a/b")).unwrap();
        assert_eq!(rules.find("moc").unwrap().environment, None, "the project's comes first");
        assert!(rules.find("castxml").is_some());
    }
}
