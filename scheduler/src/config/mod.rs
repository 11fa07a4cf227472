//! [`Config`]: flags and one file, checked, with every complaint at once.

mod args;
mod farm;
mod file;
mod size;
mod store;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use castwork_cas::DigestFunction;
use castwork_cas::resource::check_instance_name;

pub use self::args::{Args, Command, RevokeArgs};
use self::file::{Entry, FileConfig};
pub(crate) use self::size::parse_size;
use self::store::LeaseSize;
use crate::dispatch::Kinds;
use crate::queue::Weights;
use crate::store::Durability;
use crate::store::leases::LeaseLimits;
use crate::store::provenance::AgeLimit;
use crate::tier;

/// Where gRPC is served unless told otherwise: to this machine alone.
const LISTEN_DEFAULT: &str = "127.0.0.1:8980";

/// Where HTTP is served unless told otherwise: to this machine alone.
const HTTP_LISTEN_DEFAULT: &str = "127.0.0.1:8981";

/// The data folder unless told otherwise, below the current one.
const DATA_DIR_DEFAULT: &str = "castwork-data";

/// Size of the store unless told otherwise.
const MAX_SIZE_DEFAULT: &str = "20GB";

/// Below this a store holds not even one build; its empty index alone takes half a megabyte.
const MAX_SIZE_MIN: u64 = 10_000_000;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// An object a line.
    Json,
}

/// What clients without gRPC may do with the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Look up and store.
    #[default]
    ReadWrite,
    /// Look up.
    ReadOnly,
    /// Nothing: there is no cache on the HTTP port.
    Off,
}

/// Who may drain workers and end what others asked for. Everybody may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operators {
    /// Who calls from the server's own machine.
    #[default]
    Local,
    /// Whoever reaches the port.
    Anyone,
}

/// Text that is not shown: it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Everything that the server has to be told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where gRPC is served; port 0 picks one.
    pub listen: SocketAddr,
    /// Where metrics, health and the cache for HTTP clients are served; port 0 picks one.
    pub http_listen: SocketAddr,
    /// What HTTP clients may do with the cache.
    pub http_cache: Access,
    /// The data folder.
    pub data_dir: PathBuf,
    /// What blobs and results may take up, in bytes.
    pub bytes_max: u64,
    /// What an acknowledgement is worth.
    pub durability: Durability,
    /// Bytes a second that are read in the background to verify what is kept; 0 for none.
    pub verify_bytes_per_s: u64,
    /// A slower, larger place behind the store. May hold a password: never shown.
    pub tier: Option<Secret>,
    /// Slots of a worker in this process, if there is to be one; 0 for one a processor.
    pub worker_slots: Option<usize>,
    /// What runs may hold, and for how long.
    pub leases: LeaseLimits,
    /// Which results are too old to be answered.
    pub results_age: AgeLimit,
    /// Written when the server serves.
    pub ready_file: Option<PathBuf>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Instance names besides the empty one, and what an unset digest function means in each.
    pub instances: Vec<(String, DigestFunction)>,
    /// How long actions wait for workers like those that have left, before they are refused.
    pub wait_for_workers: Duration,
    /// How long an action runs at least before a second worker is given it too; `None` for never.
    pub hedge_after: Option<Duration>,
    /// How many of a million results are compared with those of another run.
    pub recheck_per_million: u32,
    /// Who may drain workers and end what others asked for.
    pub operators: Operators,
    /// How platform properties are matched.
    pub kinds: Kinds,
    /// How large the shares of instances and principals are.
    pub weights: Weights,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Where spans of what the server does go; by the environment, which is not read here.
    pub traces: Option<castwork_trace::Settings>,
}

/// Something that is wrong with flags or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Flag, or file and line.
    place: String,
    /// The key, if it is about one.
    key: Option<String>,
    problem: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: `{key}` {}", self.place, self.problem),
            None => write!(f, "{}: {}", self.place, self.problem),
        }
    }
}

/// Everything that is wrong with flags and file.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration can't be used:")?;
        self.0.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))
    }
}

impl std::error::Error for Complaints {}

impl Config {
    /// Reads the file, if one is named, and checks everything. A flag wins over the file.
    ///
    /// # Errors
    /// Every complaint, with the key and where it stands.
    pub fn load(args: Args) -> Result<Self, Complaints> {
        let mut complaints = Vec::new();
        let file = match &args.config {
            Some(path) => FileConfig::read(path, &mut complaints),
            None => FileConfig::default(),
        };
        let config = Self::build(args, file, &mut complaints);
        if complaints.is_empty() { Ok(config) } else { Err(Complaints(complaints)) }
    }

    fn build(args: Args, mut file: FileConfig, complaints: &mut Vec<Complaint>) -> Self {
        let mut checker = Checker { complaints };
        let (lease_size, quiet, results_age) = checker.times(&args, &mut file);
        let listen = checker.pick("listen", args.listen, file.listen, LISTEN_DEFAULT, parse_address);
        let http_listen = checker.pick(
            "http-listen",
            args.http_listen,
            file.http_listen,
            HTTP_LISTEN_DEFAULT,
            parse_address,
        );
        let http_cache =
            checker.pick("http-cache", args.http_cache, file.http_cache, "read-write", parse_access);
        let data_dir = checker.pick("data-dir", args.data_dir, file.data_dir, DATA_DIR_DEFAULT, parse_path);
        let bytes_max = checker.pick("max-size", args.max_size, file.max_size, MAX_SIZE_DEFAULT, parse_bound);
        let durability =
            checker.pick("durability", args.durability, file.durability, "durable", parse_durability);
        let verify_bytes_per_s =
            checker.pick("verify-rate", args.verify_rate, file.verify_rate, "10MB", parse_rate);
        let tier = checker.pick("tier", args.tier, file.tier, "", parse_tier);
        let worker = args.with_worker.map(|slots| slots.unwrap_or_else(|| "true".to_owned()));
        let worker_slots = checker.pick("with-worker", worker, file.with_worker, "false", parse_worker);
        let ready_file = checker.pick("ready-file", args.ready_file, file.ready_file, "", parse_path);
        let log_format =
            checker.pick("log-format", args.log_format, file.log_format, "human", parse_log_format);
        let farm =
            checker.farm(file.wait_for_workers, file.hedge_after, file.recheck_percent, file.operators);
        Self {
            wait_for_workers: farm.wait_for_workers,
            hedge_after: farm.hedge_after,
            recheck_per_million: farm.recheck_per_million,
            operators: farm.operators,
            listen: listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
            http_listen: http_listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
            http_cache: http_cache.unwrap_or_default(),
            data_dir: data_dir.unwrap_or_default(),
            bytes_max: bytes_max.unwrap_or_default(),
            durability: durability.unwrap_or_default(),
            verify_bytes_per_s: verify_bytes_per_s.unwrap_or_default(),
            leases: LeaseLimits { bytes_max: lease_size.bytes(bytes_max.unwrap_or_default()), quiet },
            results_age,
            tier: tier.flatten(),
            worker_slots: worker_slots.flatten(),
            ready_file: ready_file.filter(|path| !path.as_os_str().is_empty()),
            log_format: log_format.unwrap_or_default(),
            instances: checker.instances(file.instances),
            kinds: checker.kinds(file.properties),
            weights: checker.weights(file.shares),
            file: args.config,
            traces: None,
        }
    }
}

/// Checks values, wherever they come from, and gathers complaints.
struct Checker<'a> {
    complaints: &'a mut Vec<Complaint>,
}

impl Checker<'_> {
    /// Takes the flag, else the file's value, else the default; `None` after a complaint.
    fn pick<T>(
        &mut self,
        key: &str,
        flag: Option<String>,
        entry: Option<Entry>,
        default: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let flag = flag.map(|text| Entry { text, place: format!("--{key}") });
        // What the flag hides is checked all the same, because the file is wrong without the flag too.
        let chosen = match (flag, entry) {
            (Some(flag), Some(hidden)) => {
                self.parse(key, &hidden, parse);
                Some(flag)
            }
            (flag, entry) => flag.or(entry),
        };
        match chosen {
            Some(entry) => self.parse(key, &entry, parse),
            None => Some(parse(default).expect("the default is legal")),
        }
    }

    /// What is held for how long, and what is too old.
    fn times(&mut self, args: &Args, file: &mut FileConfig) -> (LeaseSize, Duration, AgeLimit) {
        let (size, quiet) = (args.lease_size.clone(), args.lease_quiet.clone());
        let size = self.pick("lease-size", size, file.lease_size.take(), "25%", store::parse_lease_size);
        let quiet = self.pick("lease-quiet", quiet, file.lease_quiet.take(), "10m", store::parse_time);
        let (age_max, since) = (args.result_age_max.clone(), args.results_since.clone());
        let age_max = self.pick("result-age-max", age_max, file.result_age_max.take(), "", store::parse_age);
        let since = self.pick("results-since", since, file.results_since.take(), "", store::parse_since);
        let age = AgeLimit { age_max: age_max.flatten(), since: since.flatten() };
        (size.unwrap_or(LeaseSize::Bytes(0)), quiet.unwrap_or_default(), age)
    }

    fn parse<T>(&mut self, key: &str, entry: &Entry, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        parse(&entry.text).map_err(|problem| self.complain(&entry.place, key, problem)).ok()
    }

    fn complain(&mut self, place: &str, key: &str, problem: String) {
        // A flag is its own place.
        let key = (!place.starts_with("--")).then(|| key.to_owned());
        self.complaints.push(Complaint { place: place.to_owned(), key, problem });
    }

    fn instances(&mut self, entries: Vec<(Entry, Option<Entry>)>) -> Vec<(String, DigestFunction)> {
        let mut instances: Vec<(String, DigestFunction)> = Vec::new();
        for (name, function) in entries {
            if let Err(error) = check_instance_name(&name.text) {
                self.complain(&name.place, "instance.name", error.to_string());
            }
            if instances.iter().any(|(known, _)| *known == name.text) {
                self.complain(&name.place, "instance.name", format!("`{}` is there twice", name.text));
            }
            let function = function
                .map_or(Some(DigestFunction::Sha256), |entry| {
                    self.parse("instance.digest-function", &entry, parse_function)
                })
                .unwrap_or(DigestFunction::Sha256);
            instances.push((name.text, function));
        }
        instances
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("is `{text}`, which is no IP:PORT such as 127.0.0.1:8980 or [::]:8980"))
}

#[expect(clippy::unnecessary_wraps, reason = "has the form of the others")]
fn parse_path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

fn parse_bound(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)
        .ok_or_else(|| format!("is `{text}`, which is no size such as 20GB, 500MB or 1TiB"))?;
    if bytes < MAX_SIZE_MIN {
        return Err(format!("is `{text}`; the store needs at least 10MB"));
    }
    Ok(bytes)
}

fn parse_rate(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("is `{text}`, which is no size such as 20MB or 0"))
}

fn parse_tier(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match tier::check_address(text) {
        Ok(()) => Ok(Some(Secret(text.to_owned()))),
        Err(reason) => Err(format!("is none: {reason}")),
    }
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    [Durability::Durable, Durability::Relaxed]
        .into_iter()
        .find(|durability| durability.name() == text)
        .ok_or_else(|| format!("is `{text}`; there are `durable` and `relaxed`"))
}

fn parse_worker(text: &str) -> Result<Option<usize>, String> {
    match text {
        "false" => Ok(None),
        "true" => Ok(Some(0)),
        _ => match text.parse() {
            Ok(slots) if slots > 0 => Ok(Some(slots)),
            _ => Err(format!("is `{text}`, which is no number of slots above zero")),
        },
    }
}

fn parse_access(text: &str) -> Result<Access, String> {
    match text {
        "read-write" => Ok(Access::ReadWrite),
        "read-only" => Ok(Access::ReadOnly),
        "off" => Ok(Access::Off),
        _ => Err(format!("is `{text}`; there are `read-write`, `read-only` and `off`")),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("is `{text}`; there are `human` and `json`")),
    }
}

fn parse_function(text: &str) -> Result<DigestFunction, String> {
    DigestFunction::from_name(text).ok_or_else(|| {
        let known = DigestFunction::ALL.map(DigestFunction::name).join("` and `");
        format!("is `{text}`; there are `{known}`")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn load(flags: &[&str], file: Option<&str>) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("castwork.toml");
        let mut all: Vec<String> = vec!["castwork-scheduler".to_owned()];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
            all.extend(["--config".to_owned(), path.display().to_string()]);
        }
        let config = Config::load(Args::try_parse_from(all).unwrap());
        config.map_err(|complaints| complaints.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn without_anything_it_serves_this_machine_alone() {
        let config = load(&[], None).unwrap();
        assert_eq!(config.listen.to_string(), LISTEN_DEFAULT);
        assert_eq!(config.http_listen.to_string(), HTTP_LISTEN_DEFAULT);
        assert_eq!(config.http_cache, Access::ReadWrite);
        assert_eq!(config.bytes_max, 20_000_000_000);
        assert_eq!(config.leases.bytes_max, 5_000_000_000);
        assert_eq!(config.results_age, AgeLimit::default());
        assert_eq!(config.worker_slots, None);
        assert_eq!(config.ready_file, None);
        assert!(config.instances.is_empty());
    }

    #[test]
    fn every_key_can_stand_in_the_file_and_a_flag_wins() {
        let file = r#"
            listen = "0.0.0.0:1"
            http-listen = "127.0.0.1:2"
            http-cache = "read-only"
            data-dir = "/data"
            max-size = "1TiB"
            durability = "relaxed"
            verify-rate = "5MB"
            lease-size = "10%"
            lease-quiet = "5m"
            result-age-max = "30d"
            results-since = "2026-11-01T00:00:00Z"
            with-worker = 4
            ready-file = "/run/ready"
            log-format = "json"
            [[instance]]
            name = "team/main"
            digest-function = "blake3"
            [[instance]]
            name = "other"
        "#;
        let config = load(&["--listen", "127.0.0.1:0", "--with-worker=2"], Some(file)).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.http_listen.port(), 2);
        assert_eq!(config.http_cache, Access::ReadOnly);
        assert_eq!(config.data_dir, PathBuf::from("/data"));
        assert_eq!(config.bytes_max, 1 << 40);
        assert_eq!(config.durability, Durability::Relaxed);
        assert_eq!(config.verify_bytes_per_s, 5_000_000);
        assert_eq!(config.leases.bytes_max, (1 << 40) / 100 * 10);
        assert_eq!(config.leases.quiet.as_secs(), 300);
        assert_eq!(config.results_age.age_max.map(|age| age.as_secs()), Some(30 * 86_400));
        assert!(config.results_age.since.is_some());
        assert_eq!(config.worker_slots, Some(2));
        assert_eq!(config.ready_file, Some("/run/ready".into()));
        assert_eq!(config.log_format, LogFormat::Json);
        let instances =
            [("team/main".to_owned(), DigestFunction::Blake3), ("other".to_owned(), DigestFunction::Sha256)];
        assert_eq!(config.instances, instances);
    }

    #[test]
    fn a_worker_may_have_as_many_slots_as_there_are_processors() {
        assert_eq!(load(&["--with-worker"], None).unwrap().worker_slots, Some(0));
        assert_eq!(load(&[], Some("with-worker = true")).unwrap().worker_slots, Some(0));
        assert_eq!(load(&[], Some("with-worker = false")).unwrap().worker_slots, None);
    }

    #[test]
    fn every_complaint_comes_at_once_with_the_key_and_where_it_stands() {
        let file = "listen = 7\nmax-size = \"lots\"\nspeed = \"high\"\n\
            [[instance]]\nname = \"a/blobs\"\ndigest-function = \"crc32\"\ncolour = 1\n[[instance]]\n";
        let complaints = load(&["--log-format", "xml", "--max-size", "5"], Some(file)).unwrap_err();
        for expected in [
            "FILE:1: `listen` is a number where text belongs",
            "FILE:2: `max-size` is `lots`",
            "FILE:3: `speed` is no key; there are ",
            "FILE:5: `instance.name` instance name `a/blobs` has",
            "FILE:6: `instance.digest-function` is `crc32`",
            "FILE:7: `instance.colour` is no key; there are `name`, `digest-function`",
            "FILE:8: `instance.name` is not set",
            "--log-format: is `xml`",
            "--max-size: is `5`",
        ] {
            assert!(complaints.contains(expected), "{expected} is not in\n{complaints}");
        }
        assert_eq!(complaints.lines().count(), 10, "{complaints}");
    }

    #[test]
    fn what_is_no_toml_and_a_file_that_is_not_there_are_complaints() {
        assert!(load(&[], Some("listen = \n")).unwrap_err().contains("FILE:1: "));
        let nowhere = load(&["--config", "/nowhere/castwork.toml"], None).unwrap_err();
        assert!(nowhere.contains("/nowhere/castwork.toml: "), "{nowhere}");
    }

    #[test]
    fn kinds_of_properties_and_weights_stand_in_the_file() {
        let file = r#"
            [[property]]
            name = "licence"
            kind = "minimum"
            [[share]]
            principal = "ci"
            weight = 2
            [[share]]
            instance = "nightly"
            weight = 0.5
        "#;
        let config = load(&[], Some(file)).unwrap();
        assert_eq!(config.kinds, Kinds::new([("licence".to_owned(), crate::dispatch::Kind::Minimum)]));
        assert_eq!(config.weights.principals["ci"], 200);
        assert_eq!(config.weights.instances["nightly"], 50);
        let wrong = "[[property]]\nname = \"a\"\nkind = \"most\"\n[[property]]\nkind = \"exact\"\n\
            [[share]]\nweight = 0\nprincipal = \"p\"\n";
        let complaints = load(&[], Some(wrong)).unwrap_err();
        for expected in [
            "FILE:3: `property.kind` is `most`; there are `exact`, `minimum`, `ignored`, `priority`",
            "[[property]]: `property` has both a `name` and a `kind`",
            "FILE:7: `share.weight` is `0`, which is no weight",
        ] {
            assert!(complaints.contains(expected), "{expected} is not in\n{complaints}");
        }
    }

    #[test]
    fn an_instance_is_named_once() {
        let twice = "[[instance]]\nname = \"a\"\n[[instance]]\nname = \"a\"\n";
        assert!(load(&[], Some(twice)).unwrap_err().contains("`a` is there twice"));
    }
}
