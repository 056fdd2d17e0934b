//! The state machine against a model of the world: messages lost, repeated and reordered, actions that
//! fail, and agents that are killed at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_agent_plan::{Action, AgentState, Input, Output, Pace, Start, Task};
use muster_core::{
    Assignment, Claim, Contents, DestinationName, Digest, Failure, Health, Held, Intent, Lane,
    Observation, Order, Outcome, Phase, PlacementKey, PlacementReport, Revision,
    assignment::option,
};
use proptest::prelude::*;

const PLACEMENTS: usize = 4;

/// The world around the state machine: the hub's orders, the disk, the destination.
struct World {
    state: AgentState,
    now: Duration,
    sent: Vec<Assignment>,
    disk: Option<Assignment>,
    held: BTreeMap<PlacementKey, Held>,
    running: BTreeMap<PlacementKey, Action>,
    fetches: Vec<Digest>,
    reports: BTreeMap<PlacementKey, PlacementReport>,
    removals: BTreeSet<PlacementKey>,
    seed: u64,
}

#[derive(Debug, Clone)]
enum Event {
    /// The hub gives new orders: for each placement none, a version to hold, or removal.
    Order(Vec<Option<u8>>),
    /// One of the assignments ever sent arrives, maybe again, maybe late.
    Arrive(prop::sample::Index),
    /// An action ends well or not.
    End(prop::sample::Index, bool),
    /// A fetch ends well or not.
    Fetch(prop::sample::Index, bool),
    /// The end of an action that is not running.
    StaleEnd(u64),
    /// Time passes.
    Pass(u16),
    /// The agent is killed and started again.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let orders = prop::collection::vec(prop::option::of(0u8..4), PLACEMENTS);
    prop_oneof![
        2 => orders.prop_map(Event::Order),
        3 => any::<prop::sample::Index>().prop_map(Event::Arrive),
        5 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, ok)| Event::End(i, ok)),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, ok)| Event::Fetch(i, ok)),
        1 => (0u64..50).prop_map(Event::StaleEnd),
        3 => (0u16..5000).prop_map(Event::Pass),
        1 => Just(Event::Crash),
    ]
}

fn key(index: usize) -> PlacementKey {
    PlacementKey::new("default", &format!("p{index}")).unwrap()
}

fn digest(placement: usize, version: u8) -> Digest {
    Digest::of(&[placement as u8, version])
}

/// Placements 0 and 1 claim the same object; 0 is a dependency.
fn contents(of: Digest) -> Contents {
    let placement = (0..PLACEMENTS).find(|p| (0..4).any(|v| digest(*p, v) == of)).unwrap();
    let name = if placement <= 1 { "shared".to_owned() } else { format!("own-{placement}") };
    let claims = BTreeSet::from([Claim::kubernetes("", "ConfigMap", "shop", &name)]);
    Contents { claims, terraform: false }
}

/// The orders: version 3 stands for removal.
fn assignment(n: u64, versions: &[Option<u8>]) -> Assignment {
    let mut assignment = Assignment::empty(DestinationName::parse("vm-1").unwrap());
    assignment.revision = Revision { epoch: 1, n };
    for (index, version) in versions.iter().enumerate() {
        let Some(version) = version else { continue };
        let intent = if *version == 3 { Intent::Absent } else { Intent::Present };
        let lane = if index == 0 { Lane::Platform } else { Lane::App };
        let options = BTreeMap::from([(option::PROMISE.to_owned(), "web".to_owned())]);
        let order = Order { lane, digest: digest(index, *version), intent, options };
        assignment.orders.insert(key(index), order);
    }
    assignment
}

fn start(disk: Option<Assignment>, held: BTreeMap<PlacementKey, Held>, seed: u64) -> AgentState {
    let destination = DestinationName::parse("vm-1").unwrap();
    AgentState::new(Start { destination, assignment: disk, held, seed, pace: Pace::default() })
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            state: start(None, BTreeMap::new(), seed),
            now: Duration::ZERO,
            sent: Vec::new(),
            disk: None,
            held: BTreeMap::new(),
            running: BTreeMap::new(),
            fetches: Vec::new(),
            reports: BTreeMap::new(),
            removals: BTreeSet::new(),
            seed,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Order(versions) => {
                let next = assignment(self.sent.len() as u64 + 1, versions);
                self.sent.push(next);
            }
            Event::Arrive(index) if !self.sent.is_empty() => {
                self.arrive(index.get(&self.sent).clone());
            }
            Event::End(index, well) if !self.running.is_empty() => {
                let keys: Vec<PlacementKey> = self.running.keys().cloned().collect();
                self.end(index.get(&keys), *well);
            }
            Event::Fetch(index, well) if !self.fetches.is_empty() => {
                let at = index.index(self.fetches.len());
                let digest = self.fetches.remove(at);
                let failure = Failure::retried("ContentUnavailable", "lost");
                let result = if *well { Ok(contents(digest)) } else { Err(failure) };
                self.state.handle(Input::Fetched { digest, result }, self.now);
            }
            Event::StaleEnd(id) => {
                let (placement, outcome) = (key((*id % 4) as usize), Outcome::Removed);
                if self.running.get(&placement).is_none_or(|action| action.id != *id) {
                    self.state.handle(Input::Ended { placement, action: *id, outcome }, self.now);
                }
            }
            Event::Pass(milliseconds) => {
                self.now += Duration::from_millis(u64::from(*milliseconds));
                self.state.handle(Input::Tick, self.now);
            }
            Event::Crash => self.crash(),
            _ => {}
        }
        self.carry_out();
    }

    fn arrive(&mut self, assignment: Assignment) {
        if self.state.refusal(&assignment).is_none() {
            assert!(
                self.disk.as_ref().is_none_or(|held| held.revision <= assignment.revision),
                "an older revision was accepted"
            );
            self.disk = Some(assignment.clone());
        }
        self.state.handle(Input::Assigned(assignment), self.now);
    }

    fn end(&mut self, key: &PlacementKey, well: bool) {
        let action = self.running.remove(key).unwrap();
        let held = self.held.entry(key.clone()).or_default();
        let outcome = match &action.task {
            _ if !well => Outcome::Failed(Failure::retried("Failed", "it failed")),
            Task::Apply { order, base } => {
                let claims = contents(order.digest).claims;
                *held = Held { applied: Some(order.digest), base: base.clone(), claims };
                Outcome::Applied(seen())
            }
            Task::Remove { .. } => {
                *held = Held::default();
                Outcome::Removed
            }
            Task::Check => Outcome::Checked(seen()),
        };
        let (placement, action) = (key.clone(), action.id);
        self.state.handle(Input::Ended { placement, action, outcome }, self.now);
    }

    /// What runs is killed with the agent; what it had begun stays begun.
    fn crash(&mut self) {
        self.running.clear();
        self.fetches.clear();
        self.held.retain(|_, held| *held != Held::default());
        self.seed += 1;
        self.state = start(self.disk.clone(), self.held.clone(), self.seed);
        self.state.handle(Input::Tick, self.now);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Fetch(digest) => {
                    assert!(!self.fetches.contains(&digest), "fetched twice at once");
                    self.fetches.push(digest);
                }
                Output::Act(action) => self.begin(action),
                Output::Cancel { placement, action } => {
                    assert_eq!(self.running.get(&placement).map(|a| a.id), Some(action));
                }
                Output::Report(report) => {
                    if report.phase == Phase::Applied {
                        assert_eq!(report.applied, Some(report.desired));
                    }
                    self.reports.insert(report.placement.clone(), report);
                }
            }
        }
    }

    fn begin(&mut self, action: Action) {
        let key = action.placement.clone();
        let order = self.disk.as_ref().and_then(|disk| disk.orders.get(&key));
        let held = self.held.entry(key.clone()).or_default();
        match &action.task {
            Task::Apply { order: given, .. } => {
                assert_eq!(Some(given), order, "acted on an order that is not in force");
                assert_eq!(given.intent, Intent::Present);
                held.applied = None;
                held.claims.extend(contents(given.digest).claims);
            }
            Task::Remove { order: given } => {
                assert_eq!(Some(given), order, "absence, or an old order, removed something");
                assert_eq!(given.intent, Intent::Absent);
                held.applied = None;
                self.removals.insert(key.clone());
            }
            Task::Check => {}
        }
        for (other, held) in &self.held {
            if let (Task::Apply { order, .. }, true) = (&action.task, *other != key) {
                let claims = contents(order.digest).claims;
                assert!(held.claims.is_disjoint(&claims), "{key} applied what {other} holds");
            }
        }
        assert!(self.running.insert(key.clone(), action).is_none(), "two actions on {key}");
    }

    /// Everything goes well from now on, until nothing changes any more.
    fn settle(&mut self) {
        if let Some(last) = self.sent.last().cloned() {
            self.arrive(last);
            self.carry_out();
        }
        for _ in 0..400 {
            while let Some(digest) = self.fetches.pop() {
                let result = Ok(contents(digest));
                self.state.handle(Input::Fetched { digest, result }, self.now);
                self.carry_out();
            }
            while let Some(key) = self.running.keys().next().cloned() {
                self.end(&key, true);
                self.carry_out();
            }
            if !self.fetches.is_empty() {
                continue;
            }
            let Some(wake_at) = self.state.poll_timeout() else { break };
            self.now = self.now.max(wake_at);
            self.state.handle(Input::Tick, self.now);
            self.carry_out();
        }
    }

    fn assert_converged(&self) {
        let Some(last) = self.sent.last() else { return };
        assert_eq!(self.disk.as_ref(), Some(last));
        let applied = |key: &PlacementKey| self.held.get(key).and_then(|held| held.applied);
        for (key, order) in &last.orders {
            let report = self.reports.get(key).unwrap_or_else(|| panic!("no report of {key}"));
            assert_eq!(report.desired, order.digest);
            match order.intent {
                Intent::Absent => {
                    assert_eq!(applied(key), None);
                    assert_eq!(report.phase, Phase::Removed);
                }
                Intent::Present if report.reason == "Conflict" => {
                    let claims = contents(order.digest).claims;
                    let other =
                        self.held.iter().any(|(o, h)| o != key && !h.claims.is_disjoint(&claims));
                    assert!(other, "{key} waits for a thing that nobody holds");
                }
                Intent::Present => {
                    assert_eq!(applied(key), Some(order.digest));
                    assert_eq!(report.phase, Phase::Applied, "{report:?}");
                }
            }
        }
    }
}

fn seen() -> Observation {
    Observation { health: Health::Healthy, ..Observation::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn converges_whatever_happened(events in prop::collection::vec(event(), 0..80), seed: u64) {
        let mut world = World::new(seed);
        for event in &events {
            world.happen(event);
        }
        world.settle();
        world.assert_converged();
    }

    #[test]
    fn what_no_order_removes_is_kept(events in prop::collection::vec(event(), 0..80), seed: u64) {
        let mut world = World::new(seed);
        for event in &events {
            let before: BTreeSet<PlacementKey> = world.held.iter()
                .filter(|(_, held)| !held.claims.is_empty()).map(|(key, _)| key.clone()).collect();
            world.removals.retain(|key| world.running.contains_key(key));
            let allowed = world.removals.clone();
            world.happen(event);
            for key in before {
                let kept = world.held.get(&key).is_some_and(|held| !held.claims.is_empty());
                prop_assert!(kept || allowed.contains(&key), "{key} went without an order");
            }
        }
    }
}
