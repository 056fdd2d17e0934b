//! Takes objects away: what a placement lists no more, or all of it, in the reverse of the order in
//! which they were applied, so that custom resources go before their definitions.

use std::{collections::BTreeSet, time::Duration};

use muster_core::{Failure, PlacementKey};
use serde_json::{Value, json};

use super::{
    Kubernetes,
    api::{ApiError, Applying},
    failure, inventory_failure, is_ours,
    ledger::Entry,
    object::ObjectRef,
    uid,
};

/// How long an object may take to go before the attempt ends and is made again; a namespace with
/// finalizers inside may take minutes, and holds up only its placement.
const GONE_MAX: Duration = Duration::from_secs(60);
const GONE_LOOK_FIRST: Duration = Duration::from_millis(10);
const GONE_LOOK_MAX: Duration = Duration::from_secs(1);

impl Kubernetes {
    /// Removes what `before` has and `now` has not.
    pub(super) async fn prune(
        &self,
        key: &PlacementKey,
        before: &BTreeSet<Entry>,
        now: &BTreeSet<Entry>,
    ) -> Result<(), Failure> {
        let kept: BTreeSet<_> = now.iter().map(|entry| entry.object.claim()).collect();
        let gone = before.iter().filter(|entry| !kept.contains(&entry.object.claim()));
        self.take_away(key, gone.collect()).await
    }

    /// Removes all of a placement, then its inventory.
    pub(super) async fn remove_objects(&self, key: &PlacementKey) -> Result<(), Failure> {
        let entries = self.ledger.get(&self.api, key).await.map_err(inventory_failure)?;
        self.take_away(key, entries.iter().collect()).await?;
        self.put(key, &BTreeSet::new()).await
    }

    async fn take_away(&self, key: &PlacementKey, entries: Vec<&Entry>) -> Result<(), Failure> {
        let ranks: BTreeSet<u8> = entries.iter().map(|entry| entry.object.rank()).collect();
        for rank in ranks.into_iter().rev() {
            let mut going = Vec::new();
            for entry in entries.iter().filter(|entry| entry.object.rank() == rank) {
                let object = &entry.object;
                self.lock_clean().remove(&(key.clone(), object.claim()));
                // What another live placement lists is its own from now on.
                if self.ledger.other_owner(key, &object.claim()).is_some() {
                    continue;
                }
                let live = self.api.read(object).await.map_err(|error| failure(object, &error))?;
                let Some(live) = live else { continue };
                if entry.adopted {
                    self.give_up(object, &live).await.map_err(|error| failure(object, &error))?;
                    continue;
                }
                let deleted = self.api.delete(object, uid(&live)).await;
                deleted.map_err(|error| failure(object, &error))?;
                going.push((object, uid(&live).to_owned()));
            }
            for (object, uid) in going {
                self.wait_gone(object, &uid).await?;
            }
            // Kinds that went with their definitions must not be taken for served ones.
            if entries.iter().any(|e| e.object.rank() == rank && e.object.is_crd()) {
                self.api.forget_kinds();
            }
        }
        Ok(())
    }

    /// Takes our fields out of an object that was there before us.
    async fn give_up(&self, object: &ObjectRef, live: &Value) -> Result<(), ApiError> {
        if !is_ours(live) {
            return Ok(());
        }
        let mut bare = json!({
            "apiVersion": object.api_version(), "kind": object.kind,
            "metadata": {"name": object.name},
        });
        if !object.namespace.is_empty() {
            bare["metadata"]["namespace"] = json!(object.namespace);
        }
        self.api.apply(&bare, Applying::default()).await.map(|_| ())
    }

    async fn wait_gone(&self, object: &ObjectRef, deleted: &str) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + GONE_MAX;
        let mut pause = GONE_LOOK_FIRST;
        loop {
            let live = self.api.read(object).await.map_err(|error| failure(object, &error))?;
            let Some(live) = live.filter(|live| uid(live) == deleted) else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                let finalizers = live.pointer("/metadata/finalizers").cloned().unwrap_or_default();
                let message = format!(
                    "{object} was deleted and is still there after {GONE_MAX:?}: \
                     its finalizers {finalizers} wait for their controllers"
                );
                return Err(Failure::retried("StillThere", message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(GONE_LOOK_MAX);
        }
    }
}
