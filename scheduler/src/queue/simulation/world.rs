//! [`World`]: the queue, everybody around it, and what is on the way between them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _};
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::{ActionKey, Digest, DigestFunction};
use castwork_proto::reapi;

use super::chance::Chance;
use super::{Broken, ROUNDS_MAX, WORKERS};
use crate::queue::{
    Amounts, Checked, Demand, Effect, Ending, Event, LeaseId, Limits, Moment, Needs, Offer, OperationId,
    Properties, Queue, Report, Request, Response, Saying, SessionId, Spec, TaskId, Unpublished, Verdict,
    WorkerId,
};

/// What a client knows of its request.
pub(super) struct Client {
    pub(super) request: Request,
    pub(super) waiters: u32,
    pub(super) ended: bool,
}

/// The worker whose results are wrong.
const LIAR: &str = "w3";

pub(super) struct SimulatedWorker {
    pub(super) offer: Offer,
    pub(super) link: Option<Link>,
    pub(super) running: BTreeMap<LeaseId, ActionKey>,
    /// Outcomes that were not confirmed.
    pub(super) done: BTreeMap<LeaseId, (ActionKey, Report)>,
    /// Whether it takes no more, or can't run what it gets; it says so whenever it connects.
    pub(super) draining: bool,
    pub(super) unfit: Option<Arc<str>>,
}

pub(super) struct Link {
    pub(super) session: SessionId,
    /// Nothing passes any more, and neither side has noticed.
    pub(super) dead: bool,
    pub(super) inbox: VecDeque<ToWorker>,
    pub(super) outbox: VecDeque<Saying>,
}

pub(super) enum ToWorker {
    Lease(LeaseId, ActionKey),
    Cancel(LeaseId),
    Kept(LeaseId),
}

pub(super) struct World {
    pub(super) queue: Queue,
    pub(super) incarnation: u64,
    pub(super) chance: Chance,
    pub(super) now: Moment,
    pub(super) clients: BTreeMap<OperationId, Client>,
    pub(super) workers: BTreeMap<WorkerId, SimulatedWorker>,
    pub(super) checks: Vec<(TaskId, ActionKey, bool)>,
    pub(super) publications: Vec<(TaskId, Response)>,
    pub(super) names_made: u64,
    /// Takes in all effects, if somebody wants to know.
    pub(super) trace: Option<DefaultHasher>,
    pub(super) broken: Option<Broken>,
}

fn limits() -> Limits {
    Limits {
        operations_max: 60,
        queued_max: 20,
        finished_max: 20,
        finished_kept: Duration::from_secs(20),
        unwatched_grace: Duration::from_secs(20),
        unfit_grace: Duration::from_secs(5),
        hedge_after: Some(Duration::from_secs(3)),
        recheck_per_million: 300_000,
        ..Limits::default()
    }
}

pub(super) fn queue(incarnation: u64, broken: Option<Broken>) -> Queue {
    Queue { broken, ..Queue::new(limits(), incarnation) }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    Properties::new(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
}

pub(super) fn key(number: u64) -> ActionKey {
    ActionKey { instance: "".into(), action: Digest::of(DigestFunction::Sha256, &number.to_le_bytes()) }
}

/// The same for every request for an action, as it is in the action's bytes.
fn spec(key: &ActionKey) -> Spec {
    let bytes = key.action.hash();
    let isa = if bytes[0].is_multiple_of(3) { "arm-a64" } else { "x86-64" };
    let gpus = u64::from(isa == "x86-64" && bytes[1].is_multiple_of(4));
    let demand = Demand {
        slots: if isa == "x86-64" { u32::from(bytes[2] % 3) + 1 } else { 1 },
        memory_bytes: u64::from(bytes[3] % 4) * 100,
        memory_is_estimate: bytes[3].is_multiple_of(8),
        others: Amounts::new([("gpu".to_owned(), gpus)]),
    };
    Spec {
        needs: Needs { properties: properties(&[("ISA", isa)]), demand, ..Needs::default() },
        kind: Some(u64::from(bytes[4] % 4)),
        folders: [(u64::from(bytes[5] % 4), 1_000)].into(),
        timeout: Duration::from_secs(60),
        mergeable: !bytes[0].is_multiple_of(4),
    }
}

pub(super) fn response(key: &ActionKey) -> Response {
    let result = Some(reapi::ActionResult::default());
    Arc::new(reapi::ExecuteResponse { message: key.action.to_string(), result, ..Default::default() })
}

/// What a worker says of it that lacks what it needs.
fn refusal(key: &ActionKey) -> Response {
    Arc::new(reapi::ExecuteResponse { result: None, ..(*response(key)).clone() })
}

/// What a worker that lies makes of it.
pub(super) fn lie(key: &ActionKey) -> Response {
    let output = reapi::OutputFile { path: "out".to_owned(), ..Default::default() };
    let result = reapi::ActionResult { output_files: vec![output], ..Default::default() };
    Arc::new(reapi::ExecuteResponse { result: Some(result), ..(*response(key)).clone() })
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Broken>) -> Self {
        let worker = |number: u64| {
            let isa = if number == 0 { "arm-a64" } else { "x86-64" };
            let slots = u32::try_from(number % 3 + 1).expect("small");
            let others = Amounts::new([("gpu".to_owned(), u64::from(number == 2))]);
            let offer = Offer {
                name: format!("w{number}").into(),
                properties: properties(&[("ISA", isa)]),
                slots,
                memory_bytes: (number != 1).then_some(600),
                others,
                ..Offer::default()
            };
            (
                WorkerId(number.into()),
                SimulatedWorker {
                    offer,
                    link: None,
                    running: BTreeMap::new(),
                    done: BTreeMap::new(),
                    draining: false,
                    unfit: None,
                },
            )
        };
        Self {
            queue: queue(1, broken),
            incarnation: 1,
            chance: Chance(seed),
            now: Moment::ZERO,
            clients: BTreeMap::new(),
            workers: (0..WORKERS).map(worker).collect(),
            checks: Vec::new(),
            publications: Vec::new(),
            names_made: 0,
            trace: None,
            broken,
        }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        match self.chance.below(1000) {
            0..200 => self.open(),
            200..350 => self.check_one(),
            350..500 => self.deliver_to_worker(),
            500..620 => {
                self.end_one_action();
                Ok(())
            }
            620..740 => self.deliver_to_queue(),
            740..820 => self.publish_one(),
            820..870 => self.connect_one(),
            870..890 => self.break_a_link(),
            890..900 => self.crash_a_worker(),
            900..930 => self.wait_or_leave(),
            930..938 => self.cancel_one(),
            938..940 => self.stop_a_run(),
            940..943 => self.drain_one(),
            943..945 => self.drain_or_undrain(),
            945..947 => self.restart(),
            947..950 => self.fall_ill_or_recover(),
            950..952 => self.stand_still(),
            _ => self.let_time_pass(),
        }
    }

    pub(super) fn apply(&mut self, event: Event) -> Result<(), String> {
        let effects = self.queue.apply(self.now, event);
        let refuses =
            |it: &Effect| matches!(it, Effect::Publish { response, .. } if response.result.is_none());
        let ends_another = |it: &Effect| matches!(it, Effect::Revoke(_, _, "another worker was first"));
        promise(
            !(effects.iter().any(refuses) && effects.iter().any(ends_another)),
            "who can't run an action ends no attempt of another",
        )?;
        for effect in effects {
            if let Some(trace) = &mut self.trace {
                format!("{effect:?}").hash(trace);
            }
            self.act(effect)?;
        }
        self.queue.audit()
    }

    pub(super) fn act(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Refuse(operation, _) => {
                self.clients.remove(&operation).ok_or("a stranger was refused")?;
            }
            Effect::Check { task, key, lookup } => self.checks.push((task, key, lookup)),
            Effect::Stage(operation, _) => {
                let client = self.clients.get(&operation).ok_or("a stranger was told a stage")?;
                promise(!client.ended, "no stage after the end")?;
            }
            Effect::Finish(operation, ending) => self.end_client(operation, &ending)?,
            Effect::Forget(operation) => {
                let client = self.clients.remove(&operation).ok_or("a stranger was forgotten")?;
                promise(client.ended, "nothing is forgotten before its end")?;
            }
            Effect::Correct { key, response: corrected, .. } => {
                promise(corrected.message == key.action.to_string(), "a correction is that of the action")?;
            }
            Effect::Found(finding) => {
                promise(!finding.differences.is_empty(), "what is found is a difference")?;
                let is_liar = |name: &str| name == LIAR;
                match finding.verdict {
                    Verdict::Suspect(name) => {
                        promise(is_liar(&name), "nobody is suspected who does not lie")?;
                    }
                    Verdict::Disagreement(names) => {
                        promise(names.iter().any(|name| is_liar(name)), "of two who differ one lies")?;
                    }
                    Verdict::NotRepeatable => return Err("every action of these can be repeated".to_owned()),
                }
            }
            Effect::Welcome(..) | Effect::Over(_) | Effect::Shared(_) => {}
            Effect::Disconnect(worker, session, _) => {
                let worker = self.workers.get_mut(&worker).expect("known");
                worker.link.take_if(|link| link.session == session);
            }
            Effect::Grant { worker, lease, key, .. } => {
                self.queue.audit_room(worker)?;
                let state = &self.workers[&worker];
                promise(!state.draining && state.unfit.is_none(), "nobody is given what it can't take")?;
                self.send(worker, ToWorker::Lease(lease, key));
            }
            Effect::Revoke(worker, lease, _) => self.send(worker, ToWorker::Cancel(lease)),
            Effect::Keep(worker, lease) => self.send(worker, ToWorker::Kept(lease)),
            Effect::Publish { task, key, response, .. } => {
                promise(response.message == key.action.to_string(), "an outcome is that of the action")?;
                self.publications.push((task, response));
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Some(link) = &mut self.workers.get_mut(&worker).expect("known").link {
            link.inbox.push_back(message);
        }
    }

    pub(super) fn end_client(&mut self, operation: OperationId, ending: &Ending) -> Result<(), String> {
        let client = self.clients.get_mut(&operation).ok_or("a stranger was answered")?;
        promise(!client.ended, "every waiter is answered once")?;
        client.ended = true;
        match ending {
            Ending::Answered(response) => promise(
                response.message == client.request.key.action.to_string(),
                "an answer is that to the question",
            ),
            Ending::Refused(_) => Ok(()),
        }
    }

    pub(super) fn check_one(&mut self) -> Result<(), String> {
        let Some(index) = self.chance.pick(0..self.checks.len()) else { return Ok(()) };
        let (task, key, _) = self.checks.swap_remove(index);
        let answered = self.chance.percent(10);
        let verdict = if answered { Checked::Answered(response(&key)) } else { Checked::Ready(spec(&key)) };
        self.apply(Event::Checked { task, verdict })
    }

    pub(super) fn publish_one(&mut self) -> Result<(), String> {
        let Some(index) = self.chance.pick(0..self.publications.len()) else { return Ok(()) };
        let (task, response) = self.publications.swap_remove(index);
        let result = if self.chance.percent(90) {
            Ok(response)
        } else {
            Err(Unpublished::Refused("outputs are missing".to_owned()))
        };
        self.apply(Event::Published { task, result })
    }

    /// A worker whose link works.
    pub(super) fn linked(&mut self) -> Option<WorkerId> {
        let alive = |worker: &SimulatedWorker| worker.link.as_ref().is_some_and(|link| !link.dead);
        let linked: Vec<_> =
            self.workers.iter().filter(|(_, worker)| alive(worker)).map(|(id, _)| *id).collect();
        self.chance.pick(linked)
    }

    pub(super) fn deliver_to_worker(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let worker = self.workers.get_mut(&id).expect("picked");
        let link = worker.link.as_mut().expect("linked");
        match link.inbox.pop_front() {
            Some(ToWorker::Lease(lease, key)) => {
                promise(worker.running.len() < worker.offer.slots as usize, "slots are never exceeded")?;
                worker.running.insert(lease, key);
            }
            Some(ToWorker::Cancel(lease)) => {
                worker.running.remove(&lease);
                worker.done.remove(&lease);
            }
            Some(ToWorker::Kept(lease)) => {
                promise(!worker.running.contains_key(&lease), "only outcomes are confirmed")?;
                worker.done.remove(&lease);
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn end_one_action(&mut self) {
        let id = self.chance.pick(self.workers.keys().copied().collect::<Vec<_>>()).expect("some");
        let fine = self.chance.percent(80);
        let too_large = self.chance.percent(5);
        let twice = self.chance.percent(10);
        let refuses = self.chance.percent(50);
        let worker = self.workers.get_mut(&id).expect("picked");
        let Some((lease, key)) = worker.running.pop_first() else { return };
        // One of two that run the same lacks what it needs more often than not: else it is seldom seen.
        let mut others = self.workers.values().flat_map(|worker| worker.running.values());
        let refuses = refuses && others.any(|other| *other == key);
        let worker = self.workers.get_mut(&id).expect("picked");
        let report = match (fine, too_large) {
            (true, _) if refuses => Report::Final(refusal(&key)),
            (true, true) => Report::OutOfMemory(response(&key)),
            (true, false) if &*worker.offer.name == LIAR => Report::Final(lie(&key)),
            (true, false) => Report::Final(response(&key)),
            (false, _) => Report::Retry("disk is full".to_owned()),
        };
        worker.done.insert(lease, (key, report.clone()));
        if let Some(link) = &mut worker.link {
            let outcome = Saying::Outcome { lease, report, memory_bytes: 0 };
            link.outbox.extend(std::iter::repeat_n(outcome, if twice { 2 } else { 1 }));
        }
    }

    pub(super) fn deliver_to_queue(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let link = self.workers.get_mut(&id).expect("picked").link.as_mut().expect("linked");
        let (session, saying) = (link.session, link.outbox.pop_front().unwrap_or(Saying::Heartbeat));
        self.apply(Event::Said { worker: id, session, saying })
    }

    pub(super) fn let_time_pass(&mut self) -> Result<(), String> {
        self.now += Duration::from_millis(self.chance.below(2_000));
        self.tick()
    }

    pub(super) fn tick(&mut self) -> Result<(), String> {
        let heard = self.workers.iter().filter_map(|(id, worker)| {
            let link = worker.link.as_ref().filter(|link| !link.dead)?;
            Some(Event::Said { worker: *id, session: link.session, saying: Saying::Heartbeat })
        });
        for event in heard.collect::<Vec<_>>() {
            self.apply(event)?;
        }
        self.apply(Event::Tick)?;
        self.queue.audit_spare()
    }

    /// Nothing fails any more; then everything must end, and be answered.
    pub(super) fn come_to_an_end(&mut self) -> Result<(), String> {
        self.apply(Event::Undrained("*".into()))?;
        for worker in self.workers.values_mut() {
            (worker.draining, worker.unfit) = (false, None);
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.connect(id)?;
        }
        for _ in 0..ROUNDS_MAX {
            if self.is_over() {
                return Ok(());
            }
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                if self.workers[&id].link.as_ref().is_none_or(|link| link.dead) {
                    self.connect(id)?;
                }
            }
            for _ in 0..50 {
                if self.is_quiet() {
                    break;
                }
                self.check_one()?;
                self.deliver_to_worker()?;
                self.end_one_action();
                self.deliver_to_queue()?;
                self.publish_one()?;
            }
            self.now += Duration::from_secs(1);
            self.tick()?;
        }
        let waiting = self.clients.values().filter(|client| !client.ended).count();
        let held: Vec<_> =
            self.workers.iter().map(|(id, worker)| (id, &worker.running, worker.done.keys())).collect();
        Err(format!(
            "not everything ends: {waiting} clients wait, rechecks idle: {}, leases held and outcomes kept: {held:?}; {:?}",
            self.queue.rechecks.is_idle(),
            self.queue.counts()
        ))
    }

    /// Nothing is on its way, so nothing happens before time passes.
    fn is_quiet(&self) -> bool {
        let quiet = |worker: &SimulatedWorker| {
            let link = worker.link.as_ref();
            worker.running.is_empty()
                && link.is_none_or(|link| link.inbox.is_empty() && link.outbox.is_empty())
        };
        self.checks.is_empty() && self.publications.is_empty() && self.workers.values().all(quiet)
    }

    pub(super) fn is_over(&self) -> bool {
        let idle = |worker: &SimulatedWorker| worker.running.is_empty() && worker.done.is_empty();
        self.clients.values().all(|client| client.ended)
            && self.queue.rechecks.is_idle()
            && self.queue.counts().tasks == 0
            && self.workers.values().all(idle)
    }
}

pub(super) fn promise(kept: bool, promise: &str) -> Result<(), String> {
    if kept { Ok(()) } else { Err(format!("broken: {promise}")) }
}
