//! The status of a state store and of its Destinations, and how a Destination goes.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt, StreamExt, stream};
use kube::{Api, Resource, api::DeleteParams};
use muster_api::{
    BucketStateStore, Destination, DestinationStatus, GitStateStore, StateStoreStatus,
    WorkPlacement,
    conditions::{self, Truth, Verdict, kind},
    destination::{Cleanup, StateStoreKind},
    labels::finalizer,
};
use muster_plan::store::{Fault, destination_ready, store_ready};

use super::{Shared, StoreKey, batch::Sites};
use crate::{
    agents::{self, AgentError, Kept, is_abandoned, update_status},
    objects::is_absent,
    queue::chain,
};

/// How many Destinations are written at once: a store may feed thousands.
const AT_ONCE: usize = 16;

impl Kept for GitStateStore {
    type Status = StateStoreStatus;
    fn status_mut(&mut self) -> &mut Option<StateStoreStatus> {
        &mut self.status
    }
}

impl Kept for BucketStateStore {
    type Status = StateStoreStatus;
    fn status_mut(&mut self) -> &mut Option<StateStoreStatus> {
        &mut self.status
    }
}

/// Keeps what is said of one store and its Destinations.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    key: StoreKey,
    /// Destinations whose test documents were written in this life, or are not wanted.
    documents: BTreeSet<String>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, key: StoreKey) -> Self {
        Self { shared, key, documents: BTreeSet::new() }
    }

    /// A Destination's test documents are in the store.
    pub(super) fn documents_are_there(&mut self, destination: String) {
        self.documents.insert(destination);
    }

    /// Whether a placement's removal shall not wait for the store.
    pub(super) fn is_given_up(&self, placement: &WorkPlacement) -> bool {
        is_abandoned(placement)
    }

    /// Writes how the store stands, and each of its Destinations; only what changed is written.
    pub(super) async fn keep(&mut self, standing: &Result<(), Fault>, sites: &Sites) {
        let verdict = store_ready(standing);
        self.note(self.store(&verdict).await);
        let all: BTreeSet<_> = sites.iter().map(|(name, _)| name.to_owned()).collect();
        self.documents.retain(|name| all.contains(name));
        let mut writes = Vec::new();
        for (name, site) in sites.iter() {
            let own = site.root.as_ref().err();
            let written = self.documents.contains(name);
            // One whose documents are about to be written is not called broken before.
            if written || own.is_some() || standing.is_err() {
                let destination = &site.destination;
                let verdict = destination_ready(destination, Some(standing), own, written);
                writes.push(self.kept(destination, verdict).boxed());
            }
        }
        stream::iter(writes).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    async fn kept(&self, destination: &Destination, verdict: Verdict) {
        self.note(self.destination(destination, &verdict).await);
    }

    /// Takes what is on Destinations that are being removed; the rest follows when it is gone.
    pub(super) async fn remove(&self, leaving: &[Arc<Destination>]) {
        for destination in leaving {
            let name = destination.metadata.name.as_deref().unwrap_or_default();
            let held = self.shared.config.world.placements_on(name);
            if held.is_empty() && destination.spec.cleanup != Cleanup::All {
                self.let_go(name).await;
            }
            for placement in held.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
                let namespace = placement.metadata.namespace.as_deref().unwrap_or_default();
                let api: Api<WorkPlacement> =
                    Api::namespaced(self.shared.config.client.clone(), namespace);
                let name = placement.metadata.name.as_deref().unwrap_or_default();
                match api.delete(name, &DeleteParams::default()).await {
                    Err(error) if !is_absent(&error) => {
                        tracing::warn!(placement = name, error = %chain(&error), "cannot be deleted");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Goes on with Destinations that are being removed though their store takes nothing: those that
    /// were given up, or whose store is gone, do not wait for it.
    pub(super) async fn remove_without_store(&self, sites: &Sites, gone: bool) {
        let leaving = sites.iter().map(|(_, site)| &site.destination);
        let leaving: Vec<_> =
            leaving.filter(|found| found.metadata.deletion_timestamp.is_some()).cloned().collect();
        self.remove(&leaving).await;
        for destination in leaving {
            let name = destination.metadata.name.as_deref().unwrap_or_default();
            let empty = self.shared.config.world.placements_on(name).is_empty();
            if empty && (gone || is_abandoned(&*destination)) {
                tracing::warn!(destination = name, "its files are left in the state store");
                self.let_go(name).await;
            }
        }
    }

    /// Lets a Destination go.
    pub(super) async fn let_go(&self, name: &str) {
        let api: Api<Destination> = Api::all(self.shared.config.client.clone());
        let result = match api.get_opt(name).await {
            Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
                agents::let_go(&api, &found, finalizer::DESTINATION_CLEANUP).await
            }
            Ok(_) => Ok(()),
            Err(error) => return tracing::warn!(name, error = %chain(&error), "cannot be read"),
        };
        self.note(result);
    }

    async fn store(&self, verdict: &Verdict) -> Result<(), AgentError> {
        let client = self.shared.config.client.clone();
        let world = &self.shared.config.world;
        match (self.key.0, world.store(self.key.0, &self.key.1)) {
            (_, None) => Ok(()),
            (StateStoreKind::GitStateStore, Some(crate::world::Store::Git(store))) => {
                self.store_status(&Api::all(client), &*store, verdict).await
            }
            (StateStoreKind::BucketStateStore, Some(crate::world::Store::Bucket(store))) => {
                self.store_status(&Api::all(client), &*store, verdict).await
            }
            _ => Ok(()),
        }
    }

    async fn store_status<K>(
        &self,
        api: &Api<K>,
        store: &K,
        verdict: &Verdict,
    ) -> Result<(), AgentError>
    where
        K: Kept<Status = StateStoreStatus>,
    {
        let generation = store.meta().generation;
        let ready = verdict.truth == Truth::True;
        let mut before = store.clone();
        let before = before.status_mut().take().unwrap_or_default();
        let said = conditions::find(&before.conditions, kind::READY).cloned();
        update_status(api, store, |status: &mut StateStoreStatus| {
            status.status = Some(if ready { "Ready" } else { "NotReady" }.to_owned());
            status.observed_generation = generation;
            conditions::set(&mut status.conditions, verdict, None, self.shared.config.clock.now());
        })
        .await?;
        if said.is_none_or(|said| said.reason != verdict.reason || said.message != verdict.message)
        {
            let about = store.object_ref(&());
            let events = &self.shared.store_events;
            let (kind, name) = (self.key.0.as_str(), &self.key.1);
            match ready {
                true => events.normal(&about, "Ready", &format!("{kind} {name:?} is ready")).await,
                false => {
                    let note = format!("{kind} {name:?} is not ready: {}", verdict.message);
                    events.warning(&about, "NotReady", &note).await;
                }
            }
        }
        Ok(())
    }

    async fn destination(
        &self,
        destination: &Destination,
        verdict: &Verdict,
    ) -> Result<(), AgentError> {
        let api: Api<Destination> = Api::all(self.shared.config.client.clone());
        let said = conditions::find(conditions_of(destination), kind::READY);
        let news = said.is_none_or(|said| {
            said.status != verdict.truth.as_str()
                || said.reason != verdict.reason
                || said.message != verdict.message
        });
        if news {
            update_status(&api, destination, |status: &mut DestinationStatus| {
                conditions::set(
                    &mut status.conditions,
                    verdict,
                    None,
                    self.shared.config.clock.now(),
                );
            })
            .await?;
            let about = destination.object_ref(&());
            let events = &self.shared.destination_events;
            match verdict.truth {
                Truth::True => {
                    events.normal(&about, "DestinationReady", "Destination is Ready").await
                }
                _ => events.warning(&about, "DestinationNotReady", &verdict.message).await,
            }
        }
        match destination.spec.cleanup {
            Cleanup::All => agents::hold(&api, destination, finalizer::DESTINATION_CLEANUP).await,
            Cleanup::None if destination.metadata.deletion_timestamp.is_none() => {
                agents::let_go(&api, destination, finalizer::DESTINATION_CLEANUP).await
            }
            Cleanup::None => Ok(()),
        }
    }

    /// What could not be written is written at the next turn.
    fn note(&self, result: Result<(), AgentError>) {
        if let Err(error) = result {
            let store = format!("{}/{}", self.key.0.as_str(), self.key.1);
            tracing::warn!(store, error = %chain(&error), "a status waits for its next turn");
        }
    }
}

fn conditions_of(
    destination: &Destination,
) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    destination.status.as_ref().map_or(&[], |status| &status.conditions)
}
