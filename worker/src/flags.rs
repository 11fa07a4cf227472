//! Flags and the configuration file become a [`WorkerConfig`], or a list of every complaint.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::config::{SandboxChoice, WorkerConfig};
use crate::sandbox::Bounds;

/// Runs actions for a Castwork scheduler.
///
/// Every flag but --config can also stand in the configuration file (TOML), under the same name;
/// `property` is a list there. A flag wins over the file.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "castwork-worker", version)]
pub struct Flags {
    /// Where the scheduler is [default: this machine, port 8980]
    #[arg(long, value_name = "grpc://HOST:PORT")]
    scheduler: Option<String>,
    /// The worker's own folder: local CAS, and scratch of what runs. Required
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Actions to run at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// More actions to take, whose inputs are fetched and laid out while others run [default: 0]
    #[arg(long, value_name = "N")]
    ahead: Option<String>,
    /// What the worker offers beside its own properties; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// How far commands are confined: `full` (namespaces, filters, control groups), `namespaces` (without
    /// control groups), `filters` (without namespaces either), or `none`. `auto` is the first of the former two
    /// that can be had [default: auto]
    #[arg(long, value_name = "auto|full|namespaces|filters|none")]
    sandbox: Option<String>,
    /// Give the machine's network to actions that ask for it by the property `network=on`; others have only a
    /// loopback interface of their own
    #[arg(long)]
    allow_network: bool,
    /// Memory that all processes of one action may use together [default: twice its share of the machine]
    #[arg(long, value_name = "BYTES")]
    action_memory: Option<String>,
    /// Processors that one action may use, such as 1.5; needs control groups [default: all, in equal shares]
    #[arg(long, value_name = "N")]
    action_cpus: Option<String>,
    /// Name for people, in results and lists [default: the host's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Size of the local CAS [default: 10GB]
    #[arg(long, value_name = "BYTES")]
    max_size: Option<String>,
    /// Seconds that actions may still run after the worker was asked to stop [default: 300]
    #[arg(long, value_name = "SECONDS")]
    drain_wait: Option<String>,
    /// Written when the scheduler has accepted the worker
    #[arg(long, value_name = "FILE")]
    ready_file: Option<String>,
    /// `human` or `json` [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// An object a line.
    Json,
}

/// Everything that is wrong with flags and file.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaints(Vec<String>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration can't be used:")?;
        self.0.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))
    }
}

impl std::error::Error for Complaints {}

impl Flags {
    /// Reads the file, if one is named, and checks everything.
    pub fn resolve(self) -> Result<(WorkerConfig, LogFormat), Complaints> {
        let Some(path) = self.config.clone() else { return self.resolve_with(None, "") };
        let name = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => self.resolve_with(Some(path), &text),
            Err(error) => Err(Complaints(vec![format!("{name}: {error}")])),
        }
    }

    fn resolve_with(
        self,
        file: Option<PathBuf>,
        text: &str,
    ) -> Result<(WorkerConfig, LogFormat), Complaints> {
        let mut reader = Reader::new(file.as_deref(), text)?;
        let scheduler = reader.text("scheduler", self.scheduler);
        let data_dir = reader.text("data-dir", self.data_dir);
        let properties = reader.list("property", self.property);
        let ready_file = reader.text("ready-file", self.ready_file).map(|(_, path)| PathBuf::from(path));
        let name = reader.text("name", self.name).map(|(_, name)| name);
        let slots = reader.parsed("slots", self.slots, above_zero);
        let ahead = reader.parsed("ahead", self.ahead, count);
        let sandbox = reader.parsed("sandbox", self.sandbox, sandbox);
        let bytes_max = reader.parsed("max-size", self.max_size, bytes);
        let drain_wait = reader.parsed("drain-wait", self.drain_wait, seconds);
        let allows_network = reader.switch("allow-network", self.allow_network);
        let memory_bytes = reader.parsed("action-memory", self.action_memory, bytes);
        let cpu_percent = reader.parsed("action-cpus", self.action_cpus, processors);
        let log_format = reader.parsed("log-format", self.log_format, log_format);
        let properties = reader.properties(properties);
        let scheduler = reader.scheduler(scheduler);
        if data_dir.is_none() {
            reader.complain("--data-dir", "is required");
        }
        reader.finish()?;
        let (_, data_dir) = data_dir.expect("its absence was complained about");
        let mut config = WorkerConfig::new(scheduler, data_dir);
        config.slots = slots.unwrap_or(config.slots);
        config.ahead = ahead.unwrap_or(config.ahead);
        config.properties = properties;
        config.sandbox = sandbox.unwrap_or_default();
        config.name = name.unwrap_or_default();
        config.bytes_max = bytes_max.unwrap_or(config.bytes_max);
        config.drain_wait = drain_wait.unwrap_or(config.drain_wait);
        config.ready_file = ready_file;
        config.allows_network = allows_network;
        if memory_bytes.is_some() || cpu_percent.is_some() {
            let usual = Bounds::for_this_machine(config.slots);
            let memory = memory_bytes.map_or((usual.memory_bytes, usual.memory_bytes_max), |it| (it, it));
            let (memory_bytes, memory_bytes_max) = memory;
            config.bounds = Some(Bounds { memory_bytes, memory_bytes_max, cpu_percent, ..usual });
        }
        // Whatever else stands in it, actions have no business there.
        config.hidden = file.and_then(|path| path.canonicalize().ok()).into_iter().collect();
        Ok((config, log_format.unwrap_or_default()))
    }
}

/// Takes values out of flags and file, and gathers complaints.
struct Reader {
    file: String,
    table: toml::Table,
    complaints: Vec<String>,
}

/// A value with the place it came from.
type Placed = (String, String);

impl Reader {
    fn new(file: Option<&Path>, text: &str) -> Result<Self, Complaints> {
        let file = file.map(|path| path.display().to_string()).unwrap_or_default();
        match text.parse() {
            Ok(table) => Ok(Self { file, table, complaints: Vec::new() }),
            Err(error) => Err(Complaints(vec![format!("{file}: {error}")])),
        }
    }

    fn complain(&mut self, place: &str, problem: &str) {
        self.complaints.push(format!("{place}: {problem}"));
    }

    fn text(&mut self, key: &str, flag: Option<String>) -> Option<Placed> {
        let place = format!("{}: `{key}`", self.file);
        let value = self.table.remove(key);
        if let Some(flag) = flag {
            return Some((format!("--{key}"), flag));
        }
        match value? {
            toml::Value::String(text) => Some((place, text)),
            toml::Value::Integer(number) => Some((place, number.to_string())),
            toml::Value::Float(number) => Some((place, number.to_string())),
            _ => {
                self.complain(&place, "has to be text or a number");
                None
            }
        }
    }

    fn switch(&mut self, key: &str, flag: bool) -> bool {
        match self.table.remove(key) {
            None => flag,
            Some(toml::Value::Boolean(value)) => flag || value,
            Some(_) => {
                let place = format!("{}: `{key}`", self.file);
                self.complain(&place, "has to be `true` or `false`");
                flag
            }
        }
    }

    fn list(&mut self, key: &str, flags: Vec<String>) -> Vec<Placed> {
        let place = format!("{}: `{key}`", self.file);
        let value = self.table.remove(key);
        if !flags.is_empty() {
            return flags.into_iter().map(|flag| (format!("--{key}"), flag)).collect();
        }
        let texts = match value {
            None => return Vec::new(),
            Some(toml::Value::Array(values)) => {
                values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        let texts: Vec<String> = texts.unwrap_or_else(|| {
            self.complain(&place, "has to be a list of texts");
            Vec::new()
        });
        texts.into_iter().map(|text| (place.clone(), text)).collect()
    }

    fn parsed<T>(
        &mut self,
        key: &str,
        flag: Option<String>,
        parse: fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let (place, text) = self.text(key, flag)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.complain(&place, &format!("`{text}` {problem}"));
                None
            }
        }
    }

    fn properties(&mut self, placed: Vec<Placed>) -> Vec<(String, String)> {
        let mut properties = Vec::new();
        for (place, text) in placed {
            match text.split_once('=') {
                Some(("network", value)) if value != "off" => {
                    self.complain(&place, "`network` can only be `off` here; `--allow-network` offers `on`");
                }
                Some(("root", value)) if !matches!(value, "worker" | "inputs") => {
                    self.complain(&place, "`root` can only be `worker` or `inputs`");
                }
                Some(("host-file", _)) => {
                    self.complain(&place, "`host-file` is a condition of actions, not a property of workers");
                }
                Some((name, value)) if !name.is_empty() => {
                    properties.push((name.to_owned(), value.to_owned()));
                }
                _ => self.complain(&place, &format!("`{text}` is not KEY=VALUE")),
            }
        }
        properties
    }

    fn scheduler(&mut self, placed: Option<Placed>) -> String {
        let Some((place, text)) = placed else { return "grpc://127.0.0.1:8980".to_owned() };
        if !text.strip_prefix("grpc://").is_some_and(|rest| rest.contains(':')) {
            self.complain(&place, &format!("`{text}` is not grpc://HOST:PORT"));
        }
        text
    }

    fn finish(mut self) -> Result<(), Complaints> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            let place = format!("{}: `{key}`", self.file);
            self.complain(&place, "is no key of a worker's configuration");
        }
        if self.complaints.is_empty() { Ok(()) } else { Err(Complaints(self.complaints)) }
    }
}

fn above_zero(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|number| (1..=4096).contains(number)).ok_or("is not a number from 1 to 4096")
}

fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|number| *number <= 4096).ok_or("is not a number from 0 to 4096")
}

fn sandbox(text: &str) -> Result<SandboxChoice, &'static str> {
    match text {
        "auto" => Ok(SandboxChoice::Auto),
        "full" => Ok(SandboxChoice::Full),
        "namespaces" => Ok(SandboxChoice::Namespaces),
        "filters" => Ok(SandboxChoice::Filters),
        "none" => Ok(SandboxChoice::None),
        _ => Err("is none of `auto`, `full`, `namespaces`, `filters` and `none`"),
    }
}

/// Reads `1.5`, as percent.
fn processors(text: &str) -> Result<u64, &'static str> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hundredths = format!("{part:0<2}");
    let percent: Option<u64> = format!("{whole}{hundredths}").parse().ok();
    let is_well_formed = !whole.is_empty() && is_number(whole) && is_number(part) && hundredths.len() == 2;
    percent
        .filter(|percent| is_well_formed && (1..=409_600).contains(percent))
        .ok_or("is not a number of processors such as 2 or 0.5")
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("is neither `human` nor `json`"),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    text.parse().map(Duration::from_secs).map_err(|_| "is not a number of seconds")
}

/// Reads `10GB`, `512MiB`, `1000`.
fn bytes(text: &str) -> Result<u64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("is not a size such as 10GB or 512MiB"),
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or("is not a size such as 10GB or 512MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[&str], text: &str) -> Result<WorkerConfig, Vec<String>> {
        let arguments = std::iter::once("castwork-worker").chain(flags.iter().copied());
        let flags = Flags::try_parse_from(arguments).unwrap();
        let done = flags.resolve_with(Some(PathBuf::from("w.toml")), text);
        done.map(|(config, _)| config).map_err(|complaints| complaints.0)
    }

    #[test]
    fn flags_win_over_the_file_and_both_over_defaults() {
        let text =
            "data-dir = \"d\"\nslots = 3\nmax-size = \"1GiB\"\nproperty = [\"a=b=c\"]\nsandbox = \"none\"";
        let config = resolve(&["--slots", "2", "--ahead", "1"], text).unwrap();
        assert_eq!((config.slots, config.ahead, config.bytes_max), (2, 1, 1 << 30));
        assert_eq!(config.properties, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(
            (config.sandbox, config.scheduler.as_str()),
            (SandboxChoice::None, "grpc://127.0.0.1:8980")
        );
    }

    #[test]
    fn every_complaint_comes_at_once_with_its_key_and_its_file() {
        let text = "slots = 0\nsandbx = \"none\"\nsandbox = \"nonee\"\nproperty = [\"network=on\", \"x\"]\nname = []";
        let complaints = resolve(&["--scheduler", "localhost"], text).unwrap_err();
        for part in [
            "w.toml: `slots`: `0` is not",
            "w.toml: `sandbx`: is no key",
            "w.toml: `sandbox`: `nonee`",
            "w.toml: `property`: `network`",
            "w.toml: `property`: `x` is not KEY=VALUE",
            "w.toml: `name`: has to be",
            "--scheduler: `localhost`",
            "--data-dir: is required",
        ] {
            assert!(
                complaints.iter().any(|complaint| complaint.starts_with(part)),
                "{part}: {complaints:#?}"
            );
        }
        assert_eq!(complaints.len(), 8);
    }

    #[test]
    fn processors_are_read_in_hundredths() {
        assert_eq!(["2", "0.5", "1.25", "10.0"].map(processors), [200, 50, 125, 1000].map(Ok));
        for wrong in ["", "0", ".5", "0.001", "-1", "1e3", "x"] {
            assert!(processors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_action_may_use_can_be_set_by_file() {
        let config = resolve(&["--data-dir", "d"], "allow-network = true\naction-cpus = 0.5").unwrap();
        assert!(config.allows_network);
        assert_eq!(config.bounds.unwrap().cpu_percent, Some(50));
        let config = resolve(&["--data-dir", "d", "--action-memory", "1GiB"], "").unwrap();
        assert_eq!(config.bounds.unwrap().memory_bytes, 1 << 30);
        assert!(resolve(&["--data-dir", "d"], "allow-network = 1").is_err());
    }

    #[test]
    fn sizes_are_read_with_their_units_and_never_wrap() {
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("7"), Ok(7));
        for wrong in ["", "GB", "1.5GB", "-1", "99999999999TB", "1 parsec"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
