//! [`Config`]: what is set, by which flag, variable, file or default.

mod ci;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castwork_cas::Objects;

/// Most bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A setting, with its names.
#[derive(Debug)]
pub struct Key {
    /// In the file; `--NAME` with `-` for `_` on the command line.
    pub name: &'static str,
    /// In the environment.
    pub variable: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// What it is unless set.
    pub default: &'static str,
}

/// Every setting.
pub const KEYS: &[Key] = &[
    Key {
        name: "remote",
        variable: "CASTWORK_REMOTE",
        about: "remote caches in order, comma between: grpc://HOST:PORT[/INSTANCE], file:///DIR, s3://BUCKET/PREFIX and other object stores (gs azblob webdav+http webdav+https redis rediss gha), each with ?mode=ro to be read only",
        default: "",
    },
    Key { name: "dir", variable: "CASTWORK_DIR", about: "folder of the local cache", default: "" },
    Key {
        name: "max_size",
        variable: "CASTWORK_MAX_SIZE",
        about: "most bytes of the local cache, e.g. 5GB or 512MiB",
        default: "5GB",
    },
    Key { name: "token", variable: "CASTWORK_TOKEN", about: "bearer token for the servers", default: "" },
    Key {
        name: "run_id",
        variable: "CASTWORK_RUN_ID",
        about: "name of the build that calls belong to; in CI the job's, unless set",
        default: "",
    },
    Key {
        name: "project",
        variable: "CASTWORK_PROJECT",
        about: "name of what is built, for reports; in CI the repository's, unless set",
        default: "",
    },
    Key {
        name: "project_root",
        variable: "CASTWORK_PROJECT_ROOT",
        about: "folder whose name must not matter; found by its .git and the like unless set",
        default: "",
    },
    Key {
        name: "race_after",
        variable: "CASTWORK_RACE_AFTER",
        about: "seconds that a server has for a compile before this machine, if a core is idle, compiles it too and the first one wins; `never` leaves it to the server",
        default: "3",
    },
    Key {
        name: "remap",
        variable: "CASTWORK_REMAP",
        about: "rustc: `yes` has it write fixed names for the folders of a build, so that builds in other folders share all",
        default: "no",
    },
    Key {
        name: "share_lto",
        variable: "CASTWORK_SHARE_LTO",
        about: "gcc: `yes` shares objects for link-time optimisation among folders; what linking says, and debug information if any part of it has `-g`, may then name the folder that one was compiled in",
        default: "no",
    },
    Key {
        name: "log",
        variable: "CASTWORK_LOG",
        about: "what to log to standard error, e.g. debug",
        default: "",
    },
];

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag before the compiler or subcommand.
    Flag,
    /// The environment.
    Variable(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where a remote cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A server that speaks REAPI.
    Server {
        /// `grpc://HOST:PORT`.
        address: String,
        /// REAPI instance name; may be empty.
        instance: String,
    },
    /// A folder, of a network file system for instance.
    Folder(PathBuf),
    /// An object store, by its URL, which may hold a password.
    Objects(String),
}

/// A remote cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// Where it is.
    pub address: Address,
    /// Whether nothing may be written to it.
    pub is_read_only: bool,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Remote caches in the order in which they are asked.
    pub remotes: Vec<RemoteEntry>,
    /// Folder of the local cache; absolute.
    pub dir: PathBuf,
    /// Most bytes of it.
    pub max_size_bytes: u64,
    /// Bearer token.
    pub token: Option<String>,
    /// Name of the build.
    pub run_id: Option<String>,
    /// Name of what is built.
    pub project: Option<String>,
    /// The project's root, if set; absolute.
    pub project_root: Option<PathBuf>,
    /// How long a server has a compile to itself; `None` for as long as it takes.
    pub race_after: Option<Duration>,
    /// Whether rustc is to write fixed names for the folders of a build.
    pub remaps: bool,
    /// Whether objects for link-time optimisation are shared among folders.
    pub shares_link_time: bool,
    /// Filter of the log, if set.
    pub log: Option<String>,
    /// Each setting as it was written, with where that was.
    pub origins: BTreeMap<&'static str, (String, Origin)>,
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it was set.
    pub origin: Origin,
    /// Its name.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.origin, self.key, self.what)
    }
}

/// Settings that can't be used.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// All that is wrong.
    pub complaints: Vec<Complaint>,
    /// The folder of the local cache, as far as it could be made out: calls are counted there.
    pub dir: PathBuf,
}

impl Config {
    /// Gathers and checks all settings; flags win over variables, and those over the file.
    ///
    /// # Errors
    /// Every complaint at once.
    pub fn load(
        flags: &BTreeMap<String, String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Wrong> {
        let mut complaints = Vec::new();
        let file = config_file(flags, &variable);
        let from_file = file.as_deref().map(|path| read_file(path, &mut complaints)).unwrap_or_default();
        let mut origins = BTreeMap::new();
        for key in KEYS {
            let in_file = || {
                from_file
                    .get(key.name)
                    .zip(file.clone())
                    .map(|(text, path)| (text.clone(), Origin::File(path)))
            };
            let in_variable = || {
                let text = variable(key.variable).filter(|text| !text.is_empty())?;
                Some((text, Origin::Variable(key.variable)))
            };
            let found = flags
                .get(key.name)
                .map(|text| (text.clone(), Origin::Flag))
                .or_else(in_variable)
                .or_else(in_file)
                .or_else(|| ci::value_of(key.name, &variable));
            origins.insert(key.name, found.unwrap_or_else(|| (default_of(key, &variable), Origin::Default)));
        }
        let config = check(origins, &mut complaints);
        if complaints.is_empty() { Ok(config) } else { Err(Wrong { complaints, dir: config.dir }) }
    }
}

fn default_of(key: &Key, variable: &impl Fn(&str) -> Option<String>) -> String {
    if key.name != "dir" {
        return key.default.to_owned();
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let folder = set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| format!("{home}/.cache")))
        .or_else(|| set("LOCALAPPDATA"))
        .unwrap_or_else(|| std::env::temp_dir().to_string_lossy().into_owned());
    format!("{folder}/castwork")
}

fn config_file(
    flags: &BTreeMap<String, String>,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(path) = flags.get("config").cloned().or_else(|| set("CASTWORK_CONFIG")) {
        return Some(path.into());
    }
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| format!("{home}/.config")))?;
    let path = Path::new(&folder).join("castwork/config.toml");
    path.exists().then_some(path)
}

/// Reads the file into names and texts.
fn read_file(path: &Path, complaints: &mut Vec<Complaint>) -> BTreeMap<String, String> {
    let origin = Origin::File(path.to_owned());
    let mut complain = |key: &str, what: String| {
        complaints.push(Complaint { origin: origin.clone(), key: key.to_owned(), what });
    };
    let is_too_long = path.metadata().is_ok_and(|metadata| metadata.len() > FILE_BYTES_MAX);
    let text = match std::fs::read_to_string(path) {
        Ok(text) if !is_too_long => text,
        Ok(_) => {
            complain("config", "is too long a file".to_owned());
            return BTreeMap::new();
        }
        Err(error) => {
            complain("config", format!("can't be read: {error}"));
            return BTreeMap::new();
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            complain("config", format!("is not TOML: {}", error.to_string().trim_end().replace('\n', " ")));
            return BTreeMap::new();
        }
    };
    let mut texts = BTreeMap::new();
    for (name, value) in table {
        if !KEYS.iter().any(|key| key.name == name) {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            complain(&name, format!("is not known; known are {}", known.join(", ")));
            continue;
        }
        match text_of(&value) {
            Some(text) => {
                texts.insert(name, text);
            }
            None => complain(&name, "has to be a text, a number or a list of texts".to_owned()),
        }
    }
    texts
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(values) => {
            let texts: Option<Vec<&str>> = values.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn check(origins: BTreeMap<&'static str, (String, Origin)>, complaints: &mut Vec<Complaint>) -> Config {
    let mut complain = |key: &'static str, what: String| {
        let (_, origin) = &origins[key];
        complaints.push(Complaint { origin: origin.clone(), key: key.to_owned(), what });
    };
    let text = |key: &str| origins[key].0.clone();
    let optional = |key: &str| Some(text(key)).filter(|text| !text.is_empty());
    let absolute = |path: String| std::path::absolute(&path).unwrap_or_else(|_| path.into());
    let mut remotes = Vec::new();
    for entry in text("remote").split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match read_remote(entry) {
            Ok(remote) => remotes.push(remote),
            Err(what) => complain("remote", what),
        }
    }
    let max_size_bytes = read_size(&text("max_size")).unwrap_or_else(|| {
        complain("max_size", format!("is `{}`, which is no size such as 5GB", text("max_size")));
        0
    });
    if text("token").chars().any(|letter| !letter.is_ascii_graphic()) {
        complain("token", "holds a character that no token has".to_owned());
    }
    let race_after = read_seconds(&text("race_after")).unwrap_or_else(|| {
        complain(
            "race_after",
            format!("is `{}`, which is neither a number of seconds nor `never`", text("race_after")),
        );
        None
    });
    let mut is_yes = |key: &'static str| match text(key).as_str() {
        "yes" | "true" | "1" => true,
        "no" | "false" | "0" => false,
        other => {
            complain(key, format!("is `{other}`; known are yes and no"));
            false
        }
    };
    let (remaps, shares_link_time) = (is_yes("remap"), is_yes("share_lto"));
    Config {
        remotes,
        dir: absolute(text("dir")),
        max_size_bytes,
        token: optional("token"),
        run_id: optional("run_id"),
        project: optional("project"),
        project_root: optional("project_root").map(absolute),
        race_after,
        remaps,
        shares_link_time,
        log: optional("log"),
        origins,
    }
}

/// Reads `grpc://HOST:PORT[/INSTANCE][?mode=ro]` or `file:///DIR[?mode=ro]`.
fn read_remote(entry: &str) -> Result<RemoteEntry, String> {
    if Objects::is_address(entry) {
        return read_objects(entry);
    }
    let shown = || without_passwords(entry);
    let (place, query) = entry.split_once('?').unwrap_or((entry, ""));
    let is_read_only = match query {
        "" | "mode=rw" => false,
        "mode=ro" => true,
        other => return Err(format!("has `{}` with `?{other}`; known are ?mode=ro and ?mode=rw", shown())),
    };
    let address = match place.split_once("://") {
        Some(("grpc", rest)) => {
            let (authority, instance) = rest.split_once('/').unwrap_or((rest, ""));
            if authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
                return Err(format!("has `{}` without a port; write grpc://HOST:PORT", shown()));
            }
            Address::Server {
                address: format!("grpc://{authority}"),
                instance: instance.trim_end_matches('/').to_owned(),
            }
        }
        Some(("file", folder)) if folder.starts_with('/') => Address::Folder(folder.into()),
        _ => {
            return Err(format!(
                "has `{}`; write grpc://HOST:PORT, file:///DIR, or the address of an object store such as s3://BUCKET/PREFIX",
                shown()
            ));
        }
    };
    Ok(RemoteEntry { address, is_read_only })
}

/// Reads the URL of an object store; its options are the store's, but for `mode`.
fn read_objects(entry: &str) -> Result<RemoteEntry, String> {
    let (place, query) = entry.split_once('?').unwrap_or((entry, ""));
    let mut is_read_only = false;
    let mut options = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("mode", "ro")) => is_read_only = true,
            Some(("mode", "rw")) => {}
            Some(("mode", other)) => {
                return Err(format!("has `?mode={other}`; known are ?mode=ro and ?mode=rw"));
            }
            _ => options.push(option),
        }
    }
    let url = if options.is_empty() { place.to_owned() } else { format!("{place}?{}", options.join("&")) };
    Ok(RemoteEntry { address: Address::Objects(url), is_read_only })
}

/// A list of remote caches as it may be shown: without passwords.
pub fn without_passwords(remotes: &str) -> String {
    let shown = remotes.split(',').map(|entry| {
        let (scheme, rest) = entry.split_once("://")?;
        // Up to the last one: a password that was not escaped may hold anything, and an option a URL of its own.
        let (user, place) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:…@{place}"))
    });
    let entries = remotes.split(',').zip(shown);
    let entries: Vec<String> =
        entries.map(|(entry, shown)| shown.unwrap_or_else(|| entry.to_owned())).collect();
    entries.join(",")
}

/// Reads a number of seconds; within, `None` is `never`.
#[expect(clippy::option_option, reason = "what is wrong, and what is never")]
fn read_seconds(text: &str) -> Option<Option<Duration>> {
    if text == "never" {
        return Some(None);
    }
    let seconds = text.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(Some)
}

/// Reads a number of bytes with a decimal or binary unit.
pub fn read_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests;
