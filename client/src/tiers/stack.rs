//! [`Stack`]: the tiers of a call, in the order in which they are asked.

use std::path::Path;
use std::time::Duration;

use castwork_cas::Digest;
use castwork_trace::Kind;

use super::{Answer, FolderTier, ObjectsTier, Server, ServerTier, TierError};
use crate::config::{Address, Config, RemoteEntry};
use crate::counters::Configuration;
use crate::direct::Manifest;
use crate::direct::key::ManifestKey;
use crate::reason::Reason;
use crate::slots::{Slot, Slots};
use crate::spans;
use crate::why::{Account, Accounts, Last};

/// A tier beyond the local one.
pub enum Remote {
    /// A folder, of a network file system for instance.
    Folder(FolderTier),
    /// A server.
    Server(Box<ServerTier>),
    /// An object store.
    Objects(Box<ObjectsTier>),
}

impl Remote {
    fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        match self {
            Self::Folder(tier) => tier.get(action),
            Self::Server(tier) => spans::part("look it up", Kind::Client, || tier.get(action)),
            Self::Objects(tier) => spans::part("look it up", Kind::Client, || tier.get(action)),
        }
    }

    fn manifest(&self, key: &ManifestKey) -> Result<Option<Manifest>, TierError> {
        match self {
            Self::Folder(tier) => tier.manifest(&key.digest),
            Self::Server(tier) => spans::part("look up the call", Kind::Client, || tier.manifest(key)),
            Self::Objects(tier) => {
                spans::part("look up the call", Kind::Client, || tier.manifest(&key.digest))
            }
        }
    }

    /// Whether it was taken.
    fn put_manifest(&self, key: &ManifestKey, manifest: &Manifest) -> Result<bool, TierError> {
        match self {
            Self::Folder(tier) => tier.put_manifest(&key.digest, manifest).map(|()| true),
            Self::Objects(tier) => tier.put_manifest(&key.digest, manifest),
            Self::Server(tier) => {
                let (_, takes_results) = tier.capabilities()?;
                if takes_results {
                    tier.put_manifest(key, manifest)?;
                }
                Ok(takes_results)
            }
        }
    }
}

/// The local tier and those beyond, and what went wrong with them.
pub struct Stack<'a> {
    config: &'a Config,
    /// What is built; servers are told.
    configuration: &'a Configuration,
    local: Option<FolderTier>,
    /// The servers and folders beyond, in order, and whether nothing may be written there; those that failed are
    /// gone. `None` until they are needed.
    remotes: Option<Vec<(Remote, bool)>>,
    /// What has to be counted beside where the answer came from.
    pub reasons: Vec<Reason>,
    /// Whether a remote tier failed.
    pub has_fallen_back: bool,
    /// Whether the answer from elsewhere is none for this place, so that asking for it again is of no use.
    pub is_foreign: bool,
}

impl<'a> Stack<'a> {
    /// Opens the local tier.
    pub fn new(config: &'a Config, configuration: &'a Configuration) -> Self {
        let mut reasons = Vec::new();
        let local = match FolderTier::open(&config.dir.join("cache"), config.max_size_bytes) {
            Ok(tier) => Some(tier),
            Err(error) => {
                tracing::debug!(%error, "no local cache");
                reasons.push("local cache can't be opened".into());
                None
            }
        };
        Self {
            config,
            configuration,
            local,
            remotes: None,
            reasons,
            has_fallen_back: false,
            is_foreign: false,
        }
    }

    /// The answer of the local tier.
    pub fn local_answer(&mut self, action: &Digest) -> Option<Answer> {
        spans::say_action(action);
        let found = self.local.as_ref()?.get(action);
        self.local_found(found)
    }

    /// The manifest of the local tier.
    pub fn local_manifest(&mut self, key: &ManifestKey) -> Option<Manifest> {
        let found = self.local.as_ref()?.manifest(&key.digest);
        self.local_found(found)
    }

    fn local_found<T>(&mut self, found: Result<Option<T>, TierError>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.reasons.push(error.reason());
            None
        })
    }

    /// Keeps an answer locally.
    pub fn keep_locally(&mut self, action: &Digest, answer: &Answer) {
        spans::say_action(action);
        let Some(local) = &self.local else { return };
        if let Err(error) = local.put(action, answer) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a result isn't kept");
            self.reasons.push(Reason::of(format!("not kept locally: {}", error.reason())));
        }
    }

    /// Keeps an account of a compile that was no hit, to explain it by.
    pub fn keep_account(&mut self, account: Account) {
        let Some(local) = &self.local else { return };
        let key = Accounts::key(&account.source);
        let mut accounts = local.accounts(&key).ok().flatten().unwrap_or_default();
        accounts.add(account);
        match local.put_accounts(&key, &accounts) {
            Ok(()) => Last::Compile(key.to_string()).note(&self.config.dir),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "an account isn't kept");
            }
        }
    }

    /// Keeps a manifest locally.
    pub fn keep_manifest_locally(&mut self, key: &ManifestKey, manifest: &Manifest) {
        let Some(local) = &self.local else { return };
        if let Err(error) = local.put_manifest(&key.digest, manifest) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a manifest isn't kept");
            self.reasons.push(Reason::of(format!("not kept locally: {}", error.reason())));
        }
    }

    /// Asks each remote tier in order for an answer; those that fail are not asked again.
    pub fn remote_answer(&mut self, action: &Digest) -> Option<Answer> {
        self.ask_remotes(|remote| remote.get(action))
    }

    /// Asks each remote tier in order for a manifest in which something fits.
    pub fn remote_manifest(
        &mut self,
        key: &ManifestKey,
        mut fits: impl FnMut(&Manifest) -> bool,
    ) -> Option<Manifest> {
        self.ask_remotes(|remote| Ok(remote.manifest(key)?.filter(&mut fits)))
    }

    fn ask_remotes<T>(&mut self, mut ask: impl FnMut(&Remote) -> Result<Option<T>, TierError>) -> Option<T> {
        let mut answer = None;
        for (remote, is_read_only) in self.take_remotes() {
            if answer.is_none() {
                match ask(&remote) {
                    Ok(found) => answer = found,
                    Err(error) => {
                        self.failed(&error);
                        continue;
                    }
                }
            }
            self.put_back(remote, is_read_only);
        }
        answer
    }

    /// Has each server that may be written to tried in order, until one gives an answer. Those that are down are not asked
    /// again.
    pub fn at_servers<T>(
        &mut self,
        mut run: impl FnMut(&ServerTier, &mut Self) -> Result<Option<T>, TierError>,
    ) -> Option<T> {
        let mut answer = None;
        for (remote, is_read_only) in self.take_remotes() {
            if let (Remote::Server(tier), false, None) = (&remote, is_read_only, &answer) {
                match run(tier, self) {
                    Ok(ran) => answer = ran,
                    Err(error) => {
                        self.failed(&error);
                        if error.is_down() {
                            continue;
                        }
                    }
                }
            }
            self.put_back(remote, is_read_only);
        }
        answer
    }

    /// Has the first server that runs actions run one, unless it is bound to this machine for a reason; `run` may find that
    /// there is none after all.
    pub fn run_elsewhere<T>(
        &mut self,
        bound: Option<&Reason>,
        mut run: impl FnMut(&ServerTier) -> Result<Option<T>, TierError>,
    ) -> Option<T> {
        self.at_servers(|tier, stack| {
            if let Some(reason) = bound {
                stack.reasons.push(Reason::of(format!("run here: {reason}")));
                return Ok(None);
            }
            if !tier.may_execute() {
                stack.fell_back("server that refused to run this a moment ago".into());
                return Ok(None);
            }
            let (executes, _) = tier.capabilities()?;
            if !executes {
                return Ok(None);
            }
            spans::part("have it run", Kind::Client, || run(tier))
        })
    }

    /// Gives something to the first remote tier that takes it; `put` says whether one did.
    pub fn keep_remotely(&mut self, mut put: impl FnMut(&Remote) -> Result<bool, TierError>) {
        let mut is_taken = false;
        for (remote, is_read_only) in self.take_remotes() {
            if !is_read_only && !is_taken {
                match put(&remote) {
                    Ok(taken) => is_taken = taken,
                    Err(error) => {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "a result isn't kept remotely"
                        );
                        self.reasons.push(Reason::of(format!("not kept remotely: {}", error.reason())));
                        continue;
                    }
                }
            }
            self.put_back(remote, is_read_only);
        }
    }

    /// Amends the manifests of the local tier, and of the first remote one that takes it.
    pub fn amend_manifests(&mut self, key: &ManifestKey, remotely: bool, amend: impl Fn(&mut Manifest)) {
        if remotely {
            self.keep_remotely(|remote| {
                let mut manifest = remote.manifest(key)?.unwrap_or_default();
                amend(&mut manifest);
                remote.put_manifest(key, &manifest)
            });
        }
        let mut manifest = self.local_manifest(key).unwrap_or_default();
        amend(&mut manifest);
        self.keep_manifest_locally(key, &manifest);
    }

    /// Whether a server may be asked to run actions.
    pub fn may_run_elsewhere(&mut self) -> bool {
        let mut may_run = false;
        for (remote, is_read_only) in self.take_remotes() {
            if let (Remote::Server(tier), false) = (&remote, is_read_only) {
                match tier.capabilities() {
                    Ok((executes, _)) => may_run |= executes && tier.may_execute(),
                    Err(error) => {
                        self.failed(&error);
                        continue;
                    }
                }
            }
            self.put_back(remote, is_read_only);
        }
        may_run
    }

    /// Waits for a slot in which a compiler may run here, if a server is known to run compilers, whether or not it is there
    /// now: a build on it has more jobs than this machine has cores.
    pub fn slot_here(&self) -> Option<Slot> {
        let executes = |entry: &RemoteEntry| {
            let server = Server::new(&entry.address, self.config);
            server.is_some_and(|server| ServerTier::is_known_to_execute(&server, &self.config.dir))
        };
        let is_farmed = self.config.remotes.iter().any(|entry| !entry.is_read_only && executes(entry));
        is_farmed.then(|| Slots::new(&self.config.dir).take()).flatten()
    }

    /// Where the processes of this user meet, and how long a server has a compile to itself.
    pub fn terms_of_race(&self) -> (&'a Path, Option<Duration>) {
        (self.config.dir.as_path(), self.config.race_after)
    }

    /// Notes that a remote tier could not be used.
    pub fn fell_back(&mut self, reason: Reason) {
        self.has_fallen_back = true;
        self.reasons.push(reason);
    }

    fn failed(&mut self, error: &TierError) {
        tracing::debug!(error = error as &dyn std::error::Error, "a remote cache failed");
        self.fell_back(error.reason());
    }

    fn put_back(&mut self, remote: Remote, is_read_only: bool) {
        self.remotes.get_or_insert_default().push((remote, is_read_only));
    }

    fn take_remotes(&mut self) -> Vec<(Remote, bool)> {
        if self.remotes.is_none() {
            self.remotes = Some(Vec::new());
            for entry in &self.config.remotes {
                self.open(entry);
            }
        }
        self.remotes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Makes ready to ask a remote tier; nothing is sent yet.
    fn open(&mut self, entry: &RemoteEntry) {
        match &entry.address {
            Address::Folder(folder) => match FolderTier::of_others(folder, entry.is_read_only) {
                Ok(tier) => self.put_back(Remote::Folder(tier), entry.is_read_only),
                Err(error) => self.failed(&TierError::at("open a cache folder")(error)),
            },
            Address::Objects(url) => match ObjectsTier::new(url, entry.is_read_only, self.config) {
                Ok(tier) if tier.may_be_asked() => {
                    self.put_back(Remote::Objects(Box::new(tier)), entry.is_read_only);
                }
                Ok(_) => self.fell_back("object store that was down a moment ago".into()),
                Err(error) => self.failed(&TierError::at("open an object store")(error)),
            },
            Address::Server { .. } => {
                let Some(server) = Server::new(&entry.address, self.config) else { return };
                let server = server.building(self.configuration);
                let tier = ServerTier::new(server, &self.config.dir);
                if tier.may_be_asked() {
                    self.put_back(Remote::Server(Box::new(tier)), entry.is_read_only);
                } else {
                    self.fell_back("server that was down a moment ago".into());
                }
            }
        }
    }
}
