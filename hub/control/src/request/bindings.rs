//! Which bindings there are of each request, as they are seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use muster_api::{ResourceBinding, labels};
use tokio_util::sync::CancellationToken;

use super::RequestKey;
use crate::{objects::is_leaving, queue::Triggers};

/// The bindings of each request, by name.
#[derive(Default)]
pub(crate) struct Bindings(Mutex<HashMap<RequestKey, BTreeMap<String, Wish>>>);

/// What of a binding is asked for, not told: its status is the request's controller's.
#[derive(PartialEq)]
struct Wish {
    uid: Option<String>,
    generation: Option<i64>,
    labels: BTreeMap<String, String>,
    leaving: bool,
}

type Seen = PartialObjectMeta<ResourceBinding>;

impl Bindings {
    /// Whether more than one is seen of a request.
    pub(super) fn are_several(&self, request: &RequestKey) -> bool {
        self.lock().get(request).is_some_and(|held| held.len() > 1)
    }

    /// Has requests looked at when a binding of theirs comes, goes or asks for something else, until
    /// `shutdown`.
    pub(crate) async fn follow(
        &self,
        client: Client,
        requests: Triggers<RequestKey>,
        shutdown: CancellationToken,
    ) {
        let api: Api<Seen> = Api::all(client);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = Box::pin(events.take_until(shutdown.cancelled()));
        while let Some(event) = events.next().await {
            let woken = match event {
                Ok(watcher::Event::Apply(seen) | watcher::Event::InitApply(seen)) => {
                    self.see(&seen)
                }
                Ok(watcher::Event::Delete(seen)) => self.lose(&seen),
                // What went while nobody watched is not told.
                Ok(watcher::Event::Init) => {
                    self.lock().clear();
                    None
                }
                Ok(watcher::Event::InitDone) => None,
                Err(error) => {
                    let error = crate::queue::chain(&error);
                    tracing::warn!(error, "the watch of bindings begins again");
                    None
                }
            };
            if let Some(request) = woken {
                requests.look_at(request).await;
            }
        }
    }

    fn see(&self, seen: &Seen) -> Option<RequestKey> {
        let request = request_of(seen)?;
        let wish = Wish {
            uid: seen.metadata.uid.clone(),
            generation: seen.metadata.generation,
            labels: seen.labels().clone(),
            leaving: is_leaving(&seen.metadata),
        };
        let mut all = self.lock();
        let held = all.entry(request.clone()).or_default();
        let news = held.get(&seen.name_any()) != Some(&wish);
        held.insert(seen.name_any(), wish);
        news.then_some(request)
    }

    fn lose(&self, seen: &Seen) -> Option<RequestKey> {
        let request = request_of(seen)?;
        let mut all = self.lock();
        if let Some(held) = all.get_mut(&request) {
            held.remove(&seen.name_any());
            if held.is_empty() {
                all.remove(&request);
            }
        }
        Some(request)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestKey, BTreeMap<String, Wish>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request_of(binding: &Seen) -> Option<RequestKey> {
    let label = |key: &str| binding.labels().get(key).cloned();
    Some(RequestKey {
        promise: label(labels::PROMISE_NAME)?,
        namespace: binding.namespace()?,
        name: label(labels::RESOURCE_NAME)?,
    })
}
