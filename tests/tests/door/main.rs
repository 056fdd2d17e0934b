//! The two sides of the agents' door, over real TLS sockets on loopback: joining, sessions, content,
//! and every refusal.

mod absence;
mod certificates;
mod hostile;
mod house;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use house::House;
use muster_core::{
    Assignment, Digest, FileSet, Health, Intent, Lane, Order, Phase, PlacementKey, PlacementReport,
    Revision, ports::AgentFacts,
};
use muster_gateway::{Gateway, GatewayConfig, Ports};
use muster_link::{
    EnrolError, EnrolOptions, Identity, LinkConfig, LinkEvent, LinkHandle, enrol, link,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

const TOKEN: &str = "muster.abcde.secret";

/// A running gateway; it ends with this.
struct Hub {
    house: Arc<House>,
    address: String,
    pin: String,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _stop: DropGuard,
}

/// A running link; it ends with this.
struct Agent {
    handle: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    _stop: DropGuard,
}

/// A deadline for what never takes long: a test that waits for it has failed.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it did not happen")
}

async fn hub(dir: &TempDir, house: Arc<House>, listen: &str) -> Hub {
    let config = GatewayConfig {
        data_dir: dir.path().to_owned(),
        listen: listen.parse().unwrap(),
        advertise: vec!["hub.example:7443".to_owned()],
        pulse: Duration::from_secs(1),
    };
    let ports = Ports {
        assignments: house.clone(),
        reports: house.clone(),
        enrolments: house.clone(),
        presence: house.clone(),
    };
    let gateway = Gateway::build(config, ports).await.unwrap();
    let (address, pin) = (gateway.local_addr().to_string(), gateway.ca_pin().to_string());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { gateway.run(stop).await.unwrap() }
    });
    Hub { house, address, pin, _stop: stop.clone().drop_guard(), stop, running }
}

impl Hub {
    async fn new(dir: &TempDir) -> Self {
        hub(dir, House::new("vm-1", TOKEN), "127.0.0.1:0").await
    }

    async fn join(&self, state_dir: &Path, token: &str) -> Result<Identity, EnrolError> {
        enrol(EnrolOptions {
            hub: self.address.clone(),
            ca_pin: self.pin.clone(),
            token: token.to_owned(),
            state_dir: state_dir.to_owned(),
            facts: facts(),
        })
        .await
    }

    async fn end(self) -> (Arc<House>, String) {
        self.stop.cancel();
        soon(self.running).await.unwrap();
        (self.house, self.address)
    }
}

impl Agent {
    fn start(identity: Identity, held: Option<&Assignment>) -> Self {
        let (handle, events, run) = link(LinkConfig { identity, facts: facts() });
        if let Some(held) = held {
            handle.holding(held);
        }
        let stop = CancellationToken::new();
        tokio::spawn(run.run(stop.clone()));
        Self { handle, events, _stop: stop.drop_guard() }
    }

    async fn next(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.expect("the link ended")
    }

    /// The next assignment, whatever else is told before it.
    async fn assigned(&mut self) -> Assignment {
        loop {
            if let LinkEvent::Assigned(assignment) = self.next().await {
                return assignment;
            }
        }
    }

    async fn down(&mut self) -> String {
        loop {
            match self.next().await {
                LinkEvent::Down { cause } | LinkEvent::Refused { cause, .. } => return cause,
                LinkEvent::Up | LinkEvent::Assigned(_) => {}
            }
        }
    }
}

fn facts() -> AgentFacts {
    AgentFacts { version: "0.1.0".to_owned(), ..AgentFacts::default() }
}

fn files(text: &str) -> FileSet {
    let mut files = FileSet::new();
    files.insert("a.yaml", text.as_bytes().to_vec()).unwrap();
    files
}

fn order(assignment: &mut Assignment, digest: Digest) {
    let order =
        Order { lane: Lane::App, digest, intent: Intent::Present, options: BTreeMap::new() };
    assignment.orders.insert(PlacementKey::new("default", "web").unwrap(), order);
}

fn report(name: &str, phase: Phase) -> PlacementReport {
    PlacementReport {
        placement: PlacementKey::new("default", name).unwrap(),
        revision: Revision { epoch: 1, n: 1 },
        desired: Digest::of(b"x"),
        applied: None,
        phase,
        reason: phase.as_str().to_owned(),
        message: String::new(),
        health: Health::Unknown,
        health_message: String::new(),
        outputs: BTreeMap::new(),
        unapplied_files: Vec::new(),
    }
}

#[tokio::test]
async fn a_host_joins_holds_a_session_and_gets_its_content() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let mut agent = Agent::start(identity, None);
    assert_eq!(agent.next().await, LinkEvent::Up);
    assert!(agent.assigned().await.orders.is_empty());

    let digest = hub.house.store(&files("kind: A"));
    hub.house.assign(|next| order(next, digest));
    let assignment = agent.assigned().await;
    agent.handle.holding(&assignment);
    let compressed = soon(agent.handle.fetch(digest)).await.unwrap();
    assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), files("kind: A").encode());

    agent.handle.report(report("web", Phase::Applied));
    let seen = hub.house.wait(|seen| !seen.reports.is_empty()).await;
    assert_eq!(seen.reports, [report("web", Phase::Applied)]);
}

#[tokio::test]
async fn a_token_serves_one_key_again_and_no_other() {
    let (hub_dir, one, two) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let wrong = hub.join(one.path(), "muster.abcde.guess").await.unwrap_err().to_string();
    assert!(wrong.contains("the token is not known"), "{wrong}");
    hub.join(one.path(), TOKEN).await.unwrap();
    hub.join(one.path(), TOKEN).await.unwrap();
    let twice = hub.join(two.path(), TOKEN).await.unwrap_err().to_string();
    assert!(twice.contains("used by another key"), "{twice}");
}

#[tokio::test]
async fn a_state_directory_stays_with_its_agent() {
    let (hub_dir, other_dir, agent_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (hub, other) = (Hub::new(&hub_dir).await, Hub::new(&other_dir).await);
    // The same hub, with a token for another agent.
    let renamed = self::hub(&hub_dir, House::new("vm-2", TOKEN), "127.0.0.1:0").await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    for wrong in [&other, &renamed] {
        let error = wrong.join(agent_dir.path(), TOKEN).await.unwrap_err().to_string();
        assert!(
            error.contains("is that of agent vm-1") && error.contains("--state-dir"),
            "{error}"
        );
    }
    let kept = Identity::load(agent_dir.path()).unwrap().unwrap();
    Agent::start(kept, None).assigned().await;
}

#[tokio::test]
async fn a_hub_with_another_authority_is_not_told_the_token() {
    let (hub_dir, other_dir, agent_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut hub = Hub::new(&hub_dir).await;
    let other = Hub::new(&other_dir).await;
    hub.pin = other.pin.clone();
    let error = hub.join(agent_dir.path(), TOKEN).await.unwrap_err().to_string();
    assert!(error.contains("is not the hub that this agent trusts"), "{error}");
    assert_eq!(hub.house.seen.borrow().admitted, 0);
}

#[tokio::test]
async fn an_agent_of_another_hub_is_told_so() {
    let (hub_dir, other_dir, agent_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let (house, address) = hub.end().await;
    // Another hub takes the address, with another authority.
    let _other = self::hub(&other_dir, house, &address).await;
    let identity = Identity::load(agent_dir.path()).unwrap().unwrap();
    let mut agent = Agent::start(identity, None);
    let why = agent.down().await;
    assert!(why.contains("is not the hub that this agent trusts"), "{why}");
}

#[tokio::test]
async fn content_of_others_is_refused() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let digest = hub.house.store(&files("kind: Secret"));
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), None);
    agent.assigned().await;
    let error = soon(agent.handle.fetch(digest)).await.unwrap_err().to_string();
    assert!(error.contains("does not name content"), "{error}");
}

#[tokio::test]
async fn a_revoked_agent_is_cut_at_once_and_not_let_in_again() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let mut agent = Agent::start(identity.clone(), None);
    agent.assigned().await;
    hub.house.assignment.send_replace(None);
    let why = agent.down().await;
    assert!(why.contains("removed or revoked"), "{why}");
    hub.house.wait(|seen| seen.live.is_empty()).await;
    let mut again = Agent::start(identity, None);
    let why = again.down().await;
    assert!(why.contains("removed or revoked"), "{why}");
    assert_eq!(hub.house.seen.borrow().sessions, 1);
}

#[tokio::test]
async fn a_newer_session_ends_the_older() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let mut older = Agent::start(identity.clone(), None);
    older.assigned().await;
    let mut newer = Agent::start(identity, None);
    newer.assigned().await;
    let why = older.down().await;
    assert!(why.contains("cloned"), "{why}");
    hub.house.wait(|seen| seen.sessions == 2 && seen.live.len() == 1).await;
}

#[tokio::test]
async fn an_equal_assignment_is_not_sent_again_and_a_newer_one_is() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let digest = hub.house.store(&files("kind: A"));
    hub.house.assign(|next| order(next, digest));
    let held = hub.house.assignment.borrow().clone().unwrap();
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), Some(&held));
    assert_eq!(agent.next().await, LinkEvent::Up);
    // It may fetch what it holds orders for, though nothing was sent.
    soon(agent.handle.fetch(digest)).await.unwrap();
    hub.house.assign(|_| {});
    let LinkEvent::Assigned(next) = agent.next().await else { panic!("something else came") };
    assert_eq!(next.revision, Revision { epoch: 1, n: held.revision.n + 1 });
}

#[tokio::test]
async fn a_hub_that_is_behind_its_agent_raises_its_epoch() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let mut held = Assignment::clone(hub.house.assignment.borrow().as_ref().unwrap());
    held.revision = Revision { epoch: 7, n: 3 };
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), Some(&held));
    assert_eq!(agent.assigned().await.revision, Revision { epoch: 8, n: 1 });
    assert_eq!(*hub.house.raised.lock().unwrap(), [held.revision]);
}

#[tokio::test]
async fn an_agent_comes_back_to_a_restarted_hub_and_tells_all_again() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let pin = hub.pin.clone();
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), None);
    agent.assigned().await;
    agent.handle.report(report("old", Phase::Applied));
    hub.house.wait(|seen| seen.reports.len() == 1).await;
    let (house, address) = hub.end().await;
    agent.down().await;
    agent.handle.report(report("new", Phase::Failed));
    let hub = self::hub(&hub_dir, house, &address).await;
    assert_eq!(hub.pin, pin, "the authority was made anew");
    let seen = hub.house.wait(|seen| seen.reports.len() == 3).await;
    let mut names: Vec<_> = seen.reports[1..].iter().map(|r| r.placement.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["new", "old"]);
}

#[tokio::test]
async fn pulses_keep_a_quiet_session_and_reach_no_port() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), None);
    agent.assigned().await;
    let before = format!("{:?}", hub.house.seen.borrow());
    // Longer than the three pulses of a second after which a silent session is cut.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(agent.events.try_recv().is_err(), "something happened");
    assert_eq!(format!("{:?}", hub.house.seen.borrow()), before);
}
