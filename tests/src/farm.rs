//! [`Farm`]: a scheduler and its workers, real programs on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Program, binary};

/// What a farm is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many workers.
    pub workers: usize,
    /// Slots of each.
    pub slots: usize,
    /// More arguments for the scheduler.
    pub scheduler_arguments: Vec<String>,
    /// More arguments for each worker.
    pub worker_arguments: Vec<String>,
    /// More variables in the environment of all of them.
    pub environment: Vec<(String, String)>,
    /// The address that the server listens on.
    pub host: String,
    /// What stands before the first worker's command, for it to run somewhere else on this machine.
    pub first_worker_in: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            slots: 2,
            scheduler_arguments: Vec::new(),
            worker_arguments: Vec::new(),
            environment: Vec::new(),
            host: "127.0.0.1".to_owned(),
            first_worker_in: Vec::new(),
        }
    }
}

/// A scheduler and workers, each with a data folder that outlives a restart. All of it ends, and the folders
/// go, when this is dropped.
#[derive(Debug)]
pub struct Farm {
    // Before the folder, so that the programs end before it goes.
    workers: Vec<Program>,
    scheduler: Program,
    options: Options,
    /// `IP:PORT`; the same after a restart.
    listen: String,
    http: String,
    folder: TempDir,
}

impl Farm {
    /// Starts a scheduler on a free port and `workers` workers of `slots` slots; all are ready.
    ///
    /// # Panics
    /// If anything does not start; with its log.
    pub fn start(workers: usize, slots: usize) -> Self {
        Self::with(Options { workers, slots, ..Options::default() })
    }

    /// Starts what `options` describe.
    ///
    /// # Panics
    /// As [`Farm::start`].
    pub fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let anywhere = format!("{}:0", options.host);
        let mut scheduler = start_scheduler(folder.path(), &anywhere, "127.0.0.1:0", &options);
        let ready = scheduler.ready();
        let address = |key: &str| ready[key].as_str().expect("an address in the ready file").to_owned();
        let (listen, http) = (address("grpc"), address("http"));
        let mut farm = Self { workers: Vec::new(), scheduler, options, listen, http, folder };
        for number in 0..farm.options.workers {
            let worker = farm.start_worker(number);
            farm.workers.push(worker);
        }
        for worker in &mut farm.workers {
            worker.ready();
        }
        farm
    }

    /// Where clients reach it: `grpc://IP:PORT`.
    pub fn address(&self) -> String {
        format!("grpc://{}", self.listen)
    }

    /// `127.0.0.1:PORT` of HTTP.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// A folder for the test's own files, gone with the farm.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The scheduler.
    pub fn scheduler(&mut self) -> &mut Program {
        &mut self.scheduler
    }

    /// A worker, from 0.
    pub fn worker(&mut self, number: usize) -> &mut Program {
        &mut self.workers[number]
    }

    /// Starts the scheduler again, on the same ports and data, after its end. Ready when this returns.
    ///
    /// # Panics
    /// As [`Farm::start`].
    pub fn restart_scheduler(&mut self) {
        self.scheduler = start_scheduler(self.folder.path(), &self.listen, &self.http, &self.options);
        self.scheduler.ready();
    }

    /// Starts a worker again, on the same data, after its end. Ready when this returns.
    ///
    /// # Panics
    /// As [`Farm::start`].
    pub fn restart_worker(&mut self, number: usize) {
        let mut worker = self.start_worker(number);
        worker.ready();
        self.workers[number] = worker;
    }

    fn start_worker(&self, number: usize) -> Program {
        let name = format!("worker-{number}");
        let mut words = if number == 0 { self.options.first_worker_in.clone() } else { Vec::new() };
        words.push(binary("castwork-worker").display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--scheduler")
            .arg(self.address())
            .arg("--data-dir")
            .arg(data_dir(self.folder.path(), &name))
            .arg("--slots")
            .arg(self.options.slots.to_string())
            .args(&self.options.worker_arguments)
            .envs(self.options.environment.clone());
        Program::start(command, self.folder.path(), &name)
    }
}

fn start_scheduler(folder: &Path, listen: &str, http: &str, options: &Options) -> Program {
    let mut command = Command::new(binary("castwork-scheduler"));
    command
        .args(["--listen", listen, "--http-listen", http, "--data-dir"])
        .arg(data_dir(folder, "scheduler"))
        .args(&options.scheduler_arguments)
        .envs(options.environment.clone());
    Program::start(command, folder, "scheduler")
}

fn data_dir(folder: &Path, name: &str) -> PathBuf {
    let data = folder.join(name);
    fs::create_dir_all(&data).expect("create a data folder");
    data
}
