//! What the agent does next, case by case; the model in tests/model.rs has the rest.

use muster_core::{Health, Observation, Order, Phase};

use super::*;

struct Agent {
    state: AgentState,
    now: Duration,
    actions: Vec<Action>,
    reports: Vec<PlacementReport>,
    cancels: usize,
}

fn key(name: &str) -> PlacementKey {
    PlacementKey::new("default", name).unwrap()
}

/// An assignment of `(name, lane, version, intent)`.
fn assigned(n: u64, orders: &[(&str, Lane, &str, Intent)]) -> Assignment {
    let mut assignment = Assignment::empty(DestinationName::parse("vm-1").unwrap());
    assignment.revision = Revision { epoch: 1, n };
    for (name, lane, version, intent) in orders {
        let options = BTreeMap::from([(option::PROMISE.to_owned(), "web".to_owned())]);
        let digest = Digest::of(version.as_bytes());
        let order = Order { lane: *lane, digest, intent: *intent, options };
        assignment.orders.insert(key(name), order);
    }
    assignment
}

/// What a version claims: the object named by its first letter.
fn contents(version: &str) -> Contents {
    let claim = Claim::kubernetes("", "ConfigMap", "", &version[..1]);
    Contents { claims: BTreeSet::from([claim]), terraform: version.ends_with(".tf") }
}

impl Agent {
    fn new() -> Self {
        let start = Start {
            destination: DestinationName::parse("vm-1").unwrap(),
            assignment: None,
            held: BTreeMap::new(),
            seed: 1,
            pace: Pace::default(),
        };
        let (actions, reports) = (Vec::new(), Vec::new());
        Self { state: AgentState::new(start), now: Duration::ZERO, actions, reports, cancels: 0 }
    }

    /// Hands an input in; fetches of these versions succeed at once.
    fn take(&mut self, input: Input, versions: &[&str]) {
        self.state.handle(input, self.now);
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Fetch(digest) => {
                    let version = versions.iter().find(|v| Digest::of(v.as_bytes()) == digest);
                    let Some(version) = version else { continue };
                    let result = Ok(contents(version));
                    self.state.handle(Input::Fetched { digest, result }, self.now);
                }
                Output::Act(action) => self.actions.push(action),
                Output::Cancel { .. } => self.cancels += 1,
                Output::Report(report) => self.reports.push(report),
            }
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let action = self.actions.remove(0);
        let (placement, action) = (action.placement, action.id);
        self.take(Input::Ended { placement, action, outcome }, &["a1", "a2", "b1", "c.tf", "d.tf"]);
    }

    fn tick_at(&mut self, now: Duration) {
        self.now = now;
        self.take(Input::Tick, &[]);
    }

    /// Which placements have an action in flight, oldest first.
    fn acting(&self) -> Vec<&str> {
        self.actions.iter().map(|action| action.placement.name()).collect()
    }
}

fn healthy() -> Observation {
    Observation { health: Health::Healthy, ..Observation::default() }
}

use Intent::{Absent, Present};
use Lane::{App, Platform};

#[test]
fn an_older_or_changed_revision_is_refused() {
    let mut agent = Agent::new();
    agent.take(Input::Assigned(assigned(2, &[("a", App, "a1", Present)])), &["a1"]);
    let older = assigned(1, &[("a", App, "a1", Absent)]);
    assert!(matches!(agent.state.refusal(&older), Some(Refusal::Older { .. })));
    let other = assigned(2, &[("a", App, "a1", Absent)]);
    assert!(matches!(agent.state.refusal(&other), Some(Refusal::Different(_))));
    let before = agent.acting().len();
    agent.take(Input::Assigned(older), &[]);
    agent.take(Input::Assigned(other), &[]);
    assert_eq!((agent.acting().len(), agent.cancels), (before, 0));
    let same = assigned(2, &[("a", App, "a1", Present)]);
    assert_eq!(agent.state.refusal(&same), None);
}

#[test]
fn a_quick_apply_is_one_report_and_a_slow_one_is_announced() {
    let mut agent = Agent::new();
    agent.take(Input::Assigned(assigned(1, &[("a", App, "a1", Present)])), &["a1"]);
    agent.end(Outcome::Applied(healthy()));
    let phases: Vec<Phase> = agent.reports.iter().map(|report| report.phase).collect();
    assert_eq!(phases, [Phase::Applied]);
    agent.take(Input::Assigned(assigned(2, &[("a", App, "a2", Present)])), &["a2"]);
    agent.tick_at(Duration::from_millis(600));
    assert_eq!(agent.reports.last().unwrap().phase, Phase::Applying);
    assert_eq!(agent.reports.last().unwrap().applied, Some(Digest::of(b"a1")));
}

#[test]
fn dependencies_come_first_and_go_last() {
    let mut agent = Agent::new();
    let both = |n, intent| {
        let orders = [("app", App, "a1", intent), ("dep", Platform, "b1", intent)];
        Input::Assigned(assigned(n, &orders))
    };
    agent.take(both(1, Present), &["a1", "b1"]);
    assert_eq!(agent.acting(), ["dep"]);
    agent.end(Outcome::Failed(Failure::retried("ApplyFailed", "no")));
    assert_eq!(agent.acting(), ["app"], "a dependency that fails holds up nothing");
    agent.end(Outcome::Applied(healthy()));
    agent.take(both(2, Absent), &[]);
    assert_eq!(agent.acting(), ["app"]);
    agent.end(Outcome::Removed);
    assert_eq!(agent.acting(), ["dep"]);
    agent.end(Outcome::Removed);
    assert_eq!(agent.reports.last().unwrap().phase, Phase::Removed);
}

#[test]
fn what_two_placements_claim_is_the_firsts_until_it_lets_go() {
    let mut agent = Agent::new();
    let one = ("one", App, "a1", Present);
    agent.take(Input::Assigned(assigned(1, &[one, ("two", App, "a2", Present)])), &["a1", "a2"]);
    agent.end(Outcome::Applied(healthy()));
    assert!(agent.acting().is_empty());
    let report = agent.reports.iter().rfind(|report| report.placement == key("two")).unwrap();
    assert_eq!((report.phase, report.reason.as_str()), (Phase::Failed, "Conflict"));
    assert!(report.message.contains("ConfigMap a") && report.message.contains("default/one"));
    let gone = ("one", App, "a1", Absent);
    agent.take(Input::Assigned(assigned(2, &[gone, ("two", App, "a2", Present)])), &["a2"]);
    agent.end(Outcome::Removed);
    assert_eq!(agent.acting(), ["two"]);
}

#[test]
fn drift_is_repaired_and_told() {
    let mut agent = Agent::new();
    agent.take(Input::Assigned(assigned(1, &[("a", App, "a1", Present)])), &["a1"]);
    agent.end(Outcome::Applied(healthy()));
    agent.tick_at(Duration::from_secs(2));
    assert_eq!(agent.actions[0].task, Task::Check);
    let drift = Some("it is gone".to_owned());
    let bad = Observation { health: Health::Degraded, drift, ..Observation::default() };
    agent.end(Outcome::Checked(bad));
    assert_eq!(agent.reports.last().unwrap().health, Health::Degraded);
    assert_eq!(agent.reports.last().unwrap().phase, Phase::Applied, "health is not application");
    assert!(matches!(agent.actions[0].task, Task::Apply { .. }));
    agent.end(Outcome::Applied(healthy()));
    assert_eq!(agent.reports.last().unwrap().health, Health::Healthy);
}

#[test]
fn a_newer_order_cancels_and_a_missing_content_is_fetched_again() {
    let mut agent = Agent::new();
    agent.take(Input::Assigned(assigned(1, &[("a", App, "a1", Present)])), &["a1"]);
    agent.take(Input::Assigned(assigned(2, &[("a", App, "a2", Present)])), &["a2"]);
    assert_eq!(agent.cancels, 1);
    agent.end(Outcome::Failed(Failure::retried("Cancelled", "it was cancelled")));
    assert_eq!(agent.acting(), ["a"], "the newer order does not wait");
    agent.end(Outcome::Missing(Digest::of(b"a2")));
    assert!(agent.acting().is_empty());
    agent.now = Duration::from_secs(5);
    agent.take(Input::Tick, &["a2"]);
    assert_eq!(agent.acting(), ["a"]);
}

#[test]
fn removed_is_said_again_for_a_newer_order_to_remove() {
    let mut agent = Agent::new();
    let absent = |n| Input::Assigned(assigned(n, &[("a", App, "a1", Absent)]));
    agent.take(absent(1), &[]);
    agent.end(Outcome::Removed);
    agent.take(absent(2), &[]);
    let told: Vec<u64> = agent.reports.iter().map(|report| report.revision.n).collect();
    assert_eq!(told, [1, 2]);
    assert!(agent.acting().is_empty(), "it was removed already");
}

#[test]
fn a_changed_dependency_of_a_terraform_root_is_applied_again() {
    let mut agent = Agent::new();
    let orders = |n, dependency| {
        let orders = [("app", App, "c.tf", Present), ("dep", Platform, dependency, Present)];
        Input::Assigned(assigned(n, &orders))
    };
    agent.take(orders(1, "d.tf"), &["c.tf", "d.tf"]);
    agent.end(Outcome::Applied(healthy()));
    let Task::Apply { base, .. } = &agent.actions[0].task else { panic!("{:?}", agent.actions) };
    assert_eq!(*base, [Digest::of(b"d.tf")]);
    agent.end(Outcome::Applied(healthy()));
    agent.now = Duration::from_secs(10);
    agent.take(orders(2, "d2.tf"), &["c.tf", "d2.tf"]);
    // A look at the request had begun meanwhile; whatever is in flight ends first.
    for _ in 0..2 {
        let check = agent.actions[0].task == Task::Check;
        let seen = healthy();
        agent.end(if check { Outcome::Checked(seen) } else { Outcome::Applied(seen) });
    }
    let again = agent.actions.iter().any(|action| {
        matches!(&action.task, Task::Apply { base, .. } if *base == [Digest::of(b"d2.tf")])
    });
    assert!(again, "{:?}", agent.actions);
}
