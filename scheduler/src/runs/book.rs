//! [`Book`]: the account of all runs, without I/O or clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::asker::{Asker, Configuration};
use super::cause::Cause;
use super::file::Line;
use super::record::{PartRecord, Record, Told};

/// How much is kept, and for how long.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "each of them is a bound")]
pub(crate) struct Limits {
    /// Runs, at most; the one that was not heard of for longest makes room.
    pub(crate) runs_max: usize,
    /// A run that was not heard of for this long is forgotten.
    pub(crate) age_max: Duration,
    /// Configurations of which it is known that there was a run, at most.
    pub(crate) firsts_max: usize,
    /// Configurations of one run, at most; what is beyond counts to the last.
    pub(crate) parts_max: usize,
    /// Tellers of one part, at most.
    pub(crate) tellers_max: usize,
    /// Bytes of what clients say of one run, at most.
    pub(crate) run_told_bytes_max: usize,
    /// Bytes of what clients say of all runs, at most; the runs that were not heard of for longest make room.
    pub(crate) told_bytes_max: usize,
    /// Actions of all runs that are told apart, at most. Of runs with more, an action that is asked for twice
    /// counts twice.
    pub(crate) actions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_max: 2_000,
            age_max: Duration::from_secs(30 * 24 * 60 * 60),
            firsts_max: 20_000,
            parts_max: 16,
            tellers_max: 1_000,
            run_told_bytes_max: 4 << 20,
            told_bytes_max: 64 << 20,
            actions_max: 2_000_000,
        }
    }
}

/// Which run of which instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunKey {
    pub(crate) instance: String,
    pub(crate) run: String,
}

/// The run that was the first in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) run: String,
    /// When there was last a run in it; since the epoch of Unix.
    pub(crate) last_seen_ms: u64,
}

#[derive(Default)]
struct Run {
    record: Record,
    /// What each action came to first, by the start of its hash.
    actions: HashMap<u64, Answer>,
    /// Bytes of what clients said of it.
    told_bytes: usize,
}

/// What the cache said to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It had a result of an action that took so long.
    Hit {
        /// As long as the action took when it was run.
        saved_ms: u64,
    },
    /// It had none.
    Miss(Cause),
    /// It had none, and so the action was run for this run.
    Ran,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    /// It was answered by the cache.
    Cached {
        /// As long as the action took when it was run.
        saved_ms: u64,
    },
    /// A worker ran it.
    Ran {
        cause: Cause,
        /// Whether for another request's sake.
        is_shared: bool,
        has_failed: bool,
        took_ms: u64,
    },
    /// It has no result.
    Refused { cause: Option<Cause>, code: &'static str },
}

/// The account of all runs.
#[derive(Default)]
pub(crate) struct Book {
    limits: Limits,
    runs: HashMap<RunKey, Run>,
    firsts: HashMap<(String, Configuration), First>,
    actions: usize,
    /// Invariant: the sum of that of `runs`.
    told_bytes: usize,
    dirty_runs: BTreeSet<RunKey>,
    dirty_firsts: BTreeSet<(String, Configuration)>,
}

impl Book {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Counts what the cache said to an action: once for each action of a run.
    pub(crate) fn looked_up(&mut self, now: u64, instance: &str, asker: &Asker, action: u64, answer: Answer) {
        let mut run = self.part(now, instance, asker);
        Self::count(&mut run, action, answer);
    }

    /// Counts how an execution ended.
    pub(crate) fn executed(&mut self, now: u64, instance: &str, asker: &Asker, action: u64, end: Execution) {
        let mut run = self.part(now, instance, asker);
        match end {
            Execution::Cached { saved_ms } => {
                // It was a miss a moment ago, and somebody else ran it meanwhile.
                if let Some(Answer::Miss(cause)) = run.known.get(&action).copied()
                    && let Some(misses) = run.part.seen.misses.get_mut(&cause)
                {
                    *misses = misses.saturating_sub(1);
                    run.part.seen.misses.retain(|_, count| *count > 0);
                    run.known.remove(&action);
                    *run.actions -= 1;
                }
                Self::count(&mut run, action, Answer::Hit { saved_ms });
            }
            Execution::Ran { cause, is_shared, has_failed, took_ms } => {
                let seen = &mut run.part.seen;
                *if is_shared { &mut seen.shared } else { &mut seen.remote_runs } += 1;
                seen.failed += u64::from(has_failed);
                seen.ran_ms = seen.ran_ms.saturating_add(if is_shared { 0 } else { took_ms });
                Self::count(&mut run, action, Answer::Miss(cause));
                // However often it is asked for from now on, it was no hit.
                run.known.entry(action).and_modify(|answer| *answer = Answer::Ran);
            }
            Execution::Refused { cause, code } => {
                *run.part.seen.refused.entry(code.to_owned()).or_default() += 1;
                if let Some(cause) = cause {
                    Self::count(&mut run, action, Answer::Miss(cause));
                }
            }
        }
    }

    /// Counts a result that the client made itself.
    pub(crate) fn stored(&mut self, now: u64, instance: &str, asker: &Asker) {
        self.part(now, instance, asker).part.seen.stored += 1;
    }

    /// Counts bytes of blobs.
    pub(crate) fn moved(&mut self, now: u64, instance: &str, asker: &Asker, uploaded: u64, downloaded: u64) {
        let seen = &mut self.part(now, instance, asker).part.seen;
        seen.bytes_uploaded += uploaded;
        seen.bytes_downloaded += downloaded;
    }

    /// Takes what a client says, instead of what it said before. `false` if there is no room for one more
    /// teller.
    pub(crate) fn told(&mut self, now: u64, instance: &str, asker: &Asker, teller: &str, told: Told) -> bool {
        let (tellers_max, bytes_max) = (self.limits.tellers_max, self.limits.run_told_bytes_max);
        let run = self.part(now, instance, asker);
        let tellers = &mut run.part.told;
        let before = tellers.get(teller).map_or(0, Told::bytes);
        let after = *run.told_bytes - before + told.bytes();
        let has_room = tellers.len() < tellers_max || tellers.contains_key(teller);
        if !has_room || after > bytes_max {
            return false;
        }
        tellers.insert(teller.to_owned(), told);
        *run.all_told_bytes = *run.all_told_bytes - *run.told_bytes + after;
        *run.told_bytes = after;
        self.forget_told();
        true
    }

    /// Forgets runs as long as clients have said more than is kept.
    fn forget_told(&mut self) {
        while self.told_bytes > self.limits.told_bytes_max {
            let said = self.runs.iter().filter(|(_, run)| run.told_bytes > 0);
            let oldest = said.min_by_key(|(_, run)| run.record.last_seen_ms).map(|(key, _)| key.clone());
            let Some((key, run)) = oldest.and_then(|key| self.runs.remove_entry(&key)) else { return };
            self.told_bytes -= run.told_bytes;
            self.actions -= run.actions.len();
            self.dirty_runs.remove(&key);
        }
    }

    /// What is known of a run; names the project and the platform of parts whose client did not.
    pub(crate) fn report(
        &mut self,
        key: &RunKey,
        project: &str,
        platform: &str,
    ) -> Option<castwork_proto::runs::Report> {
        let record = &mut self.runs.get_mut(key)?.record;
        let last_seen_ms = record.last_seen_ms;
        for part in &mut record.parts {
            let it = &mut part.configuration;
            if it.project.is_empty() && !project.is_empty() {
                project.clone_into(&mut it.project);
                if it.platform.is_empty() {
                    platform.clone_into(&mut it.platform);
                }
                let configuration = (key.instance.clone(), it.clone());
                let first = First { run: key.run.clone(), last_seen_ms };
                self.firsts.entry(configuration.clone()).or_insert(first).last_seen_ms = last_seen_ms;
                self.dirty_firsts.insert(configuration);
                self.dirty_runs.insert(key.clone());
            }
        }
        let firsts = &self.firsts;
        Some(record.to_proto(|configuration| {
            let first = firsts.get(&(key.instance.clone(), configuration.clone()));
            first.is_none_or(|first| first.run == key.run)
        }))
    }

    fn count(run: &mut PartOf<'_>, action: u64, answer: Answer) {
        if run.known.contains_key(&action) {
            return;
        }
        if *run.actions < run.actions_max {
            run.known.insert(action, answer);
            *run.actions += 1;
        }
        match answer {
            Answer::Hit { saved_ms } => {
                run.part.seen.hits += 1;
                // Clients say how long what they store took.
                let sum = &mut run.part.seen.saved_ms;
                *sum = sum.saturating_add(saved_ms);
            }
            Answer::Miss(cause) => *run.part.seen.misses.entry(cause).or_default() += 1,
            Answer::Ran => {}
        }
    }

    /// The part of the run that this is about, made if there is none yet.
    fn part(&mut self, now: u64, instance: &str, asker: &Asker) -> PartOf<'_> {
        let key = RunKey { instance: instance.to_owned(), run: asker.run.clone() };
        if !self.runs.contains_key(&key) {
            self.make_room(now);
        }
        if !self.dirty_runs.contains(&key) {
            self.dirty_runs.insert(key.clone());
        }
        let parts_max = self.limits.parts_max;
        let run = self.runs.entry(key).or_insert_with(|| Run {
            record: Record {
                instance: instance.to_owned(),
                run: asker.run.clone(),
                tool: asker.tool.clone(),
                begun_ms: now,
                ..Record::default()
            },
            ..Run::default()
        });
        run.record.last_seen_ms = now;
        let parts = &mut run.record.parts;
        let at = parts.iter().position(|part| is_of(&part.configuration, &asker.configuration));
        let at = at.unwrap_or_else(|| {
            if parts.len() < parts_max {
                let configuration = asker.configuration.clone();
                let place = (instance.to_owned(), configuration.clone());
                let first = First { run: asker.run.clone(), last_seen_ms: now };
                self.firsts.entry(place.clone()).or_insert(first).last_seen_ms = now;
                self.dirty_firsts.insert(place);
                parts.push(PartRecord { configuration, ..PartRecord::default() });
            }
            parts.len() - 1
        });
        PartOf {
            part: &mut parts[at],
            known: &mut run.actions,
            actions: &mut self.actions,
            told_bytes: &mut run.told_bytes,
            all_told_bytes: &mut self.told_bytes,
            actions_max: self.limits.actions_max,
        }
    }

    /// Forgets what is too old, and if there is still no room, the tenth that is oldest.
    fn make_room(&mut self, now: u64) {
        let age_max = u64::try_from(self.limits.age_max.as_millis()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(age_max);
        let mut bound = oldest;
        if self.runs.len() >= self.limits.runs_max {
            let mut times: Vec<_> = self.runs.values().map(|run| run.record.last_seen_ms).collect();
            times.sort_unstable();
            bound = bound.max(times[times.len() / 10] + 1);
        }
        let (dirty, actions, told_bytes) = (&mut self.dirty_runs, &mut self.actions, &mut self.told_bytes);
        self.runs.retain(|key, run| {
            let stays = run.record.last_seen_ms >= bound;
            if !stays {
                dirty.remove(key);
                *actions -= run.actions.len();
                *told_bytes -= run.told_bytes;
            }
            stays
        });
        if self.firsts.len() >= self.limits.firsts_max {
            let mut times: Vec<_> = self.firsts.values().map(|first| first.last_seen_ms).collect();
            times.sort_unstable();
            let bound = times[times.len() / 10] + 1;
            self.firsts.retain(|_, first| first.last_seen_ms >= bound);
            self.dirty_firsts.retain(|configuration| self.firsts.contains_key(configuration));
        }
        // Runs that nobody is in any more need not tell their actions apart.
        if self.actions >= self.limits.actions_max {
            let idle = now.saturating_sub(60 * 60 * 1_000);
            for run in self.runs.values_mut().filter(|run| run.record.last_seen_ms < idle) {
                self.actions -= run.actions.len();
                run.actions = HashMap::new();
            }
        }
    }

    /// Takes a line of the file.
    pub(crate) fn restore(&mut self, line: Line) {
        match line {
            Line::Run(record) => {
                let key = RunKey { instance: record.instance.clone(), run: record.run.clone() };
                let told_bytes = record.told_bytes();
                self.told_bytes += told_bytes;
                let before = self.runs.insert(key, Run { record, told_bytes, ..Run::default() });
                self.told_bytes -= before.map_or(0, |run| run.told_bytes);
                self.forget_told();
            }
            Line::First { instance, configuration, run, last_seen_ms } => {
                self.firsts.insert((instance, configuration), First { run, last_seen_ms });
            }
        }
    }

    /// What has changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Line> {
        let runs = std::mem::take(&mut self.dirty_runs);
        let firsts = std::mem::take(&mut self.dirty_firsts);
        let runs = runs.iter().filter_map(|key| self.runs.get(key)).map(|run| Line::Run(run.record.clone()));
        let firsts = firsts.iter().filter_map(|key| self.first_line(key));
        firsts.chain(runs).collect()
    }

    /// Everything there is.
    pub(crate) fn all(&self) -> Vec<Line> {
        let runs = self.runs.values().map(|run| Line::Run(run.record.clone()));
        self.firsts.keys().filter_map(|key| self.first_line(key)).chain(runs).collect()
    }

    fn first_line(&self, key: &(String, Configuration)) -> Option<Line> {
        let First { run, last_seen_ms } = self.firsts.get(key)?.clone();
        Some(Line::First { instance: key.0.clone(), configuration: key.1.clone(), run, last_seen_ms })
    }
}

/// A part of a run, and what the whole book has of its actions.
struct PartOf<'a> {
    part: &'a mut PartRecord,
    known: &'a mut HashMap<u64, Answer>,
    actions: &'a mut usize,
    told_bytes: &'a mut usize,
    all_told_bytes: &'a mut usize,
    actions_max: usize,
}

/// Whether what a client says of itself means this configuration; what it does not say was said for it later.
fn is_of(configuration: &Configuration, said: &Configuration) -> bool {
    let fits = |whole: &str, said: &str| said.is_empty() || whole == said;
    configuration.toolchain == said.toolchain
        && fits(&configuration.project, &said.project)
        && fits(&configuration.platform, &said.platform)
}

#[cfg(test)]
mod tests;
