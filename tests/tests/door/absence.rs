//! What an agent's line does while there is no session, or while a session brings what it cannot use.

use muster_core::{Lane, Order, assignment::ORDERS_MAX};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_fetch_that_begins_without_a_session_is_answered_in_the_next_one() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let digest = hub.house.store(&files("kind: A"));
    hub.house.assign(|next| order(next, digest));
    let held = hub.house.assignment.borrow().clone().unwrap();
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let (house, address) = hub.end().await;
    let mut agent = Agent::start(identity, Some(&held));
    let handle = agent.handle.clone();
    let fetch = tokio::spawn(async move { handle.fetch(digest).await });
    agent.down().await;
    let _hub = self::hub(&hub_dir, house, &address).await;
    let compressed = soon(fetch).await.unwrap().unwrap();
    assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), files("kind: A").encode());
}

#[tokio::test]
async fn one_cause_is_told_once_however_often_the_hub_is_tried() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    let (house, address) = hub.end().await;
    let broken = TcpListener::bind(&address).await.unwrap();
    let mut agent = Agent::start(identity, None);
    for _ in 0..5 {
        drop(soon(broken.accept()).await.unwrap());
    }
    assert!(matches!(agent.next().await, LinkEvent::Down { .. }));
    assert!(agent.events.try_recv().is_err(), "told again");
    drop(broken);
    let _hub = self::hub(&hub_dir, house, &address).await;
    while agent.next().await != LinkEvent::Up {}
}

#[tokio::test]
async fn a_refused_agent_is_told_when_it_asks_again() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let identity = hub.join(agent_dir.path(), TOKEN).await.unwrap();
    hub.house.assignment.send_replace(None);
    let mut agent = Agent::start(identity, None);
    let LinkEvent::Refused { cause, again_in } = agent.next().await else { panic!("let in") };
    assert!(cause.contains("removed or revoked"), "{cause}");
    assert!(again_in >= Duration::from_secs(60), "{again_in:?}");
}

#[tokio::test]
async fn an_assignment_that_cannot_be_read_is_refused_and_the_session_goes_on() {
    let (hub_dir, agent_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Hub::new(&hub_dir).await;
    let mut agent = Agent::start(hub.join(agent_dir.path(), TOKEN).await.unwrap(), None);
    let first = agent.assigned().await;
    agent.handle.holding(&first);
    hub.house.assign(|next| {
        for n in 0..=ORDERS_MAX {
            let order = Order {
                lane: Lane::App,
                digest: Digest::of(b"x"),
                intent: Intent::Present,
                options: BTreeMap::new(),
            };
            next.orders.insert(PlacementKey::new("default", &format!("p{n}")).unwrap(), order);
        }
    });
    agent.handle.report(report("web", Phase::Applied));
    hub.house.wait(|seen| seen.reports.len() == 1).await;
    hub.house.assign(|next| next.orders.clear());
    let next = agent.assigned().await;
    assert_eq!(next.revision.n, first.revision.n + 2, "the unreadable one was taken");
    assert_eq!(hub.house.seen.borrow().sessions, 1, "the session ended");
}
