//! The queue among simulated clients and workers that crash, fall silent, come back, and repeat
//! themselves. Every choice comes from a seed, so whatever goes wrong goes wrong again.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::{ActionKey, Digest, DigestFunction};
use castwork_proto::reapi;

use super::{
    Checked, Effect, Ending, Event, Held, LeaseId, Limits, Moment, Offer, OperationId, Origin, Properties,
    Queue, Report, Request, Response, Saying, SessionId, Spec, TaskId, WorkerId,
};

/// A promise that a queue under test breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    ForgetsLostActions,
    AnswersTwice,
    SharesNothing,
}

const STEPS: usize = 1_000;
const WORKERS: u64 = 4;
const ACTIONS: u64 = 8;
/// Rounds, each a second long, in which everything must come to its end once nothing fails.
const ROUNDS_MAX: usize = 300;

/// `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, all: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = all.into_iter().collect();
        let bound = u64::try_from(all.len()).expect("few");
        (bound > 0).then(|| all[usize::try_from(self.below(bound)).expect("few")])
    }
}

/// What a client knows of its request.
struct Client {
    key: ActionKey,
    waiters: u32,
    ended: bool,
}

struct SimulatedWorker {
    offer: Offer,
    link: Option<Link>,
    running: BTreeMap<LeaseId, ActionKey>,
    /// Outcomes that were not confirmed.
    done: BTreeMap<LeaseId, (ActionKey, Report)>,
}

struct Link {
    session: SessionId,
    /// Nothing passes any more, and neither side has noticed.
    dead: bool,
    inbox: VecDeque<ToWorker>,
    outbox: VecDeque<Saying>,
}

enum ToWorker {
    Lease(LeaseId, ActionKey),
    Cancel(LeaseId),
    Kept(LeaseId),
}

struct World {
    queue: Queue,
    incarnation: u64,
    chance: Chance,
    now: Moment,
    clients: BTreeMap<OperationId, Client>,
    workers: BTreeMap<WorkerId, SimulatedWorker>,
    checks: Vec<(TaskId, ActionKey, bool)>,
    publications: Vec<(TaskId, Response)>,
    names_made: u64,
    trace: DefaultHasher,
    broken: Option<Broken>,
}

/// Runs one seed to its end; returns a hash of all effects, or the promise that was broken.
fn simulate(seed: u64, broken: Option<Broken>) -> Result<u64, String> {
    let mut world = World::new(seed, broken);
    for step in 0..STEPS {
        world.step().map_err(|broken| format!("seed {seed}, step {step}: {broken}"))?;
    }
    world.come_to_an_end().map_err(|broken| format!("seed {seed}, at the end: {broken}"))?;
    Ok(world.trace.finish())
}

fn limits() -> Limits {
    Limits {
        operations_max: 60,
        queued_max: 20,
        finished_max: 20,
        finished_kept: Duration::from_secs(20),
        unwatched_grace: Duration::from_secs(20),
        ..Limits::default()
    }
}

fn queue(incarnation: u64, broken: Option<Broken>) -> Queue {
    Queue { broken, ..Queue::new(limits(), incarnation) }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    Properties::new(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn key(number: u64) -> ActionKey {
    ActionKey { instance: "".into(), action: Digest::of(DigestFunction::Sha256, &number.to_le_bytes()) }
}

/// The same for every request for an action, as it is in the action's bytes.
fn spec(key: &ActionKey) -> Spec {
    let byte = key.action.hash()[0];
    let isa = if byte.is_multiple_of(3) { "arm-a64" } else { "x86-64" };
    Spec {
        requirements: properties(&[("ISA", isa)]),
        timeout: Duration::from_secs(60),
        mergeable: !byte.is_multiple_of(4),
    }
}

fn response(key: &ActionKey) -> Response {
    Arc::new(reapi::ExecuteResponse { message: key.action.to_string(), ..Default::default() })
}

impl World {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let worker = |number: u64| {
            let isa = if number == 0 { "arm-a64" } else { "x86-64" };
            let slots = u32::try_from(number % 2 + 1).expect("small");
            let offer =
                Offer { name: format!("w{number}").into(), properties: properties(&[("ISA", isa)]), slots };
            (
                WorkerId(number.into()),
                SimulatedWorker { offer, link: None, running: BTreeMap::new(), done: BTreeMap::new() },
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
            trace: DefaultHasher::new(),
            broken,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.chance.below(1000) {
            0..200 => self.open(),
            200..350 => self.check_one(),
            350..500 => self.deliver_to_worker(),
            500..620 => self.end_one_action(),
            620..740 => self.deliver_to_queue(),
            740..820 => self.publish_one(),
            820..870 => self.connect_one(),
            870..890 => self.break_a_link(),
            890..900 => self.crash_a_worker(),
            900..930 => self.wait_or_leave(),
            930..940 => self.cancel_one(),
            940..945 => self.drain_one(),
            945..947 => self.restart(),
            _ => self.let_time_pass(),
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        let effects = self.queue.apply(self.now, event);
        for effect in effects {
            format!("{effect:?}").hash(&mut self.trace);
            self.act(effect)?;
        }
        self.queue.audit()
    }

    fn act(&mut self, effect: Effect) -> Result<(), String> {
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
            Effect::Welcome(..) | Effect::Over(_) => {}
            Effect::Disconnect(worker, session, _) => {
                let worker = self.workers.get_mut(&worker).expect("known");
                worker.link.take_if(|link| link.session == session);
            }
            Effect::Grant { worker, lease, key, .. } => {
                self.queue.audit_slots(worker)?;
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

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Some(link) = &mut self.workers.get_mut(&worker).expect("known").link {
            link.inbox.push_back(message);
        }
    }

    fn end_client(&mut self, operation: OperationId, ending: &Ending) -> Result<(), String> {
        let client = self.clients.get_mut(&operation).ok_or("a stranger was answered")?;
        promise(!client.ended, "every waiter is answered once")?;
        client.ended = true;
        match ending {
            Ending::Answered(response) => promise(
                response.message == client.key.action.to_string(),
                "an answer is that to the question",
            ),
            Ending::Refused(_) => Ok(()),
        }
    }

    fn open(&mut self) -> Result<(), String> {
        self.names_made += 1;
        let operation = OperationId(self.names_made.into());
        let key = key(self.chance.below(ACTIONS));
        self.clients.insert(operation, Client { key: key.clone(), waiters: 1, ended: false });
        let request = Request {
            operation,
            key,
            priority: i32::try_from(self.chance.below(3)).expect("small") - 1,
            run: format!("run{}", self.chance.below(3)).into(),
            lookup: self.chance.percent(80),
            origin: Arc::new(Origin::default()),
        };
        self.apply(Event::Opened(request))
    }

    fn check_one(&mut self) -> Result<(), String> {
        let Some(index) = self.chance.pick(0..self.checks.len()) else { return Ok(()) };
        let (task, key, _) = self.checks.swap_remove(index);
        let answered = self.chance.percent(10);
        let verdict = if answered { Checked::Answered(response(&key)) } else { Checked::Ready(spec(&key)) };
        self.apply(Event::Checked { task, verdict })
    }

    fn publish_one(&mut self) -> Result<(), String> {
        let Some(index) = self.chance.pick(0..self.publications.len()) else { return Ok(()) };
        let (task, response) = self.publications.swap_remove(index);
        let result =
            if self.chance.percent(90) { Ok(response) } else { Err("outputs are missing".to_owned()) };
        self.apply(Event::Published { task, result })
    }

    /// A worker whose link works.
    fn linked(&mut self) -> Option<WorkerId> {
        let alive = |worker: &SimulatedWorker| worker.link.as_ref().is_some_and(|link| !link.dead);
        let linked: Vec<_> =
            self.workers.iter().filter(|(_, worker)| alive(worker)).map(|(id, _)| *id).collect();
        self.chance.pick(linked)
    }

    fn deliver_to_worker(&mut self) -> Result<(), String> {
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

    fn end_one_action(&mut self) -> Result<(), String> {
        let id = self.chance.pick(self.workers.keys().copied().collect::<Vec<_>>()).expect("some");
        let fine = self.chance.percent(80);
        let twice = self.chance.percent(10);
        let worker = self.workers.get_mut(&id).expect("picked");
        let Some((lease, key)) = worker.running.pop_first() else { return Ok(()) };
        let report =
            if fine { Report::Final(response(&key)) } else { Report::Retry("disk is full".to_owned()) };
        worker.done.insert(lease, (key, report.clone()));
        if let Some(link) = &mut worker.link {
            let outcome = Saying::Outcome { lease, report };
            link.outbox.extend(std::iter::repeat_n(outcome, if twice { 2 } else { 1 }));
        }
        Ok(())
    }

    fn deliver_to_queue(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let link = self.workers.get_mut(&id).expect("picked").link.as_mut().expect("linked");
        let (session, saying) = (link.session, link.outbox.pop_front().unwrap_or(Saying::Heartbeat));
        self.apply(Event::Said { worker: id, session, saying })
    }

    fn connect_one(&mut self) -> Result<(), String> {
        let id = self.chance.pick(self.workers.keys().copied().collect::<Vec<_>>()).expect("some");
        self.connect(id)
    }

    /// Connects a worker, even if it is connected: then the new link replaces the old.
    fn connect(&mut self, id: WorkerId) -> Result<(), String> {
        self.names_made += 1;
        let session = SessionId(self.names_made);
        let worker = self.workers.get_mut(&id).expect("picked");
        let outcomes = worker.done.iter().map(|(lease, (_, report))| (*lease, report.clone()));
        let outbox = outcomes.map(|(lease, report)| Saying::Outcome { lease, report }).collect();
        let done = worker.done.iter().map(|(lease, (key, _))| (lease, key));
        let held = worker.running.iter().chain(done).map(|(lease, key)| Held {
            lease: *lease,
            key: key.clone(),
            origin: Arc::new(Origin::default()),
        });
        let held = held.collect();
        let offer = worker.offer.clone();
        worker.link = Some(Link { session, dead: false, inbox: VecDeque::new(), outbox });
        self.apply(Event::Attached { worker: id, session, offer, held })
    }

    fn break_a_link(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let noticed = self.chance.percent(50);
        let worker = self.workers.get_mut(&id).expect("picked");
        let link = worker.link.as_mut().expect("linked");
        link.dead = true;
        let session = link.session;
        if !noticed {
            return Ok(());
        }
        worker.link = None;
        self.apply(Event::Detached { worker: id, session })
    }

    fn crash_a_worker(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let worker = self.workers.get_mut(&id).expect("picked");
        worker.running.clear();
        worker.done.clear();
        let session = worker.link.take().expect("linked").session;
        self.apply(Event::Detached { worker: id, session })
    }

    fn drain_one(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let session = self.workers[&id].link.as_ref().expect("linked").session;
        self.apply(Event::Said { worker: id, session, saying: Saying::Draining })
    }

    fn a_client(&mut self) -> Option<OperationId> {
        let waiting = self.clients.iter().filter(|(_, client)| !client.ended).map(|(name, _)| *name);
        let waiting: Vec<_> = waiting.collect();
        self.chance.pick(waiting)
    }

    fn wait_or_leave(&mut self) -> Result<(), String> {
        let Some(operation) = self.a_client() else { return Ok(()) };
        let leaves = self.chance.percent(60);
        let client = self.clients.get_mut(&operation).expect("picked");
        if leaves && client.waiters > 0 {
            client.waiters -= 1;
            return self.apply(Event::WaiterLeft(operation));
        }
        client.waiters += 1;
        self.apply(Event::WaiterJoined(operation))
    }

    fn cancel_one(&mut self) -> Result<(), String> {
        let Some(operation) = self.a_client() else { return Ok(()) };
        self.apply(Event::Cancelled(operation))?;
        promise(self.clients[&operation].ended, "who cancels is answered at once")
    }

    fn let_time_pass(&mut self) -> Result<(), String> {
        self.now += Duration::from_millis(self.chance.below(2_000));
        self.tick()
    }

    fn tick(&mut self) -> Result<(), String> {
        let heard = self.workers.iter().filter_map(|(id, worker)| {
            let link = worker.link.as_ref().filter(|link| !link.dead)?;
            Some(Event::Said { worker: *id, session: link.session, saying: Saying::Heartbeat })
        });
        for event in heard.collect::<Vec<_>>() {
            self.apply(event)?;
        }
        self.apply(Event::Tick)
    }

    /// The scheduler dies and comes back knowing nothing. Clients would ask again.
    fn restart(&mut self) -> Result<(), String> {
        self.incarnation += 1;
        self.queue = queue(self.incarnation, self.broken);
        self.now = Moment::ZERO;
        self.clients.clear();
        self.checks.clear();
        self.publications.clear();
        for worker in self.workers.values_mut() {
            worker.link = None;
        }
        Ok(())
    }

    /// Nothing fails any more; then everything must end, and be answered.
    fn come_to_an_end(&mut self) -> Result<(), String> {
        // Also those that were draining.
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
                self.check_one()?;
                self.deliver_to_worker()?;
                self.end_one_action()?;
                self.deliver_to_queue()?;
                self.publish_one()?;
            }
            self.now += Duration::from_secs(1);
            self.tick()?;
        }
        let waiting = self.clients.values().filter(|client| !client.ended).count();
        Err(format!("{waiting} clients wait for ever; {:?}", self.queue.counts()))
    }

    fn is_over(&self) -> bool {
        let idle = |worker: &SimulatedWorker| worker.running.is_empty() && worker.done.is_empty();
        self.clients.values().all(|client| client.ended)
            && self.queue.counts().tasks == 0
            && self.workers.values().all(idle)
    }
}

fn promise(kept: bool, promise: &str) -> Result<(), String> {
    if kept { Ok(()) } else { Err(format!("broken: {promise}")) }
}

/// The first seed that shows a promise broken.
fn first_broken(broken: Option<Broken>, seeds: u64) -> Option<String> {
    (0..seeds).find_map(|seed| simulate(seed, broken).err())
}

#[test]
fn every_promise_is_kept_whatever_fails() {
    assert_eq!(first_broken(None, 100), None);
}

#[test]
fn the_same_seed_has_the_same_effects() {
    assert_eq!(simulate(7, None), simulate(7, None));
    assert_ne!(simulate(7, None), simulate(8, None));
}

#[test]
fn a_queue_that_breaks_a_promise_is_caught() {
    for broken in [Broken::ForgetsLostActions, Broken::AnswersTwice, Broken::SharesNothing] {
        assert!(first_broken(Some(broken), 100).is_some(), "{broken:?} was not noticed");
    }
}
