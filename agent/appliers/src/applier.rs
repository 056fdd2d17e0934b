//! What every applier can do, so that one engine drives them all.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use muster_core::{Digest, Failure, Health, Observation, PlacementKey};
use tokio_util::sync::CancellationToken;

use crate::split::Parts;

/// One placement, as an applier sees it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Which placement.
    pub(crate) key: PlacementKey,
    /// Which content.
    pub(crate) digest: Option<Digest>,
    /// What is to be there; empty when it is to be removed or its files are gone from the cache.
    pub(crate) parts: Arc<Parts>,
    /// What was last applied completely, if its files are still in the cache.
    pub(crate) previous: Option<Arc<Parts>>,
    /// The parts of the Promise's dependencies whose `*.tf` files belong to the root module.
    pub(crate) base: Vec<Arc<Parts>>,
    /// The order's options.
    pub(crate) options: BTreeMap<String, String>,
    /// When it fires, the action ends as soon as that loses nothing.
    pub(crate) cancel: CancellationToken,
}

/// Applies one kind of files. An action may be cancelled, and its future dropped, at any moment; the
/// next one of the same placement then finds and finishes or ends what was begun.
pub(crate) trait Applier: Send + Sync {
    /// Makes the destination hold exactly what the job lists.
    fn apply<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>>;
    /// Looks whether it is as applied, and how it is doing.
    fn check<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>>;
    /// Removes all of the placement; succeeds when there is nothing.
    fn remove<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Joins what several appliers, or several parts, saw.
pub(crate) fn join(all: impl IntoIterator<Item = Observation>) -> Observation {
    let all: Vec<Observation> = all.into_iter().collect();
    let health = Health::worst(all.iter().map(|seen| seen.health)).unwrap_or(Health::Healthy);
    let worst = all.iter().filter(|seen| seen.health == health && !seen.health_message.is_empty());
    let messages: Vec<&str> = worst.map(|seen| seen.health_message.as_str()).collect();
    let mut joined =
        Observation { health, health_message: messages.join("; "), ..Observation::default() };
    for seen in all {
        joined.outputs.extend(seen.outputs);
        joined.unapplied_files.extend(seen.unapplied_files);
        joined.drift = joined.drift.or(seen.drift);
        joined.recheck = joined.recheck.into_iter().chain(seen.recheck).min();
    }
    joined
}
