//! The assignment of every destination, kept by the placements' watch and streamed to agents.
//!
//! A change of a placement changes one order of one assignment; events that are ready together are
//! published together. A revision is (epoch, n): the epoch is taken from the API when the hub
//! starts, and `n` is a counter in memory.

mod epoch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use kube::{Api, Client};
use muster_api::{Agent, WorkPlacement};
use muster_core::{
    Assignment, DestinationName, Digest, Intent, Order, PlacementKey, Revision,
    assignment::ORDERS_MAX,
    ports::{AssignmentSource, PortError},
};
use muster_plan::assign::{AssignError, assign};
use tokio::sync::watch;

use crate::{
    content::{ContentError, ContentStore},
    shelf::Changed,
};

pub use epoch::{EpochError, raise_after_restore};

/// Assignments by destination; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Assignments {
    client: Client,
    content: ContentStore,
    desks: Arc<Mutex<Desks>>,
}

#[derive(Debug, Default)]
struct Desks {
    revision: Revision,
    /// Whether the epoch is taken and the first list complete: nothing is published before.
    open: bool,
    desks: BTreeMap<DestinationName, Desk>,
    dirty: BTreeSet<DestinationName>,
}

/// One destination's orders, and who listens.
#[derive(Debug)]
struct Desk {
    orders: BTreeMap<PlacementKey, Entry>,
    published: watch::Sender<Published>,
}

#[derive(Debug)]
struct Entry {
    order: Order,
    /// The newest revision in which this was an order to be present.
    present_at: Option<Revision>,
}

#[derive(Debug, Clone)]
enum Published {
    NotYet,
    Current(Arc<Assignment>),
    /// The agent is gone.
    Ended,
}

impl Assignments {
    pub(crate) fn new(client: Client, content: ContentStore) -> Self {
        Self { client, content, desks: Arc::default() }
    }

    /// Takes the next epoch and begins to publish.
    pub(crate) async fn open(&self) -> Result<(), EpochError> {
        let epoch = epoch::take(&self.client, 0).await?;
        let mut desks = self.lock();
        desks.revision = Revision { epoch, n: 0 };
        desks.open = true;
        desks.dirty_all();
        desks.publish();
        Ok(())
    }

    /// Takes changes of placements and tells the agents concerned.
    pub(crate) fn take(&self, changes: &[Changed<WorkPlacement>]) {
        let mut desks = self.lock();
        for changed in changes {
            desks.change(changed);
        }
        desks.publish();
    }

    /// Ends the streams of an agent that is removed or revoked.
    pub(crate) fn end(&self, agent: &str) {
        let Ok(name) = DestinationName::parse(agent) else { return };
        let mut desks = self.lock();
        if let Some(desk) = desks.desks.get_mut(&name) {
            desk.published.send_replace(Published::Ended);
            desk.published = watch::Sender::new(Published::NotYet);
            desks.dirty.insert(name);
            desks.publish();
        }
    }

    /// Whether a report of this revision that a placement is removed can be about the order to
    /// remove it: a destination that was told in between to have it may have it.
    pub(crate) fn is_removed_by(
        &self,
        destination: &DestinationName,
        placement: &PlacementKey,
        revision: Revision,
    ) -> bool {
        let desks = self.lock();
        let entry = desks.desks.get(destination).and_then(|desk| desk.orders.get(placement));
        entry.and_then(|entry| entry.present_at).is_none_or(|present_at| revision > present_at)
    }

    fn lock(&self) -> MutexGuard<'_, Desks> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn raise(&self, above: Revision) -> Result<(), EpochError> {
        if above.epoch < self.lock().revision.epoch {
            return Ok(());
        }
        let epoch = epoch::take(&self.client, above.epoch).await?;
        let mut desks = self.lock();
        if epoch > desks.revision.epoch {
            desks.revision = Revision { epoch, n: 0 };
            desks.dirty_all();
            desks.publish();
        }
        Ok(())
    }

    /// Whether there is such an agent, and it is not revoked.
    async fn is_agent(client: Client, name: &DestinationName) -> bool {
        let agents: Api<Agent> = Api::all(client);
        match agents.get_opt(name.as_str()).await {
            Ok(agent) => agent.is_some_and(|agent| !agent.spec.revoked),
            Err(error) => {
                tracing::warn!(agent = %name, %error, "agent could not be read; its session ends");
                false
            }
        }
    }
}

impl AssignmentSource for Assignments {
    fn subscribe(&self, agent: &DestinationName) -> BoxStream<'static, Arc<Assignment>> {
        // Listening begins before the agent is looked up: its end is missed by neither.
        let published = {
            let mut desks = self.lock();
            let published = desks.desk(agent).published.subscribe();
            if matches!(*published.borrow(), Published::NotYet) {
                desks.dirty.insert(agent.clone());
                desks.publish();
            }
            published
        };
        let client = self.client.clone();
        let agent = agent.clone();
        let start = async move {
            let known = Self::is_agent(client, &agent).await;
            stream::unfold((published, true), next).take_while(move |_| async move { known })
        };
        start.flatten_stream().boxed()
    }

    fn raise_epoch(&self, above: Revision) -> BoxFuture<'_, Result<(), PortError>> {
        self.raise(above)
            .map(|result| {
                result.map_err(|error| match error {
                    EpochError::TooHigh { .. } => PortError::Refused(error.to_string()),
                    EpochError::Api(_) => PortError::Unavailable(error.to_string()),
                })
            })
            .boxed()
    }

    fn content(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, PortError>> {
        self.content
            .compressed(digest)
            .map(move |result| {
                result.map_err(|error| match error {
                    ContentError::Missing(_) => PortError::NotFound(format!("content {digest}")),
                    error => PortError::Unavailable(error.to_string()),
                })
            })
            .boxed()
    }
}

type Listening = (watch::Receiver<Published>, bool);

/// The next assignment of a stream: the current one first, then each newer.
async fn next((mut published, mut first): Listening) -> Option<(Arc<Assignment>, Listening)> {
    loop {
        if !first {
            published.changed().await.ok()?;
        }
        first = false;
        let current = published.borrow_and_update().clone();
        match current {
            Published::NotYet => {}
            Published::Current(assignment) => return Some((assignment, (published, false))),
            Published::Ended => return None,
        }
    }
}

// === impl Desks ===

impl Desks {
    fn desk(&mut self, name: &DestinationName) -> &mut Desk {
        self.desks.entry(name.clone()).or_insert_with(|| Desk {
            orders: BTreeMap::new(),
            published: watch::Sender::new(Published::NotYet),
        })
    }

    fn dirty_all(&mut self) {
        self.dirty.extend(self.desks.keys().cloned());
    }

    fn change(&mut self, changed: &Changed<WorkPlacement>) {
        let old = changed.old.as_deref().map(assign).and_then(Result::ok);
        let new = match changed.new.as_deref().map(assign) {
            None => None,
            Some(Ok(new)) => Some(new),
            Some(Err(error)) => {
                tracing::warn!(%error, "placement cannot be assigned");
                None
            }
        };
        if let Some(old) = old {
            let moved = new.as_ref().is_none_or(|new| new.destination != old.destination);
            let desk = self.desk(&old.destination);
            if moved && desk.orders.remove(&old.placement).is_some() {
                self.dirty.insert(old.destination);
            }
        }
        let Some(new) = new else { return };
        let desk = self.desk(&new.destination);
        let held = desk.orders.len();
        match desk.orders.get_mut(&new.placement) {
            Some(entry) if entry.order == new.order => return,
            Some(entry) => entry.order = new.order,
            None if held >= ORDERS_MAX => {
                let error = AssignError::Full(new.destination);
                tracing::warn!(placement = %new.placement, %error, "placement cannot be assigned");
                return;
            }
            None => {
                desk.orders.insert(new.placement, Entry { order: new.order, present_at: None });
            }
        }
        self.dirty.insert(new.destination);
    }

    fn publish(&mut self) {
        if !self.open {
            return;
        }
        while let Some(name) = self.dirty.pop_first() {
            let Some(desk) = self.desks.get_mut(&name) else { continue };
            if desk.orders.is_empty() && desk.published.receiver_count() == 0 {
                // Nobody to tell and nothing to say; a subscriber makes it anew.
                self.desks.remove(&name);
                continue;
            }
            self.revision.n += 1;
            let revision = self.revision;
            for entry in desk.orders.values_mut() {
                if entry.order.intent == Intent::Present {
                    entry.present_at = Some(revision);
                }
            }
            let orders = desk.orders.iter().map(|(key, entry)| (key.clone(), entry.order.clone()));
            let orders = orders.collect();
            let assignment = Assignment { destination: name, revision, orders };
            desk.published.send_replace(Published::Current(Arc::new(assignment)));
        }
    }
}
