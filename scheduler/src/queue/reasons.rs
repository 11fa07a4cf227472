//! Why what waits does, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::ready::ClassId;
use super::tasks::{Attempt, Phase, Task};
use super::workers::Worker;
use super::{Needs, Queue, TaskId, WorkerId, properties};

/// How far the actions ahead of one are counted.
const AHEAD_MAX: usize = 10_000;

/// Actions for which that is done at one look, as the queue stands still meanwhile.
const COUNTED_MAX: usize = 100;

/// Workers that a reason names, at most.
const NAMED_MAX: usize = 3;

/// What was found out at one look, and is not found out again.
#[derive(Default)]
pub(super) struct Reasons {
    by_class: BTreeMap<ClassId, String>,
    counted: usize,
}

impl Queue {
    /// Why a task waits, or where it runs.
    pub(super) fn why_task(&self, id: TaskId, task: &Task, known: &mut Reasons) -> String {
        match &task.phase {
            Phase::Checking => "its inputs are looked for".to_owned(),
            Phase::Running(attempt) => self.where_it_runs(task, attempt),
            Phase::Resting(until) => {
                let seconds = self.rests_for(*until).as_secs();
                format!("failed by no fault of its own, and is tried again in {seconds} s")
            }
            Phase::Publishing(_) => "has ended; its outputs are looked for".to_owned(),
            Phase::Queued(place) => {
                let reason = known.by_class.entry(place.class).or_insert_with(|| self.why(place.class));
                let mut reason = reason.clone();
                if !task.failed_on.is_empty() {
                    let names: Vec<_> =
                        task.failed_on.iter().map(|worker| self.quoted_name(*worker)).collect();
                    write!(reason, "; failed at {}, and is to run elsewhere", names.join(", "))
                        .expect(WRITES);
                }
                known.counted += 1;
                let counts = known.counted <= COUNTED_MAX;
                let ahead = if counts { self.ready.ahead(place, task.share, id, AHEAD_MAX) } else { 0 };
                if ahead > 0 {
                    let more = if ahead == AHEAD_MAX { "at least " } else { "" };
                    let are = if ahead == 1 { "action of its run is" } else { "actions of its run are" };
                    write!(reason, "; {more}{ahead} {are} ahead of it").expect(WRITES);
                }
                let runs = self.ready.runs_in(place.class).saturating_sub(1);
                if runs > 0 {
                    let others = if runs == 1 { "run waits" } else { "runs wait" };
                    write!(reason, "; {runs} other {others} for the same").expect(WRITES);
                }
                reason
            }
        }
    }

    fn where_it_runs(&self, task: &Task, attempt: &Attempt) -> String {
        let second = task.hedge.as_ref().map(|hedge| {
            let name = self.quoted_name(hedge.worker);
            format!(", and at {name} as well, as it takes longer than was expected")
        });
        format!("runs at {}{}", self.quoted_name(attempt.worker), second.unwrap_or_default())
    }

    /// Why the actions of a class wait.
    pub(super) fn why(&self, class: ClassId) -> String {
        let Some((needs, _)) = self.ready.class_at(class) else { return String::new() };
        let able: Vec<_> = self.workers.iter().filter(|(_, worker)| worker.offer.can_run(needs)).collect();
        let open: Vec<_> =
            able.iter().filter(|(_, worker)| worker.is_open()).map(|(_, worker)| *worker).collect();
        if !open.is_empty() {
            return taken(class, needs, &open);
        }
        if !able.is_empty() {
            let names: Vec<_> = able.iter().take(NAMED_MAX).map(|(id, _)| self.short_state(*id)).collect();
            let each = match able.len() {
                1 => "the worker that could run it takes no actions".to_owned(),
                count => format!("none of the {count} workers that could run it takes actions"),
            };
            return format!("{each}: {}", names.join(", "));
        }
        match (self.workers.last_departed(needs), self.cannot_be_served(class)) {
            (Some((at, offer)), _) => {
                let ago = span(self.now.saturating_sub(at));
                let missing = self.workers.missing_everywhere(needs);
                if missing.pairs().is_empty() {
                    return format!("waiting for a worker like `{}`, which left {ago} ago", offer.name);
                }
                let missing = properties::some_of(&missing);
                format!("waiting for {missing}, last seen {ago} ago at `{}`", offer.name)
            }
            (None, Some(refusal)) => refusal.to_string(),
            (None, None) => "no worker could run it; the server waits a moment for one to come".to_owned(),
        }
    }

    fn short_state(&self, id: WorkerId) -> String {
        let state = self.state_of(id);
        let word = if !state.connected {
            "is away"
        } else if state.quarantined {
            "is in quarantine"
        } else {
            "is draining"
        };
        format!("`{}` {word}", state.name)
    }

    fn quoted_name(&self, id: WorkerId) -> String {
        self.workers.get(id).map_or_else(|| format!("`{id}`"), |worker| format!("`{}`", worker.offer.name))
    }
}

/// Writing to a string does not fail.
const WRITES: &str = "writing to a string does not fail";

/// What the workers lack that could run an action of a class and take actions.
fn taken(class: ClassId, needs: &Needs, open: &[&Worker]) -> String {
    let mut by_lack = BTreeMap::<Lack, usize>::new();
    for worker in open {
        *by_lack.entry(lack(class, needs, worker)).or_default() += 1;
    }
    let slots: u32 = open.iter().map(|worker| worker.offer.slots).sum();
    if by_lack.keys().all(|lack| *lack == Lack::Slots) {
        let (all, are) =
            if slots == 1 { ("the only slot", "is") } else { (&*format!("all {slots} slots"), "are") };
        let workers =
            if open.len() == 1 { "the worker".to_owned() } else { format!("the {} workers", open.len()) };
        let each = match needs.demand.slots {
            1 => String::new(),
            slots => format!(", or too few are free at once, as it takes {slots}"),
        };
        return format!("{all} of {workers} that could run it {are} taken{each}");
    }
    let parts: Vec<_> = by_lack.iter().map(|(lack, count)| format!("{count} {}", lack.of(*count))).collect();
    let workers = if open.len() == 1 { "worker" } else { "workers" };
    format!("of the {} {workers} that could run it {}", open.len(), parts.join(", "))
}

/// What a worker has too little of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Slots,
    /// This much is to be set aside.
    Memory(u64),
    Other(String),
    /// It is kept free for something else.
    Reserved,
    /// It gets one action at a time.
    Probation,
    /// Nothing: whatever waits has failed there.
    Nothing,
}

impl Lack {
    fn of(&self, count: usize) -> String {
        let (has, is) = if count == 1 { ("has", "is") } else { ("have", "are") };
        match self {
            Self::Slots => format!("{has} too few slots free"),
            Self::Memory(bytes) => {
                let mib = bytes.div_ceil(1 << 20);
                format!("{has} less than the {mib} MiB of memory left that are set aside for it")
            }
            Self::Other(name) => format!("{has} too little `{name}` left"),
            Self::Reserved => format!("{is} kept free for an action that takes more"),
            Self::Probation => format!("{is} tried again after failures, with one action at a time"),
            Self::Nothing => format!("{has} room, but failed it before"),
        }
    }
}

fn lack(class: ClassId, needs: &Needs, worker: &Worker) -> Lack {
    let (demand, used, offer) = (&needs.demand, worker.used(), &worker.offer);
    if worker.conduct.is_on_probation() && !worker.leases.is_empty() {
        return Lack::Probation;
    }
    if used.slots.saturating_add(demand.slots) > offer.slots {
        return Lack::Slots;
    }
    if !offer.has_memory(demand, used) {
        return Lack::Memory(demand.memory_bytes);
    }
    let mut others = demand.others.pairs().iter();
    if let Some((name, _)) =
        others.find(|(name, amount)| used.of(name).saturating_add(*amount) > offer.others.of(name))
    {
        return Lack::Other(name.clone());
    }
    if worker.reserved_for.is_some_and(|other| other != class) { Lack::Reserved } else { Lack::Nothing }
}

/// A time for people, in one unit.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
