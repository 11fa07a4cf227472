//! The running of a tool under watch, and the keeping of what came of it where that is right.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use castwork_trace::Kind;

use super::account;
use super::asked::{Asked, Inputs};
use super::castxml;
use super::essence::{self, Look};
use super::globs;
use super::names;
use super::nvcc;
use super::outputs::{self, Kept};
use super::rule::{COMPILER, Rule};
use super::seen::{
    Fact, File, Folder, INPUT, SYSTEM, Seen, TERMINALS, USER, fact_of, is_true_name, there_or_not,
};
use super::survey::{Found, Survey, joined};
use crate::answering::{Answered, Source};
use crate::clock::Start;
use crate::config::Config;
use crate::dependencies::prerequisites;
use crate::direct::Hashes;
use crate::direct::hashes::hash_of;
use crate::direct::key::ManifestKey;
use crate::direct::manifest::place_hash;
use crate::invocation::is_compiler;
use crate::local::{Deeds, Platform, witness};
use crate::paths::normal;
use crate::reason::Reason;
use crate::run::{self, Ran};
use crate::spans;
use crate::tiers::{Answer, Inputs as Sent, Remote, Stack};

/// Runs a tool, and keeps what comes of it.
///
/// # Errors
/// The reason to pass the call through; nothing has been run then.
pub fn run(config: &Config, asked: &Asked, mut stack: Stack<'_>) -> Result<Answered, Reason> {
    let lock = lock(config, asked);
    let start = start(config, asked)?;
    let part = || witness::run(&asked.called(), asked.is_told.then_some(asked.is_one));
    let (ran, deeds) = match spans::part("run here", Kind::Internal, part) {
        Ok(ran) => ran,
        Err(error) => {
            run::complain(&format!("can't start `{}`: {error}", asked.program.display()));
            return Ok(stack.answered(Source::LocalRun, 127, false));
        }
    };
    let code = Platform::exit_code(ran.status);
    if !ran.status.success() {
        // What can't be watched may have failed for that alone.
        if deeds.as_ref().is_some_and(|deeds| deeds.is_disturbed) {
            return Err("program that can't be watched".into());
        }
        let died = Some(ran.status);
        return Ok(Answered { died, ..stack.answered(Source::LocalRun, code, false) });
    }
    let took = ran.took;
    let deeds = deeds.ok_or(Reason::new("this system doesn't let programs be watched"));
    let deeds = deeds.and_then(|deeds| if lock.is_some() { Ok(deeds) } else { Err(ALONGSIDE) });
    let refused = match deeds {
        Err(reason) => Some(reason),
        Ok(deeds) => match (Watched { config, asked, deeds: &deeds, start: &start }).answer_of(ran) {
            Ok((seen, action, answer)) => {
                keep((config, asked), &mut stack, (&seen, &action, &answer), took);
                None
            }
            Err(reason) => Some(reason),
        },
    };
    Ok(Answered { refused, ..stack.answered(Source::LocalRun, code, false) })
}

/// Why nothing is kept of a call that is made twice at once: each may see what the other is writing.
const ALONGSIDE: Reason = Reason::new("the same call runs at the same time");

/// Has this call to ourselves, in this place; `None` if somebody else has.
fn lock(config: &Config, asked: &Asked) -> Option<std::fs::File> {
    let name = format!("{}\n{}", asked.key.digest, asked.place.folder);
    let folder = config.dir.join("locks");
    std::fs::create_dir_all(&folder).ok()?;
    // There are so many at most; two calls that share one are not both kept at once.
    let name = hex::encode(&hash_of(name.as_bytes())[..2]);
    let file = std::fs::File::options().create(true).append(true).open(folder.join(name)).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// When the run begins: after the newest of the files that its words name.
fn start(config: &Config, asked: &Asked) -> Result<Start, Reason> {
    let absolute = |word: &String| asked.place.absolute(word.trim_start_matches('@'));
    let changed = |path: &String| {
        let metadata = Path::new(path).metadata().ok().filter(std::fs::Metadata::is_file);
        metadata.map(|metadata| Platform::stamp(&metadata).changed_ns)
    };
    let newest = asked.words.iter().map(absolute).max_by_key(changed).unwrap_or_default();
    Start::now(&config.dir.join("cache/tmp"), Path::new(&newest))
        .or_else(|_| Start::now(&std::env::temp_dir(), Path::new(&newest)))
        .map_err(|_| Reason::new("no folder for temporary files"))
}

/// A run that has ended well, with what was seen of it.
struct Watched<'a> {
    config: &'a Config,
    asked: &'a Asked,
    deeds: &'a Deeds,
    start: &'a Start,
}

impl Watched<'_> {
    /// What is to be kept, and under which keys.
    fn answer_of(&self, ran: Ran) -> Result<(Seen, ManifestKey, Answer), Reason> {
        let Self { asked, deeds, start, .. } = self;
        outputs::check(asked, deeds)?;
        self.check_programs()?;
        self.check_words()?;
        if asked.rule.is_nvcc {
            nvcc::check(asked, deeds, (start.seconds(), seconds_now()))?;
        }
        let (stdout, stderr) = self.messages(ran)?;
        let mut kept = outputs::read(asked, deeds, start)?;
        let seconds = (start.seconds(), seconds_now());
        if asked.rule.is_castxml
            && kept.outputs.iter().any(|output| castxml::shows_now(&output.data, seconds))
        {
            return Err("output that may hold the date".into());
        }
        let mut more = self.of_depfile()?;
        more.extend(asked.inputs.files.iter().map(|(path, _)| path.clone()));
        let survey = Survey::of(deeds, &more, asked, start.instant_ns)?;
        let mut hashes = Hashes::new(&self.config.dir.join("memo"));
        if Inputs::find(&asked.rule, &asked.words, &asked.place, &mut hashes)? != asked.inputs {
            return Err("file changed while the tool ran".into());
        }
        let drafts = self.drafts(&survey, &mut hashes, stdout.is_empty() && stderr.is_empty())?;
        survey.check_again()?;
        let says_place = [&stdout, &stderr].iter().any(|text| names::shows(text, &asked.place));
        let binding = self.binding(&survey, &drafts, says_place || kept.show_place);
        let is_bound = binding.is_some();
        tracing::debug!(?binding, "surveyed");
        if is_bound {
            outputs::put_back(&mut kept, asked)?;
        }
        let mut seen = Seen {
            folders: self.folders(&survey, &drafts, is_bound)?,
            facts: self.facts(),
            place: if is_bound { place_hash(&asked.place).to_vec() } else { Vec::new() },
            before: self.before(&survey)?,
            has_messages: !stdout.is_empty() || !stderr.is_empty(),
            is_one: asked.is_one && !(stdout.is_empty() && stderr.is_empty()),
            made_folders: outputs::folders(deeds).iter().map(|folder| asked.place.alias(folder)).collect(),
            ..Seen::default()
        };
        let Kept { outputs, made, .. } = kept;
        seen.outputs = made;
        self.check_outputs_again()?;
        let action = seen.result_key(&asked.key);
        seen.action = action.digest.to_string();
        Ok((seen, action, Answer { outputs, stdout: Bytes::from(stdout), stderr: Bytes::from(stderr) }))
    }

    /// Why the result is right in this place only, if it is.
    fn binding(
        &self,
        survey: &Survey<'_>,
        drafts: &BTreeMap<String, Draft>,
        shows_place: bool,
    ) -> Option<&'static str> {
        let Asked { may_move, place, rule, .. } = self.asked;
        let is_hidden = |draft: &Draft| draft.shows_place && draft.moved.is_none();
        let is_linked = || !place.mounts().iter().all(|mount| is_true_name(&mount.real));
        match () {
            () if !may_move => Some("the tool or the call doesn't move"),
            () if shows_place => Some("what was made, or said, names its folder"),
            () if !place.mounts().iter().all(|mount| names::is_plain(&mount.real)) => {
                Some("the folder has an unusual name")
            }
            () if survey.leads_back || (survey.climbs && !rule.is_castxml) => {
                Some("a path leads out of a folder")
            }
            () if drafts.values().any(is_hidden) => Some("a file names the folder in an unknown way"),
            () if self.looks_above(survey) => Some("something was looked for above the folder"),
            () if self.names_others() => Some("the call names a folder elsewhere"),
            () if self.words_show_place() => Some("a word names the folder otherwise than as a file's"),
            () if self.names_above() => Some("the call names a folder that this one lies in"),
            () if self.is_named_in(drafts) => Some("a file names the folder, or asks for its own name"),
            () if is_linked() => Some("a link leads to the folder"),
            () => None,
        }
    }

    /// What the tool said, if it said it to us.
    fn messages(&self, ran: Ran) -> Result<(Vec<u8>, Vec<u8>), Reason> {
        if !self.asked.is_told {
            return if self.deeds.said {
                Err("messages for a terminal".into())
            } else {
                Ok(Default::default())
            };
        }
        ran.stdout.zip(ran.stderr).ok_or(Reason::new("messages that are too long to be kept"))
    }

    /// Checks that nothing was started of which it isn't known what else it depends on.
    fn check_programs(&self) -> Result<(), Reason> {
        let Asked { rule, program, .. } = self.asked;
        let Some(known) = &rule.programs else { return Ok(()) };
        let real = |path: &Path| path.canonicalize().map_err(|_| Reason::new("program that is gone"));
        let own = real(program)?;
        for path in &self.deeds.started {
            let started = real(Path::new(path))?;
            let name = started.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_known = started == own
                || known.iter().any(|pattern| match pattern.as_str() {
                    COMPILER => is_compiler(name.as_ref()),
                    pattern => globs::fits(pattern, name),
                });
            if !is_known {
                return Err(Reason::of(format!("tool that starts `{name}`")));
            }
            let begin = read_begin(&started);
            if begin == *b"#!" && !(rule.may_be_script && started == own) {
                return Err("tool that starts a script".into());
            }
        }
        Ok(())
    }

    /// The files that the tool itself says it read.
    fn of_depfile(&self) -> Result<Vec<String>, Reason> {
        let Asked { rule, words, place, .. } = self.asked;
        let mut files = Vec::new();
        for depfile in Rule::patterns(rule.depfile.as_slice(), words) {
            let text = std::fs::read_to_string(place.absolute(&depfile));
            let text = text.map_err(|_| Reason::new("depfile that can't be read"))?;
            files.extend(prerequisites(&text).iter().map(|name| place.absolute(name)));
        }
        Ok(files)
    }

    /// What the files hold that were found.
    fn drafts(
        &self,
        survey: &Survey<'_>,
        hashes: &mut Hashes,
        is_silent: bool,
    ) -> Result<BTreeMap<String, Draft>, Reason> {
        let Asked { place, rule, words, may_move, .. } = self.asked;
        let without_comments = rule.is_castxml && is_silent && castxml::ignores_comments(&told(words, place));
        let mut drafts = BTreeMap::new();
        for (folder, found) in &survey.folders {
            for name in found.files.keys() {
                let path = joined(folder, name);
                let unread = Reason::new("file that can't be read");
                let hash = hashes.of(&path).ok_or(unread.clone())?;
                let mut draft = Draft { hash: hash.to_vec(), ..Draft::default() };
                // Programs of the system, some of a hundred megabytes, name no folder of ours, and are no sources.
                let is_foreign = || !place.is_named(&path) && read_begin(Path::new(&path)) == ELF;
                if (*may_move || rule.is_castxml) && !is_foreign() {
                    let bytes = std::fs::read(&path).map_err(|_| unread)?;
                    if hash_of(&bytes) != hash {
                        return Err("file changed while the tool ran".into());
                    }
                    if rule.is_castxml && castxml::may_hold_date(&bytes) {
                        return Err("file that may ask for the date".into());
                    }
                    draft.shows_place = names::shows(&bytes, place);
                    let is_other = |line: &[u8]| !(rule.is_castxml && castxml::includes(line));
                    let mut lines = bytes.split(|byte| *byte == b'\n');
                    draft.names_place =
                        draft.shows_place && lines.any(|line| is_other(line) && names::shows(line, place));
                    draft.asks_its_name = rule.is_castxml && castxml::may_ask_its_name(&bytes);
                    if without_comments && essence::is_code(&path) {
                        draft.code = essence::of(&bytes, Look::Code, place).map(Vec::from);
                    }
                    if draft.shows_place {
                        draft.moved = essence::of(&bytes, Look::Moved, place).map(Vec::from);
                    }
                }
                drafts.insert(path, draft);
            }
        }
        Ok(drafts)
    }

    fn folders(
        &self,
        survey: &Survey<'_>,
        drafts: &BTreeMap<String, Draft>,
        is_bound: bool,
    ) -> Result<Vec<Folder>, Reason> {
        let Asked { place, rule, .. } = self.asked;
        let counts_all = rule.counts_all();
        let mut folders = Vec::new();
        for (path, found) in &survey.folders {
            if found.is_bare() && self.is_above(path) {
                continue;
            }
            let name = place.alias(path);
            if place.real_of(&name).as_ref() != Some(path) {
                return Err("folder without a name in every place".into());
            }
            let files = found.files.iter().map(|(name, permissions)| {
                let draft = &drafts[&joined(path, name)];
                draft.said(name, (*permissions, counts_all), is_bound)
            });
            let Found { absent, links, others, listing, permissions, .. } = found;
            folders.push(Folder {
                name,
                absent: absent.iter().cloned().collect(),
                files: files.collect(),
                links: links.iter().map(|(name, to)| fact(name, to.clone())).collect(),
                listing: listing.clone(),
                others: others.iter().cloned().collect(),
                is_ordered: counts_all && !listing.is_empty(),
                permissions: if counts_all { *permissions } else { 0 },
            });
        }
        Ok(folders)
    }

    /// Whether a folder is one that a folder of the place lies in, here.
    fn is_above(&self, path: &str) -> bool {
        let begin = format!("{}/", path.trim_end_matches('/'));
        self.asked.place.mounts().iter().any(|mount| mount.real.starts_with(&begin))
    }

    /// Whether something was looked for in a folder that one of the place lies in: elsewhere that would be another.
    fn looks_above(&self, survey: &Survey<'_>) -> bool {
        let is_deep = self.asked.place.mounts().iter().all(|mount| mount.real[1..].contains('/'));
        survey.folders.iter().any(|(path, found)| {
            let counts = if path == "/" { !is_deep && !found.absent.is_empty() } else { !found.is_bare() };
            counts && self.is_above(path)
        })
    }

    /// Whether a tool that may write how its files lie to each other is given some of another place.
    fn names_others(&self) -> bool {
        let Asked { rule, words, place, .. } = self.asked;
        let is_other = |word: &&String| word.starts_with('/') && !place.is_named(word);
        !rule.is_castxml && words.iter().any(|word| is_other(&word))
    }

    /// Checks that no word, in a file of words neither, asks for what nobody sees.
    fn check_words(&self) -> Result<(), Reason> {
        let Asked { rule, words, place, .. } = self.asked;
        for word in told(words, place) {
            // Quotes within words are no part of them.
            let word = word.replace(['"', '\'', '\\'], "");
            if rule.refused.iter().any(|refused| word.starts_with(refused.as_str())) {
                return Err(Reason::of(format!("`{word}` in a file of words")));
            }
            if rule.is_castxml && castxml::may_hold_date(word.as_bytes()) {
                return Err("word that may ask for the date".into());
            }
        }
        Ok(())
    }

    /// Whether the folder is in a word that is not the name of a file or folder, such as a macro: how long it is may count.
    fn words_show_place(&self) -> bool {
        let Asked { words, place, .. } = self.asked;
        let is_name = |word: &str| {
            let word = FILE_FLAGS.iter().find_map(|flag| word.strip_prefix(flag)).unwrap_or(word);
            word.starts_with('/')
        };
        told(words, place).iter().any(|word| names::shows(word.as_bytes(), place) && !is_name(word))
    }

    /// Whether a word names a folder in which one of the place lies: what is found from there has another name elsewhere.
    fn names_above(&self) -> bool {
        let Asked { words, place, .. } = self.asked;
        told(words, place).iter().any(|word| {
            let climbs = word.find("..").map(|at| word[..at].rfind(['=', ' ']).map_or(0, |at| at + 1));
            let begin = word.find('/').into_iter().chain(climbs).min();
            let path = begin.map(|begin| {
                let path = &word[begin..];
                FILE_FLAGS.iter().find_map(|flag| path.strip_prefix(flag)).unwrap_or(path)
            });
            path.is_some_and(|path| self.is_above(&normal(&place.absolute(path))))
        })
    }

    /// Whether a file of the place names it, or asks what it is called itself: that may count without being shown.
    fn is_named_in(&self, drafts: &BTreeMap<String, Draft>) -> bool {
        let Asked { words, place, .. } = self.asked;
        let of_words = |path: &String| {
            words.iter().any(|word| word.strip_prefix('@').is_some_and(|file| place.absolute(file) == *path))
        };
        drafts.iter().any(|(path, draft)| {
            (draft.names_place || draft.asks_its_name && place.is_named(path)) && !of_words(path)
        })
    }

    /// What the run looked at before it made it, if that may have had a say in it.
    fn before(&self, survey: &Survey<'_>) -> Result<Vec<Fact>, Reason> {
        let Asked { rule, place, .. } = self.asked;
        let mut before = Vec::new();
        for (path, (real, was_there)) in &survey.made {
            // It looks, and makes its outputs anew whatever it sees; but not what it only writes more into.
            let is_added_to = self.deeds.grown.contains(real) || self.deeds.added_to.contains(real);
            if rule.makes_anew && !is_added_to {
                continue;
            }
            if *was_there {
                return Err("output that was looked at while it was there".into());
            }
            let name = place.alias(path);
            if place.real_of(&name).as_ref() != Some(path) {
                return Err("output without a name in every place".into());
            }
            before.push(fact(&name, there_or_not(*was_there).to_owned()));
        }
        // What it made and removed again would be gone if it had been there.
        let deeds = self.deeds;
        let is_left = |path: &String| deeds.made.contains(path) || deeds.made_folders.contains(path);
        let gone = deeds.ever_made.iter().filter(|path| !rule.makes_anew && !is_left(path));
        before.extend(gone.map(|path| fact(&place.alias(path), there_or_not(false).to_owned())));
        before.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        before.dedup();
        Ok(before)
    }

    fn facts(&self) -> Vec<Fact> {
        let asked = [
            (self.deeds.asked_system, SYSTEM),
            (self.deeds.asked_user, USER),
            (self.deeds.asked_input, INPUT),
            (self.deeds.asked_terminals, TERMINALS),
        ];
        asked
            .into_iter()
            .filter(|(is_asked, _)| *is_asked)
            .map(|(_, name)| fact(name, fact_of(name)))
            .collect()
    }

    /// Checks that nobody else has written what the run made.
    fn check_outputs_again(&self) -> Result<(), Reason> {
        let is_there =
            |path: &String| Path::new(path).symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        if self.deeds.made.iter().all(is_there) { Ok(()) } else { Err("output that is gone".into()) }
    }
}

/// What a file holds.
#[derive(Debug, Default)]
struct Draft {
    hash: Vec<u8>,
    /// Whether a folder of the place is named in it.
    shows_place: bool,
    /// Whether that is otherwise than as a file that is included.
    names_place: bool,
    /// Whether it may ask for its own name.
    asks_its_name: bool,
    /// What counts, if names of folders don't.
    moved: Option<Vec<u8>>,
    /// What counts, if comments don't either.
    code: Option<Vec<u8>>,
}

impl Draft {
    fn said(&self, name: &str, (permissions, all_count): (u32, bool), is_bound: bool) -> File {
        let (look, essence) = match (&self.code, &self.moved) {
            (Some(code), _) => (Look::Code, code.clone()),
            (None, Some(moved)) if !is_bound => (Look::Moved, moved.clone()),
            _ => (Look::Plain, Vec::new()),
        };
        // A file that says where it is made for is another one elsewhere, and the same there would be wrong.
        let hash = if self.shows_place && !is_bound { Vec::new() } else { self.hash.clone() };
        File {
            name: name.to_owned(),
            hash,
            essence,
            look: look.into(),
            is_executable: Platform::is_to_be_run(permissions),
            permissions: if all_count { permissions } else { 0 },
        }
    }
}

/// Flags that the name of a file or folder may be joined to.
const FILE_FLAGS: [&str; 11] = [
    "-isystem",
    "-iquote",
    "-idirafter",
    "-include",
    "-imacros",
    "-iframework",
    "-I",
    "-o",
    "@",
    "--proto_path=",
    "--descriptor_set_out=",
];

/// The words of a call, with those in the files that it names with `@`.
fn told(words: &[String], place: &crate::paths::Place) -> Vec<String> {
    let mut told = Vec::new();
    for word in words {
        match word.strip_prefix('@').map(|file| std::fs::read_to_string(place.absolute(file))) {
            Some(Ok(text)) => {
                let quotes = ['"', '\''];
                told.extend(text.split_whitespace().map(|word| word.trim_matches(quotes).to_owned()));
            }
            _ => told.push(word.clone()),
        }
    }
    told
}

fn seconds_now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

fn fact(name: &str, value: String) -> Fact {
    Fact { name: name.to_owned(), value }
}

/// How programs begin.
const ELF: [u8; 2] = [0x7f, b'E'];

/// The first two bytes of a file; those of a script if it can't be read.
pub fn read_begin(path: &Path) -> [u8; 2] {
    let mut begin = [0; 2];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut begin));
    if read.is_ok() { begin } else { *b"#!" }
}

/// Keeps an answer locally, and in the first remote tier that takes it.
fn keep(
    (config, asked): (&Config, &Asked),
    stack: &mut Stack<'_>,
    made: (&Seen, &ManifestKey, &Answer),
    took: Duration,
) {
    let (seen, action, answer) = made;
    stack.keep_locally(&action.digest, answer);
    stack.keep_remotely(|remote| match remote {
        Remote::Folder(tier) => tier.put(&action.digest, answer).map(|()| true),
        Remote::Objects(tier) => spans::part("keep it", Kind::Client, || tier.put(&action.digest, answer)),
        Remote::Server(tier) => {
            let messages = action.messages.to_vec();
            let inputs = Sent { messages, files: Vec::new(), toolchain: Vec::new() };
            tier.keep(&action.digest, &inputs, answer, took)
        }
    });
    stack.keep_account(account::of(config, asked, seen));
    stack.amend_manifests(&asked.key, true, |manifest| manifest.add_seen(seen.clone()));
}
