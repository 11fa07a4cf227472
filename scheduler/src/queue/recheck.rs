//! [`Recheck`]: runs a sample of actions once more, elsewhere, to find actions whose results can't be repeated and
//! workers whose results others don't get.
//!
//! Two results that differ don't say who is wrong, so a third worker is asked, if there is one: whoever stands alone
//! then is suspected, and what the other two agree on takes the place of a result of the suspect's.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use castwork_cas::ActionKey;
use castwork_proto::reapi::ActionResult;

use super::retry::mixed;
use super::spare::Purpose;
use super::{Effect, LeaseId, Moment, Origin, Queue, Report, Response, Spec, WorkerId};

/// Actions that wait to be run once more, at most; others are left out then.
const WAITING_MAX: usize = 256;
/// Findings that are remembered, at most.
const FINDINGS_MAX: usize = 256;
/// Workers that may fail to run an action once more before it is let be.
const TRIES_MAX: u8 = 3;
/// Paths that a finding names, at most.
const PATHS_MAX: usize = 5;

/// What running actions again has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The action.
    pub key: ActionKey,
    /// When it was found.
    pub at: Moment,
    /// Whose fault it seems to be.
    pub verdict: Verdict,
    /// Outputs that differ, or `exit code`; some of them.
    pub differences: Vec<String>,
}

/// Why results of one action differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The action's: each run has a result of its own.
    NotRepeatable,
    /// That of the worker of this name: two others agree.
    Suspect(Arc<str>),
    /// Unknown: these two workers differ, and there is no third.
    Disagreement([Arc<str>; 2]),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRepeatable => {
                f.write_str("the action can't be repeated, each run had a result of its own")
            }
            Self::Suspect(name) => write!(f, "worker `{name}` is suspected, for two others agree"),
            Self::Disagreement([one, other]) => {
                write!(f, "workers `{one}` and `{other}` disagree, and there was no third")
            }
        }
    }
}

/// How often results were compared, and how that came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecheckTally {
    /// With the same result.
    pub same: u64,
    /// With another result: the action's fault.
    pub not_repeatable: u64,
    /// With another result: one worker's fault.
    pub suspect: u64,
    /// With another result, for no known reason.
    pub disagreement: u64,
}

/// An action that is run once more.
#[derive(Clone, Debug)]
struct Recheck {
    key: ActionKey,
    spec: Spec,
    origin: Arc<Origin>,
    /// The result that clients got, and then what another worker made of it.
    results: Vec<(WorkerId, Response)>,
    /// How often a worker could not run it.
    failures: u8,
}

/// The actions that are run once more, and what that has shown.
#[derive(Default)]
pub(super) struct Rechecks {
    waiting: VecDeque<Recheck>,
    running: BTreeMap<LeaseId, Recheck>,
    pub(super) findings: VecDeque<Finding>,
    /// How many results could have been sampled.
    seen: u64,
}

impl Rechecks {
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

impl Queue {
    /// Takes a result for the sample, if it is its turn.
    pub(super) fn sample(
        &mut self,
        key: &ActionKey,
        spec: Option<&Spec>,
        origin: &Arc<Origin>,
        worker: WorkerId,
        response: &Response,
    ) {
        let Some(spec) = spec.filter(|spec| spec.mergeable) else { return };
        let is_good = response.status.as_ref().is_none_or(|status| status.code == 0)
            && response.result.as_ref().is_some_and(|result| result.exit_code == 0);
        if !is_good || self.limits.recheck_per_million == 0 {
            return;
        }
        self.rechecks.seen += 1;
        let lot = mixed(self.incarnation ^ self.rechecks.seen) % 1_000_000;
        if lot < u64::from(self.limits.recheck_per_million) && self.rechecks.waiting.len() < WAITING_MAX {
            let results = vec![(worker, Arc::clone(response))];
            let (spec, origin) = (spec.clone(), Arc::clone(origin));
            let recheck = Recheck { key: key.clone(), spec, origin, results, failures: 0 };
            self.rechecks.waiting.push_back(recheck);
        }
    }

    /// Runs actions of the sample where there is room that nobody wants.
    pub(super) fn recheck_some(&mut self) {
        for _ in 0..self.rechecks.waiting.len() {
            if self.spare.len() >= self.limits.spare_max {
                return;
            }
            let Some(recheck) = self.rechecks.waiting.pop_front() else { return };
            match self.room_for_recheck(&recheck) {
                Room::At(worker) => self.begin_recheck(worker, recheck),
                Room::Later => self.rechecks.waiting.push_back(recheck),
                Room::Nowhere => self.conclude_without_third(&recheck),
            }
        }
    }

    fn room_for_recheck(&self, recheck: &Recheck) -> Room {
        let asked = |id: &WorkerId| recheck.results.iter().any(|(worker, _)| worker == id);
        if let Some(worker) = self.spare_room(&recheck.spec, asked) {
            return Room::At(worker);
        }
        let tried: Vec<_> = recheck.results.iter().map(|(worker, _)| *worker).collect();
        if self.workers.has_another(&recheck.spec.needs, &tried) {
            return Room::Later;
        }
        match recheck.results.len() {
            // The same worker again finds at least what can't be repeated.
            1 if self.workers.has_another(&recheck.spec.needs, &[]) => {
                self.spare_room(&recheck.spec, |_| false).map_or(Room::Later, Room::At)
            }
            _ => Room::Nowhere,
        }
    }

    fn begin_recheck(&mut self, worker: WorkerId, recheck: Recheck) {
        let lease = self.new_lease();
        let demand = recheck.spec.needs.demand.clone();
        self.effect(Effect::Grant {
            worker,
            lease,
            key: recheck.key.clone(),
            timeout: recheck.spec.timeout,
            memory_bytes: demand.memory_bytes,
            origin: recheck.origin.clone(),
        });
        self.spare.insert(lease, (worker, Purpose::Recheck));
        self.rechecks.running.insert(lease, recheck);
        self.workers.change(worker, |worker| worker.hold(lease, None, demand));
    }

    /// Whether a worker has a lease that is one of these.
    pub(super) fn is_recheck_of(&self, worker: WorkerId, lease: LeaseId) -> bool {
        self.rechecks.running.contains_key(&lease)
            && self.spare.get(&lease).is_some_and(|(holder, _)| *holder == worker)
    }

    /// Takes a run away from its worker.
    pub(super) fn take_recheck(&mut self, lease: LeaseId) -> bool {
        self.remove_recheck(lease).is_some()
    }

    fn remove_recheck(&mut self, lease: LeaseId) -> Option<Recheck> {
        let recheck = self.rechecks.running.remove(&lease)?;
        if let Some((worker, _)) = self.spare.remove(&lease) {
            self.workers.change(worker, |worker| worker.let_go(lease));
        }
        Some(recheck)
    }

    /// Takes a run away from its worker, to be made later.
    pub(super) fn postpone_recheck(&mut self, lease: LeaseId) {
        if let Some(recheck) = self.remove_recheck(lease) {
            self.make_later(recheck);
        }
    }

    fn make_later(&mut self, recheck: Recheck) {
        if self.rechecks.waiting.len() < WAITING_MAX {
            self.rechecks.waiting.push_back(recheck);
        }
    }

    /// Compares what came of a run with what was there before.
    pub(super) fn rechecked(&mut self, worker: WorkerId, lease: LeaseId, report: Report) {
        self.effect(Effect::Keep(worker, lease));
        let Some(mut recheck) = self.remove_recheck(lease) else { return };
        match report {
            Report::Final(response) if response.result.is_some() => {
                recheck.results.push((worker, response));
                self.compare(recheck);
            }
            Report::Retry(cause) => self.could_not_recheck(worker, recheck, &cause),
            // What can't be run any more, as its inputs are gone for instance, shows nothing.
            Report::Final(_) | Report::OutOfMemory(_) => {}
        }
        self.place_worker(worker);
    }

    /// Notes that a worker could not run an action for no fault of the action. One that is tried again has failed the
    /// trial: it would be given all that waits to be compared otherwise, and lose it.
    fn could_not_recheck(&mut self, worker: WorkerId, mut recheck: Recheck, cause: &str) {
        if !self.workers.get(worker).is_some_and(|worker| worker.draining) {
            self.blame_trial(worker, cause);
        }
        recheck.failures += 1;
        if recheck.failures < TRIES_MAX {
            self.make_later(recheck);
        }
    }

    fn compare(&mut self, recheck: Recheck) {
        let same = |one: usize, other: usize| {
            differences(&recheck.results[one].1, &recheck.results[other].1).is_empty()
        };
        match recheck.results.len() {
            2 if same(0, 1) => {
                self.tally.rechecks.same += 1;
                // That is as good as an action for somebody who waits: a worker that is tried again has passed.
                self.praise(recheck.results[1].0);
            }
            2 if recheck.results[0].0 == recheck.results[1].0 => {
                self.conclude(&recheck, Verdict::NotRepeatable);
            }
            2 => self.rechecks.waiting.push_back(recheck),
            _ if same(0, 2) => self.suspect(&recheck, 1),
            _ if same(1, 2) => {
                self.suspect(&recheck, 0);
                self.correct(&recheck);
            }
            _ => self.conclude(&recheck, Verdict::NotRepeatable),
        }
    }

    fn conclude_without_third(&mut self, recheck: &Recheck) {
        if let [(one, _), (other, _)] = recheck.results[..] {
            let names = [self.name_of(one), self.name_of(other)];
            self.conclude(recheck, Verdict::Disagreement(names));
        }
    }

    fn suspect(&mut self, recheck: &Recheck, index: usize) {
        let (worker, _) = recheck.results[index];
        let name = self.name_of(worker);
        self.conclude(recheck, Verdict::Suspect(name));
        self.distrust(worker);
    }

    /// Has what two workers agree on take the place of the result that clients got.
    fn correct(&mut self, recheck: &Recheck) {
        let (worker, response) = &recheck.results[1];
        let correct = Effect::Correct {
            key: recheck.key.clone(),
            response: Arc::clone(response),
            origin: Arc::clone(&recheck.origin),
            worker_name: self.name_of(*worker),
        };
        self.effect(correct);
    }

    fn conclude(&mut self, recheck: &Recheck, verdict: Verdict) {
        let tally = &mut self.tally.rechecks;
        match verdict {
            Verdict::NotRepeatable => tally.not_repeatable += 1,
            Verdict::Suspect(_) => tally.suspect += 1,
            Verdict::Disagreement(_) => tally.disagreement += 1,
        }
        let differences = differences(&recheck.results[0].1, &recheck.results[1].1);
        let finding = Finding { key: recheck.key.clone(), at: self.now, verdict, differences };
        self.effect(Effect::Found(finding.clone()));
        self.rechecks.findings.push_back(finding);
        if self.rechecks.findings.len() > FINDINGS_MAX {
            self.rechecks.findings.pop_front();
        }
    }

    fn name_of(&self, worker: WorkerId) -> Arc<str> {
        self.workers.get(worker).map_or_else(|| worker.to_string().into(), |worker| worker.offer.name.clone())
    }
}

/// Where an action can be run once more.
enum Room {
    At(WorkerId),
    Later,
    Nowhere,
}

/// Outputs, by path, that two results do not have in common; `exit code` if it is that. What a command says may
/// hold times, and does not count.
fn differences(one: &Response, other: &Response) -> Vec<String> {
    let (Some(one), Some(other)) = (&one.result, &other.result) else { return Vec::new() };
    let (mine, theirs) = (outputs(one), outputs(other));
    let paths = mine.keys().chain(theirs.keys().filter(|path| !mine.contains_key(*path)));
    let differing = paths.filter(|path| mine.get(*path) != theirs.get(*path)).map(|path| (*path).to_owned());
    let code = (one.exit_code != other.exit_code).then(|| "exit code".to_owned());
    code.into_iter().chain(differing).take(PATHS_MAX).collect()
}

/// What is at each path: a hash, or where a link points.
fn outputs(result: &ActionResult) -> BTreeMap<&str, (&str, bool)> {
    let files = result.output_files.iter().map(|file| {
        let hash = file.digest.as_ref().map_or("", |digest| digest.hash.as_str());
        (file.path.as_str(), (hash, file.is_executable))
    });
    let directories = result.output_directories.iter().map(|directory| {
        let digest = directory.tree_digest.as_ref().or(directory.root_directory_digest.as_ref());
        (directory.path.as_str(), (digest.map_or("", |digest| digest.hash.as_str()), false))
    });
    let links = result.output_symlinks.iter().map(|link| (link.path.as_str(), (link.target.as_str(), false)));
    files.chain(directories).chain(links).collect()
}
