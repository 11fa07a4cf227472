//! `castwork doctor`: tries everything out, and says what is wrong and what to do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use castwork_cas::{Digest, DigestFunction, Objects};
use serde_json::json;

use crate::commands::{print, to_float};
use crate::config::{Address, Config, RemoteEntry};
use crate::prepare::Prepared;
use crate::run;
use crate::tiers::{Answer, FolderTier, ObjectsTier, Server, ServerTier, TierError};
use crate::toolchain::{Mode, resolve};

/// Names of compilers to try, the first that is there.
const COMPILERS: [&str; 4] = ["cc", "gcc", "clang", "c++"];

/// What was found about one thing.
struct Finding {
    about: String,
    /// What is so, or what is wrong with what to do about it.
    outcome: Result<String, (String, &'static str)>,
}

/// Looks at everything, prints what it finds, and returns the exit code: 0 if all is well.
pub fn run(config: &Config, json: bool) -> u8 {
    let mut findings = Vec::new();
    let mut tell = |about: &str, outcome: Result<String, (String, &'static str)>| {
        let finding = Finding { about: about.to_owned(), outcome };
        if !json {
            print(&finding.line());
        }
        findings.push(finding);
    };
    tell("local cache", local_cache(config));
    let compiler = compiler();
    let version = compiler.as_ref().map(|path| path.display().to_string());
    tell("compiler", version.map_err(Clone::clone));
    for entry in &config.remotes {
        for (about, outcome) in remote(config, entry, compiler.as_deref().ok()) {
            tell(&about, outcome);
        }
    }
    if config.remotes.is_empty() {
        tell("servers", Ok("none set: only the local cache is used (CASTWORK_REMOTE sets one)".to_owned()));
    }
    let is_well = findings.iter().all(|finding| finding.outcome.is_ok());
    if json {
        let list: Vec<_> = findings.iter().map(Finding::json).collect();
        print(&format!("{:#}\n", json!({ "ok": is_well, "checks": list })));
    }
    u8::from(!is_well)
}

impl Finding {
    fn line(&self) -> String {
        match &self.outcome {
            Ok(text) => format!("ok    {}: {text}\n", self.about),
            Err((text, hint)) => format!("FAIL  {}: {text}\n      hint: {hint}\n", self.about),
        }
    }

    fn json(&self) -> serde_json::Value {
        match &self.outcome {
            Ok(text) => json!({ "check": self.about, "ok": true, "text": text }),
            Err((text, hint)) => json!({ "check": self.about, "ok": false, "text": text, "hint": hint }),
        }
    }
}

/// What came of a try: in words, or what is wrong with what to do about it.
pub type Outcome = Result<String, (String, &'static str)>;

fn local_cache(config: &Config) -> Outcome {
    let folder = config.dir.join("cache");
    let try_out = || -> Result<u64, TierError> {
        let tier = FolderTier::open(&folder, config.max_size_bytes).map_err(TierError::at("open"))?;
        let probe = Answer::of_object("doctor".into(), "".into(), "".into());
        let action = Digest::of(DigestFunction::Sha256, b"castwork doctor");
        tier.put(&action, &probe)?;
        if tier.get(&action)? != Some(probe) {
            return Err(TierError::Unfit("what was written is not there"));
        }
        Ok(tier.usage_bytes())
    };
    match try_out() {
        Ok(bytes) => Ok(format!("{} holds {:.1} MB", folder.display(), to_float(bytes) / 1e6)),
        Err(error) => {
            let hint = "set CASTWORK_DIR to a folder that can be written";
            Err((format!("{}: {}", folder.display(), chain(&error)), hint))
        }
    }
}

fn compiler() -> Result<PathBuf, (String, &'static str)> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = COMPILERS.iter().find_map(|name| resolve::find(name, &search, Path::new("/")));
    let hint = "install gcc or clang, or put it on PATH";
    let found = found.ok_or_else(|| ("none on PATH".to_owned(), hint))?;
    found.compiler.map_err(|reason| {
        (
            format!("{}: {reason}", found.program.display()),
            "calls of this compiler are passed through as they are",
        )
    })
}

fn remote(config: &Config, entry: &RemoteEntry, compiler: Option<&Path>) -> Vec<(String, Outcome)> {
    match &entry.address {
        Address::Folder(folder) => {
            let opened = FolderTier::of_others(folder, entry.is_read_only);
            let text = |tier: FolderTier| format!("holds {:.1} MB", to_float(tier.usage_bytes()) / 1e6);
            let outcome =
                opened.map(text).map_err(|error| (chain(&error), "see whether the folder is mounted"));
            vec![(folder.display().to_string(), outcome)]
        }
        Address::Objects(url) => {
            let hint = "see whether it runs, and whether the address and the credentials in the environment are right";
            let tier = ObjectsTier::new(url, entry.is_read_only, config)
                .map_err(TierError::at("open the local cache"));
            let reached = tier.and_then(|tier| tier.reach()).map(|()| "reached".to_owned());
            vec![(Objects::shown(url), reached.map_err(|error| (chain(&error), hint)))]
        }
        Address::Server { address, .. } => {
            let Some(server) = Server::new(&entry.address, config) else { return Vec::new() };
            let mut findings = vec![(address.clone(), reach(&server))];
            if findings[0].1.is_ok() && !entry.is_read_only {
                let outcome = match compiler {
                    Some(compiler) => compile_there(config, &server, compiler, None),
                    None => Err(("no compiler to try".to_owned(), "install gcc or clang")),
                };
                findings.push((format!("{address}: a compile"), outcome));
            }
            findings
        }
    }
}

/// Asks a server what it is.
fn reach(server: &Server) -> Outcome {
    let hint = "see whether the server runs, and whether CASTWORK_REMOTE and CASTWORK_TOKEN are right";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (error.to_string(), hint))?;
    let asked = runtime.block_on(async {
        let remote = server.connect()?;
        remote.capabilities().await.map(|known| {
            let version = |version: &Option<castwork_proto::semver::SemVer>| {
                version
                    .as_ref()
                    .map_or_else(|| "?".to_owned(), |version| format!("{}.{}", version.major, version.minor))
            };
            let message = &known.message;
            let (low, high) = (version(&message.low_api_version), version(&message.high_api_version));
            let executes = match (known.executes(), known.has_workers) {
                (true, true) => "runs actions",
                (true, false) => "is a cache as long as no workers come",
                (false, _) => "is a cache only",
            };
            let takes = if known.takes_results() { "takes results" } else { "takes no results" };
            format!("reached; API {low} to {high}; {executes}; {takes}")
        })
    });
    asked.map_err(|error| (chain(&error), hint))
}

/// The flag for a target like this machine, for compilers that need one.
pub fn own_target() -> String {
    format!("--target={}-linux-gnu", std::env::consts::ARCH)
}

/// Compiles something that nobody has compiled yet on a worker, and compares.
pub fn compile_there(config: &Config, server: &Server, compiler: &Path, mode: Option<Mode>) -> Outcome {
    let hint =
        "see `castwork-worker --help`: a worker of this platform has to be attached, and confine its actions";
    let folder =
        tempfile::tempdir().map_err(|error| (error.to_string(), "see whether TMPDIR can be written"))?;
    let text = format!(
        "/* {} */\n#include <stddef.h>\nsize_t doctor(void) {{ return sizeof(size_t); }}\n",
        uuid::Uuid::new_v4()
    );
    let prepared = std::env::set_current_dir(folder.path())
        .and_then(|()| std::fs::write("doctor.c", text))
        .map_err(|error| error.to_string())
        .and_then(|()| {
            let config = Config { project_root: Some(folder.path().to_owned()), ..config.clone() };
            // Those of many tools compile for a target that is named.
            let target = own_target();
            let first = mode.map(|mode| [mode.word(), &target]).into_iter().flatten();
            let words = first.chain(["-O1", "-c", "doctor.c", "-o", "doctor.o"]);
            let words: Vec<OsString> = words.map(Into::into).collect();
            let prepared = Prepared::new(&config, compiler, &words).map_err(|reason| reason.to_string())?;
            let ran = run::run(compiler, &words).map_err(|error| error.to_string())?;
            if ran.status.success() { Ok(prepared) } else { Err("the compiler fails here".to_owned()) }
        })
        .map_err(|what| (what, "see whether this compiler works by itself"))?;
    let here = std::fs::read("doctor.o").map_err(|error| (error.to_string(), hint))?;
    // Other processes' experience with this server is not what is asked about.
    let tier = ServerTier::new(server.clone(), folder.path());
    let executes = tier.capabilities().map_err(|error| (chain(&error), hint))?.0;
    if !executes {
        return Ok("not tried, since the server has no workers".to_owned());
    }
    match tier.execute(&prepared.action.digest, &prepared.inputs()) {
        Ok(answer) if answer.object().is_some_and(|object| *object == here) => {
            Ok("came back byte for byte as compiled here".to_owned())
        }
        Ok(_) => Err((
            "came back with other bytes than compiled here".to_owned(),
            "please report this: nothing wrong should ever be cached",
        )),
        Err(error) => Err((chain(&error), hint)),
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
