//! The wrapper with nothing but an object store, or folders, behind it: no server of ours.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use castwork_tests::{binary, finish, have};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::gha::Gha;
use crate::redis::Redis;
use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// Files, unless `CASTWORK_TESTS_FILES` says another number.
const FILES: usize = 3;

/// Far above what a compile takes.
const COMPILE_MAX: Duration = Duration::from_secs(120);

/// A folder of small C files, and what their objects have to be.
struct Code {
    files: usize,
    folder: TempDir,
    plain: Vec<Vec<u8>>,
}

impl Code {
    /// Writes and compiles them. `None` if there is no compiler; the test is skipped then.
    fn new(test: &str) -> Option<Self> {
        if !have(test, "gcc") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let files = env::var("CASTWORK_TESTS_FILES").map_or(FILES, |text| text.parse().unwrap());
        for file in 0..files {
            let text = format!("#include <stddef.h>\nsize_t f{file}(void) {{ return {file}; }}\n");
            fs::write(folder.path().join(format!("n{file}.c")), text).unwrap();
        }
        let mut code = Self { files, folder, plain: Vec::new() };
        code.plain =
            (0..files).map(|file| code.object(Command::new("gcc"), file, code.folder.path())).collect();
        Some(code)
    }

    fn object(&self, mut command: Command, file: usize, folder: &Path) -> Vec<u8> {
        let object = folder.join("out.o");
        command.current_dir(&self.folder).args(["-O1", "-c", &format!("n{file}.c"), "-o"]).arg(&object);
        finish(command, COMPILE_MAX).must_succeed("a compile");
        fs::read(object).unwrap()
    }

    /// Compiles all through the wrapper with an empty local cache; the counters.
    fn compile(&self, variables: &[(&str, &str)]) -> Counts {
        self.compile_and(variables, &[])
    }

    /// As [`Code::compile`], and then calls the wrapper with `last`.
    fn compile_and(&self, variables: &[(&str, &str)], last: &[&str]) -> Counts {
        let home = tempfile::tempdir().unwrap();
        let castwork = || {
            let mut command = Command::new(binary("castwork"));
            command.env("HOME", home.path()).env("CASTWORK_DIR", home.path().join("cache"));
            command.env_remove("XDG_CONFIG_HOME").env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
            command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).envs(variables.iter().copied());
            command
        };
        for (file, plain) in self.plain.iter().enumerate() {
            let mut command = castwork();
            command.arg("gcc");
            assert!(self.object(command, file, home.path()) == *plain, "another object with {variables:?}");
        }
        if !last.is_empty() {
            let mut command = castwork();
            command.args(last);
            finish(command, COMPILE_MAX).must_succeed("the last call");
        }
        let stats = castwork().args(["stats", "--json"]).output().unwrap();
        Counts(serde_json::from_slice(&stats.stdout).unwrap())
    }

    /// Nobody has it; then everybody.
    fn is_compiled_once(&self, variables: &[(&str, &str)]) {
        let counts = self.compile(variables);
        assert_eq!([counts.of("local_runs"), counts.of("fallbacks")], [self.files, 0], "{}", counts.0);
        let counts = self.compile(variables);
        assert_eq!([counts.of("remote_hits"), counts.of("fallbacks")], [self.files, 0], "{}", counts.0);
        assert_eq!(counts.of("preprocessed"), 0, "manifests are kept too: {}", counts.0);
    }
}

struct Counts(Value);

impl Counts {
    fn of(&self, name: &str) -> usize {
        usize::try_from(self.0[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {}", self.0))).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_enough_for_hits_on_another_machine() {
    let Some(code) = Code::new("the wrapper with a bucket") else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path()).await;
    let url = server.url("team");
    block_in_place(|| code.is_compiled_once(&[("CASTWORK_REMOTE", &url)]));

    // The same from a file, and read-only: what is there is found, and nothing is added.
    let file = folder.path().join("castwork.toml");
    fs::write(&file, format!("remote = [\"{}&mode=ro\"]\n", server.url("other"))).unwrap();
    let variables = [("CASTWORK_CONFIG", file.to_str().unwrap())];
    let counts = block_in_place(|| (code.compile(&variables), code.compile(&variables))).1;
    assert_eq!([counts.of("local_runs"), counts.of("remote_hits")], [code.files, 0], "{}", counts.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_enough_for_hits_on_another_machine() {
    let Some(code) = Code::new("the wrapper with Redis") else { return };
    if !have("the wrapper with Redis", "redis-server") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path());
    block_in_place(|| code.is_compiled_once(&[("CASTWORK_REMOTE", &redis.url())]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn githubs_cache_is_enough_for_hits_in_the_next_job_and_many_share_an_upload() {
    let Some(code) = Code::new("the wrapper with GitHub's cache") else { return };
    let server = Gha::start().await;
    let variables = server.variables();
    let mut variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("CASTWORK_REMOTE", "gha:team"));
    let counts = block_in_place(|| code.compile_and(&variables, &["upload"]));
    assert_eq!([counts.of("local_runs"), counts.of("fallbacks")], [code.files, 0], "{}", counts.0);
    // An answer and a manifest for each file, 400 to a pack, a pack and an entry each time.
    let (uploads, packs) = (server.uploads(), (2 * code.files).div_ceil(400));
    assert!(uploads == 2 * packs, "{uploads} uploads for {} files", code.files);

    let counts = block_in_place(|| code.compile_and(&variables, &["upload"]));
    // What comes with the first hit is local from then on.
    assert!(counts.of("remote_hits") >= 1, "{}", counts.0);
    let seen = [counts.of("remote_hits") + counts.of("local_hits"), counts.of("fallbacks")];
    assert_eq!(seen, [code.files, 0], "{}", counts.0);
    assert_eq!(server.uploads(), uploads, "nothing is new");
}

#[test]
fn a_read_only_folder_behind_a_writable_one_gives_hits_and_is_left_as_it_is() {
    let Some(code) = Code::new("the wrapper with folders") else { return };
    let [shared, own] = ["shared", "own"].map(|name| code.folder.path().join(name));
    let url = |folder: &Path| format!("file://{}", folder.display());
    code.is_compiled_once(&[("CASTWORK_REMOTE", &url(&shared))]);
    // Long ago, and one is torn: whoever may write would note the use, and remove what is torn.
    let before = files(&shared);
    let (torn, _) = before.iter().max_by_key(|(_, (_, bytes))| bytes.len()).unwrap();
    fs::remove_file(torn).unwrap();
    fs::write(torn, "torn").unwrap();
    for path in before.keys() {
        let file = fs::File::options().read(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }
    let before = files(&shared);

    let both = format!("{},{}?mode=ro", url(&own), url(&shared));
    let counts = code.compile(&[("CASTWORK_REMOTE", &both)]);
    assert_eq!([counts.of("remote_hits"), counts.of("local_runs")], [code.files - 1, 1], "{}", counts.0);
    assert!(files(&shared) == before, "the read-only folder was changed");
    let counts = code.compile(&[("CASTWORK_REMOTE", &both)]);
    assert_eq!(counts.of("remote_hits"), code.files, "what was missing is in the writable one: {}", counts.0);

    let gone = format!("{}?mode=ro", url(&code.folder.path().join("not mounted")));
    let counts = code.compile(&[("CASTWORK_REMOTE", &gone)]);
    assert_eq!([counts.of("local_runs"), counts.of("fallbacks")], [code.files, code.files], "{}", counts.0);
}

/// Every file below a folder, with the time of its last change and what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), (metadata.modified().unwrap(), fs::read(path).unwrap()));
        }
    }
    found
}

/// Answers whatever is asked with the same bytes; with none, it takes connections and stays silent.
fn says(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                while stream.read(&mut room).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn stores_that_are_dead_silent_or_talk_nonsense_break_no_build() {
    let Some(code) = Code::new("the wrapper with broken stores") else { return };
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let troubles = [
        ("dead", dead),
        ("silent", says(b"")),
        ("nonsense", says(&[0xa5; 512])),
        ("broken", says(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")),
    ];
    std::thread::scope(|scope| {
        for (trouble, address) in troubles {
            for url in [
                format!("s3://bucket/prefix?endpoint=http://{address}"),
                format!("redis://{address}/1/prefix"),
                format!("webdav+http://{address}/prefix"),
                "gha:prefix".to_owned(),
            ] {
                let code = &code;
                scope.spawn(move || is_no_help(code, trouble, address, &url));
            }
        }
    });
    // One that gives the right answers, but not what was put.
    let wrong = says(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense");
    for url in [format!("s3://b/p?endpoint=http://{wrong}"), format!("webdav+http://{wrong}/p")] {
        let counts = code.compile(&[("CASTWORK_REMOTE", &url)]);
        assert_eq!(
            [counts.of("local_runs"), counts.of("remote_hits")],
            [code.files, 0],
            "{url}: {}",
            counts.0
        );
    }
}

/// Everything is compiled here, and the first call, which has waited, tells the others.
fn is_no_help(code: &Code, trouble: &str, address: SocketAddr, url: &str) {
    let results = format!("http://{address}/");
    let counts = code.compile(&[
        ("CASTWORK_REMOTE", url),
        ("ACTIONS_RUNTIME_TOKEN", "token"),
        ("ACTIONS_RESULTS_URL", &results),
        ("ACTIONS_CACHE_SERVICE_V2", "true"),
    ]);
    let seen = ["local_runs", "fallbacks"].map(|name| counts.of(name));
    assert_eq!(seen, [code.files, code.files], "{trouble}: {url}: {}", counts.0);
    let warned = counts.0["reasons"]["object store that was down a moment ago"].as_u64();
    assert!(warned >= Some(1), "{trouble}: {url}: {}", counts.0);
}
