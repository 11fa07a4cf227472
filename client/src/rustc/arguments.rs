//! The command line of rustc: what is asked for, or why it is not understood.

use std::path::Path;

use super::flags::{self, Takes};
use crate::reason::Reason;

/// Most bytes of a response file.
const RESPONSE_BYTES_MAX: u64 = 4 << 20;

/// What of a command line decides the outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compile {
    /// The crate's first source, as it was spelled.
    pub source: String,
    /// The crate's name.
    pub name: String,
    /// What is appended to the names of outputs.
    pub extra: String,
    /// What is made: `lib`, `bin`, `proc-macro` and so on.
    pub kinds: Vec<String>,
    /// In which forms: `link`, `metadata`, `dep-info`.
    pub emitted: Vec<String>,
    /// Where to; empty for the working folder.
    pub folder: String,
    /// Crates that are named.
    pub externs: Vec<Extern>,
    /// Folders in which libraries are looked for, without those of crates' own crates: their kind, and where they are.
    pub search: Vec<(String, String)>,
    /// Folders in which crates' own crates are looked for.
    pub dependencies: Vec<String>,
    /// Prefixes of paths, and what is written in their place.
    pub maps: Vec<(String, String)>,
    /// The target, unless it is the host.
    pub target: Option<String>,
    /// The linker, if it is named.
    pub linker: Option<String>,
    /// What the linker is told beyond what rustc tells it.
    pub link_arguments: Vec<String>,
    /// How wide messages may be.
    pub width: Option<String>,
    /// Whether messages are JSON.
    pub is_json: bool,
    /// Everything else, in order: it counts as it is written.
    pub words: Vec<String>,
}

/// A crate that is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extern {
    /// Its name, with the options before it.
    pub name: String,
    /// Its file; `None` for one that is searched for.
    pub path: Option<String>,
}

impl Compile {
    /// Reads the words behind the compiler.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn parse(words: &[String], folder: &Path) -> Result<Self, Reason> {
        let words = with_response_files(words, folder)?;
        let mut compile = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "-" {
                return Err("source from standard input".into());
            }
            if !word.starts_with('-') {
                if !compile.source.is_empty() {
                    return Err("several sources".into());
                }
                word.clone_into(&mut compile.source);
                continue;
            }
            let (name, takes, joined) = flags::split(word)?;
            let value = match (takes, joined) {
                (Takes::Nothing, _) => String::new(),
                (_, Some(value)) => value.to_owned(),
                (_, None) => words.next().ok_or(Reason::new("flag without its value"))?.to_owned(),
            };
            compile.take(name, takes, value)?;
        }
        compile.check()
    }

    fn take(&mut self, name: &str, takes: Takes, value: String) -> Result<(), Reason> {
        match name {
            "--out-dir" if !self.folder.is_empty() => return Err("`--out-dir` twice".into()),
            "--diagnostic-width" if self.width.is_some() => return Err("`--diagnostic-width` twice".into()),
            "--out-dir" => self.folder = value,
            "--crate-name" => {
                self.name.clone_from(&value);
                self.verbatim(name, takes, &value);
            }
            "--crate-type" => {
                self.kinds.extend(value.split(',').map(str::to_owned));
                self.verbatim(name, takes, &value);
            }
            "--test" => {
                self.kinds.push("bin".to_owned());
                self.verbatim(name, takes, &value);
            }
            "--emit" => {
                self.emitted.extend(value.split(',').map(str::to_owned));
                self.verbatim(name, takes, &value);
            }
            "--extern" => self.externs.push(match value.split_once('=') {
                Some((name, path)) => Extern { name: name.to_owned(), path: Some(path.to_owned()) },
                None => Extern { name: value, path: None },
            }),
            "-L" => {
                let (kind, path) = value.split_once('=').unwrap_or(("all", &value));
                // Those of dependencies count by what is taken out of them.
                if matches!(kind, "dependency" | "all") {
                    self.dependencies.push(path.to_owned());
                }
                if kind != "dependency" {
                    self.search.push((kind.to_owned(), path.to_owned()));
                }
            }
            "--remap-path-prefix" => {
                let (old, new) = value.rsplit_once('=').ok_or(Reason::new("map without `=`"))?;
                self.maps.push((old.to_owned(), new.to_owned()));
            }
            "--target" => {
                if Path::new(&value).extension().is_some_and(|ending| ending == "json") {
                    return Err("target by a file of its own".into());
                }
                self.verbatim(name, takes, &value);
                self.target = Some(value);
            }
            "--diagnostic-width" => self.width = Some(value),
            "--error-format" => {
                self.is_json = value == "json";
                self.verbatim(name, takes, &value);
            }
            "-C" => self.take_codegen(&value)?,
            _ => self.verbatim(name, takes, &value),
        }
        Ok(())
    }

    fn take_codegen(&mut self, value: &str) -> Result<(), Reason> {
        let (key, given) = value.split_once('=').unwrap_or((value, ""));
        let key = key.replace('_', "-");
        match key.as_str() {
            "extra-filename" => given.clone_into(&mut self.extra),
            "linker" => {
                self.linker = Some(given.to_owned());
                return Ok(());
            }
            "link-arg" => self.link_arguments.push(given.to_owned()),
            "link-args" => self.link_arguments.extend(given.split_whitespace().map(str::to_owned)),
            _ => flags::check_codegen(&key, given)?,
        }
        // Nothing is another value than none.
        let word = if value.contains('=') { format!("{key}={given}") } else { key };
        self.words.extend(["-C".to_owned(), word]);
        Ok(())
    }

    fn verbatim(&mut self, name: &str, takes: Takes, value: &str) {
        self.words.push(name.to_owned());
        if takes != Takes::Nothing {
            self.words.push(value.to_owned());
        }
    }

    fn check(self) -> Result<Self, Reason> {
        if self.source.is_empty() || self.name.is_empty() {
            return Err("no source, or no name of a crate".into());
        }
        if let Some(form) =
            self.emitted.iter().find(|form| !matches!(form.as_str(), "link" | "metadata" | "dep-info"))
        {
            return Err(Reason::of(format!("`--emit={form}`")));
        }
        // It says what was read.
        if !self.emitted.iter().any(|form| form == "dep-info") {
            return Err("no dep-info is asked for".into());
        }
        // Its source says it then.
        if self.kinds.is_empty() {
            return Err("no crate type is asked for".into());
        }
        if let Some(kind) = self.kinds.iter().find(|kind| flags::kind(kind).is_none()) {
            return Err(Reason::of(format!("crate type `{kind}`")));
        }
        Ok(self)
    }

    /// Whether a linker is run.
    pub fn links(&self) -> bool {
        let is_linked = |kind: &String| flags::kind(kind) == Some(flags::Kind::Linked);
        self.emitted.iter().any(|form| form == "link") && self.kinds.iter().any(is_linked)
    }

    /// The names that outputs can have.
    pub fn outputs(&self) -> [String; 5] {
        let Self { name, extra, .. } = self;
        let library = |ending: &str| format!("lib{name}{extra}.{ending}");
        [self.dep_info(), format!("{name}{extra}"), library("rlib"), library("rmeta"), library("so")]
    }

    /// The name of the file that says what was read.
    pub fn dep_info(&self) -> String {
        format!("{}{}.d", self.name, self.extra)
    }
}

/// The words, with those of response files in the files' place: one a line.
fn with_response_files(words: &[String], folder: &Path) -> Result<Vec<String>, Reason> {
    let mut all = Vec::with_capacity(words.len());
    for word in words {
        let Some(name) = word.strip_prefix('@') else {
            all.push(word.clone());
            continue;
        };
        let path = folder.join(name);
        let unread = Reason::new("response file that can't be read");
        if !path.metadata().is_ok_and(|metadata| metadata.len() <= RESPONSE_BYTES_MAX) {
            return Err(unread);
        }
        let text = std::fs::read_to_string(path).map_err(|_| unread)?;
        all.extend(text.lines().map(str::to_owned));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Compile, Reason> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Compile::parse(&words, Path::new("/"))
    }

    const LINE: &str = "--crate-name a --edition=2021 src/lib.rs --error-format=json --json=artifacts \
        --crate-type lib --emit=dep-info,metadata,link -C opt-level=3 -Cextra-filename=-1f --out-dir /t/deps \
        -L dependency=/t/deps -Lnative=/n --extern b=/t/deps/libb.rmeta --extern noprelude:c --cap-lints allow -g";

    #[test]
    fn what_cargo_writes_is_understood() {
        let compile = parse(LINE).unwrap();
        assert_eq!((compile.source.as_str(), compile.dep_info().as_str()), ("src/lib.rs", "a-1f.d"));
        assert_eq!(compile.externs[0].path.as_deref(), Some("/t/deps/libb.rmeta"));
        assert_eq!(compile.externs[1], Extern { name: "noprelude:c".to_owned(), path: None });
        assert_eq!(compile.search, [("native".to_owned(), "/n".to_owned())]);
        assert!(compile.is_json && !compile.links());
        assert!(parse(&LINE.replace("type lib", "type cdylib")).unwrap().links());
        assert!(parse(&format!("{LINE} --test")).unwrap().links());
    }

    #[test]
    fn folders_are_not_among_the_words() {
        let moved = LINE.replace("/t/deps", "/u/deps");
        assert_eq!(parse(LINE).unwrap().words, parse(&moved).unwrap().words);
        let other = LINE.replace("opt-level=3", "opt-level=2");
        assert_ne!(parse(LINE).unwrap().words, parse(&other).unwrap().words);
        let words = |more: &str| parse(&format!("{LINE} {more}")).unwrap().words;
        assert_ne!(words("-C linker-plugin-lto"), words("-C linker-plugin-lto="));
    }

    #[test]
    fn what_is_not_understood_has_a_name() {
        for (more, reason) in [
            ("-C incremental=/i", "incremental compilation"),
            ("-C target-cpu=native", "`-C target-cpu=native`"),
            ("-C frobnicate=1", "unknown flag `-C frobnicate`"),
            ("-Zunpretty=hir", "flag `-Z`"),
            ("--frobnicate", "unknown flag `--frobnicate`"),
            ("--emit=asm", "`--emit=asm`"),
            ("--print cfg", "asks about the compiler"),
            ("-", "source from standard input"),
            ("--crate-type staticlib", "crate type `staticlib`"),
            ("-o x", "flag `-o`"),
            ("other.rs", "several sources"),
            ("--out-dir /u", "`--out-dir` twice"),
        ] {
            assert_eq!(parse(&format!("{LINE} {more}")).unwrap_err().as_str(), reason, "{more}");
        }
        assert_eq!(parse("-vV").unwrap_err().as_str(), "asks about the compiler");
    }
}
