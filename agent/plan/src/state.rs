//! The agent's state: takes what happened, decides for every placement, says what to do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use muster_core::{
    Assignment, Claim, Contents, DestinationName, Digest, Failure, Health, Held, Intent, Lane,
    Outcome, PlacementKey, PlacementReport, Revision, assignment::option,
};

use crate::{
    Action, ActionId, Input, Output, Pace, Refusal, Task,
    decide::{Promises, Step, View, decide},
    fence::Fence,
    library::Library,
    pace::Jitter,
    report,
    slot::{Doing, Kind, Slot},
};

/// What an agent starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Whom it feeds.
    pub destination: DestinationName,
    /// The assignment on its disk.
    pub assignment: Option<Assignment>,
    /// What its inventory holds.
    pub held: BTreeMap<PlacementKey, Held>,
    /// Any number that differs between agents: spreads their periods.
    pub seed: u64,
    /// Periods and limits.
    pub pace: Pace,
}

/// The state machine; times are durations since any fixed moment of this process.
#[derive(Debug)]
pub struct AgentState {
    pace: Pace,
    jitter: Jitter,
    fence: Fence,
    slots: BTreeMap<PlacementKey, Slot>,
    /// The slots in the order in which they are decided: lanes first.
    turns: Vec<PlacementKey>,
    promises: Promises,
    owners: BTreeMap<Claim, BTreeSet<PlacementKey>>,
    library: Library,
    running: BTreeMap<Lane, usize>,
    outputs: VecDeque<Output>,
    wake_at: Option<Duration>,
    last_action: ActionId,
}

impl AgentState {
    /// A state that knows what the disk knows. Feed it [`Input::Tick`] to begin.
    pub fn new(start: Start) -> Self {
        let Start { destination, assignment, held, seed, pace } = start;
        let mut state = Self {
            pace,
            jitter: Jitter::new(seed),
            fence: Fence::new(destination),
            slots: held.into_iter().map(|(key, held)| (key, Slot::held(held))).collect(),
            turns: Vec::new(),
            promises: BTreeMap::new(),
            owners: BTreeMap::new(),
            library: Library::default(),
            running: BTreeMap::new(),
            outputs: VecDeque::new(),
            wake_at: None,
            last_action: 0,
        };
        for (key, slot) in &state.slots {
            own(&mut state.owners, key, &slot.held.claims);
        }
        match assignment {
            Some(assignment) => state.assign(assignment, Duration::ZERO),
            None => state.index(),
        }
        state
    }

    /// Why this assignment may not be acted on: ask before persisting it.
    pub fn refusal(&self, assignment: &Assignment) -> Option<Refusal> {
        self.fence.refusal(assignment)
    }

    /// The newest revision in force.
    pub fn revision(&self) -> Revision {
        self.fence.revision()
    }

    /// The last report of every placement, for a hub that has just been reached.
    pub fn reports(&self) -> impl Iterator<Item = &PlacementReport> {
        self.slots.values().filter_map(|slot| slot.told.as_ref())
    }

    /// Takes what happened at `now` (never earlier than before) and decides again.
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Assigned(assignment) => {
                if self.refusal(&assignment).is_none() {
                    self.assign(assignment, now);
                }
            }
            Input::Fetched { digest, result } => {
                let (pace, jitter) = (&self.pace, &mut self.jitter);
                self.library.fetched(digest, result, |retry| retry.again(now, pace, jitter));
            }
            Input::Ended { placement, action, outcome } => {
                self.end(&placement, action, outcome, now);
            }
            Input::Tick => {}
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to say [`Input::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.wake_at
    }

    // === assignments ===

    fn assign(&mut self, assignment: Assignment, now: Duration) {
        if !self.fence.hold(&assignment) {
            return;
        }
        for (key, slot) in &mut self.slots {
            if !assignment.orders.contains_key(key) {
                slot.order = None;
            }
        }
        let wanted = assignment.orders.values().map(|order| order.digest).collect();
        self.library.retain(&wanted);
        for (key, order) in assignment.orders {
            self.slots.entry(key).or_default().assign(order, now);
        }
        // What no order names is forgotten once nothing of it is there; never before.
        self.slots.retain(|_, s| s.order.is_some() || s.doing.is_some() || s.holds());
        self.index();
    }

    fn index(&mut self) {
        self.promises.clear();
        for (key, slot) in &self.slots {
            let Some(order) = &slot.order else { continue };
            if let Some(promise) = order.options.get(option::PROMISE) {
                let lane = self.promises.entry(order.lane).or_default();
                lane.entry(promise.clone()).or_default().insert(key.clone());
            }
        }
        self.turns = self.slots.keys().cloned().collect();
        let lane =
            |key: &PlacementKey| self.slots.get(key).and_then(|s| s.order.as_ref()).map(|o| o.lane);
        self.turns.sort_by_key(|key| lane(key).unwrap_or(Lane::App));
    }

    // === ends of actions ===

    fn end(&mut self, key: &PlacementKey, id: ActionId, outcome: Outcome, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(doing) = slot.doing.take_if(|doing| doing.id == id) else { return };
        if let Some(running) = self.running.get_mut(&doing.lane) {
            *running = running.saturating_sub(1);
        }
        match outcome {
            Outcome::Applied(seen) => {
                let Kind::Apply { digest, base, contents } = doing.kind else { return };
                let (pace, jitter) = (&self.pace, &mut self.jitter);
                // What does not last is repaired later each time; a look without drift forgets it.
                // A newer order, which came meanwhile, need not wait.
                if slot.order.as_ref().is_some_and(|order| order.digest == digest) {
                    slot.retry.again(now, pace, jitter);
                }
                slot.looks = 0;
                slot.failure = None;
                slot.observe(seen, now, pace, jitter);
                let held = Held { applied: Some(digest), base, claims: contents.claims };
                slot.completed = Some(digest);
                self.hold(key, held);
                self.hasten_dependents(key);
            }
            Outcome::Checked(seen) => {
                if seen.drift.is_none() && slot.failure.is_none() {
                    slot.retry = Default::default();
                }
                slot.observe(seen, now, &self.pace, &mut self.jitter);
            }
            Outcome::Removed => {
                // An order that came back meanwhile finds a clean slate.
                slot.removed = slot.intent() == Some(Intent::Absent);
                slot.completed = None;
                slot.observed = None;
                slot.failure = None;
                slot.retry = Default::default();
                self.hold(key, Held::default());
            }
            Outcome::Missing(digest) => {
                self.library.forget(&digest, now, &self.pace, &mut self.jitter);
            }
            Outcome::Failed(failure) => self.fail(key, doing, failure, now),
        }
    }

    fn fail(&mut self, key: &PlacementKey, doing: Doing, failure: Failure, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let base = match doing.kind {
            Kind::Check if doing.cancelled => return,
            Kind::Check => {
                let mut seen = slot.observed.clone().unwrap_or_default();
                seen.health = Health::Unknown;
                seen.health_message = failure.message;
                (seen.drift, seen.recheck) = (None, None);
                return slot.observe(seen, now, &self.pace, &mut self.jitter);
            }
            Kind::Apply { base, .. } => base,
            Kind::Remove => Vec::new(),
        };
        // Something between the old and the new may be there: nothing counts as applied.
        slot.held.applied = None;
        // An action that served an older order says nothing about this one.
        if !doing.cancelled {
            slot.failure = Some(failure);
            slot.failed_base = base;
            slot.retry.again(now, &self.pace, &mut self.jitter);
        }
    }

    /// Requests that failed for want of this dependency need not wait for their turn.
    fn hasten_dependents(&mut self, key: &PlacementKey) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.order.as_ref().is_none_or(|order| order.lane != Lane::Platform) {
            return;
        }
        let requests = self.promises.get(&Lane::App);
        let siblings = slot.promise().and_then(|promise| requests?.get(promise));
        for sibling in siblings.into_iter().flatten() {
            if let Some(slot) = self.slots.get_mut(sibling).filter(|s| s.failure.is_some()) {
                slot.retry.hasten();
            }
        }
    }

    /// Replaces what a placement holds, keeping the index of owners true.
    fn hold(&mut self, key: &PlacementKey, held: Held) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        for claim in slot.held.claims.difference(&held.claims) {
            if let Some(owners) = self.owners.get_mut(claim) {
                owners.remove(key);
                if owners.is_empty() {
                    self.owners.remove(claim);
                }
            }
        }
        own(&mut self.owners, key, &held.claims);
        slot.held = held;
    }

    // === decisions ===

    /// Decides for every placement, until no decision leads to another.
    fn settle(&mut self, now: Duration) {
        self.wake_at = None;
        let turns = std::mem::take(&mut self.turns);
        for key in &turns {
            // A fetch is the only step after which the same placement can have another one; each
            // content is fetched once, so this ends.
            while self.step(key, now) {}
            self.tell(key, now);
        }
        self.turns = turns;
        self.slots.retain(|_, s| s.order.is_some() || s.doing.is_some() || s.holds());
    }

    /// Carries out the next step of one placement; true if there may be another.
    fn step(&mut self, key: &PlacementKey, now: Duration) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let view = View {
            slots: &self.slots,
            promises: &self.promises,
            owners: &self.owners,
            library: &self.library,
            running: &self.running,
            pace: &self.pace,
            now,
        };
        let step = decide(key, slot, &view);
        let Some(slot) = self.slots.get_mut(key) else { return false };
        match step {
            Step::Wait { note, until } => {
                slot.note = note;
                self.wake(until);
            }
            Step::Fail { failure, until } => {
                slot.failure = Some(failure);
                slot.failed_base.clear();
                self.wake(until);
            }
            Step::Fetch(digest) => {
                self.library.fetch(digest);
                self.outputs.push_back(Output::Fetch(digest));
                return true;
            }
            Step::Cancel => {
                if let Some(doing) = &mut slot.doing {
                    doing.cancelled = true;
                    let (placement, action) = (key.clone(), doing.id);
                    self.outputs.push_back(Output::Cancel { placement, action });
                }
            }
            Step::Apply { base, contents } => self.apply(key, base, contents, now),
            Step::Remove => {
                if let Some(order) = slot.order.clone() {
                    self.act(key, Kind::Remove, Task::Remove { order }, now);
                }
            }
            Step::Check => self.act(key, Kind::Check, Task::Check, now),
        }
        false
    }

    fn apply(&mut self, key: &PlacementKey, base: Vec<Digest>, contents: Contents, now: Duration) {
        let Some(slot) = self.slots.get(key) else { return };
        let Some(order) = slot.order.clone() else { return };
        let mut held = slot.held.clone();
        held.claims.extend(contents.claims.iter().cloned());
        self.hold(key, held);
        let kind = Kind::Apply { digest: order.digest, base: base.clone(), contents };
        self.act(key, kind, Task::Apply { order, base }, now);
    }

    fn act(&mut self, key: &PlacementKey, kind: Kind, task: Task, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let lane = slot.order.as_ref().map_or(Lane::App, |order| order.lane);
        self.last_action += 1;
        let id = self.last_action;
        slot.note = None;
        slot.doing = Some(Doing { id, kind, lane, since: now, cancelled: false });
        *self.running.entry(lane).or_default() += 1;
        self.outputs.push_back(Output::Act(Action { id, placement: key.clone(), task }));
    }

    /// Reports a placement if there is news of it.
    fn tell(&mut self, key: &PlacementKey, now: Duration) {
        let revision = self.revision();
        let Some(slot) = self.slots.get_mut(key) else { return };
        if let Some(new) = report::render(key, slot, revision, now, &self.pace) {
            if report::is_news(slot.told.as_ref(), &new) {
                slot.told = Some(new.clone());
                self.outputs.push_back(Output::Report(new));
            }
        } else {
            let announce_at = slot.announce_at(&self.pace);
            self.wake(Some(announce_at).filter(|at| *at > now));
        }
    }

    fn wake(&mut self, at: Option<Duration>) {
        self.wake_at = self.wake_at.into_iter().chain(at).min();
    }
}

fn own(
    owners: &mut BTreeMap<Claim, BTreeSet<PlacementKey>>,
    key: &PlacementKey,
    claims: &BTreeSet<Claim>,
) {
    for claim in claims {
        owners.entry(claim.clone()).or_default().insert(key.clone());
    }
}

#[cfg(test)]
mod tests;
