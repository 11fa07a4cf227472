//! What simulated clients do.

use std::sync::Arc;

use super::ACTIONS;
use super::world::{Client, World, key, promise};
use crate::queue::{Event, OperationId, Origin, Request};

impl World {
    pub(super) fn open(&mut self) -> Result<(), String> {
        self.names_made += 1;
        let operation = OperationId(self.names_made.into());
        let key = key(self.chance.below(ACTIONS));
        let request = Request {
            operation,
            key,
            priority: i32::try_from(self.chance.below(3)).expect("small") - 1,
            run: format!("run{}", self.chance.below(3)).into(),
            principal: format!("team{}", self.chance.below(2)).into(),
            lookup: self.chance.percent(80),
            origin: Arc::new(Origin::default()),
        };
        self.clients.insert(operation, Client { request: request.clone(), waiters: 1, ended: false });
        self.apply(Event::Opened(request))
    }

    pub(super) fn a_client(&mut self) -> Option<OperationId> {
        let waiting = self.clients.iter().filter(|(_, client)| !client.ended).map(|(name, _)| *name);
        let waiting: Vec<_> = waiting.collect();
        self.chance.pick(waiting)
    }

    pub(super) fn wait_or_leave(&mut self) -> Result<(), String> {
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

    pub(super) fn cancel_one(&mut self) -> Result<(), String> {
        let Some(operation) = self.a_client() else { return Ok(()) };
        self.apply(Event::Cancelled(operation))?;
        promise(self.clients[&operation].ended, "who cancels is answered at once")
    }

    /// An operator ends everything of a run.
    pub(super) fn stop_a_run(&mut self) -> Result<(), String> {
        let run = format!("run{}", self.chance.below(3));
        for operation in self.queue.operations_of(|_, name, _| name == run) {
            self.apply(Event::Stopped(operation, "the disk is full".into()))?;
            promise(self.clients[&operation].ended, "who is stopped is answered at once")?;
        }
        promise(self.queue.operations_of(|_, name, _| name == run).is_empty(), "nothing of the run is left")
    }
}
