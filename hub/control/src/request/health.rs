//! What others recorded of the health of requests, as it is seen.
//!
//! A request's status follows from the records that there are, so that a record may be deleted at any
//! time; Kratix holds each by a finalizer, and some for ever.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use muster_api::HealthRecord;
use tokio_util::sync::CancellationToken;

use super::RequestKey;
use crate::{
    queue::Triggers,
    shelf::{ObjectKey, Shelf},
};

/// All HealthRecords.
#[derive(Default)]
pub(crate) struct Records(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    all: Shelf<HealthRecord>,
    by_request: HashMap<RequestKey, BTreeSet<ObjectKey>>,
}

impl Records {
    /// The records of a request.
    pub(super) fn of(&self, request: &RequestKey) -> Vec<HealthRecord> {
        let seen = self.lock();
        let own = seen.by_request.get(request).into_iter().flatten();
        own.filter_map(|key| seen.all.get(key)).map(|record| record.as_ref().clone()).collect()
    }

    /// Whether a request has any.
    pub(super) fn are_any(&self, request: &RequestKey) -> bool {
        self.lock().by_request.contains_key(request)
    }

    /// Has requests looked at when a record of theirs comes, changes or goes, until `shutdown`.
    pub(crate) async fn follow(
        &self,
        client: Client,
        requests: Triggers<RequestKey>,
        shutdown: CancellationToken,
    ) {
        let api: Api<HealthRecord> = Api::all(client);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = Box::pin(events.take_until(shutdown.cancelled()));
        while let Some(event) = events.next().await {
            let woken = match event {
                Ok(event) => self.lock().take(event),
                Err(error) => {
                    let error = crate::queue::chain(&error);
                    tracing::warn!(error, "the watch of health records begins again");
                    continue;
                }
            };
            for request in woken {
                requests.look_at(request).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Takes an event in; says which requests it concerns.
    fn take(&mut self, event: watcher::Event<HealthRecord>) -> Vec<RequestKey> {
        let mut concerned = Vec::new();
        for changed in self.all.take(event) {
            for (record, present) in [(&changed.old, false), (&changed.new, true)] {
                let Some(request) = record.as_deref().and_then(request_of) else { continue };
                let held = self.by_request.entry(request.clone()).or_default();
                match present {
                    true => held.insert(changed.key.clone()),
                    false => held.remove(&changed.key),
                };
                if held.is_empty() {
                    self.by_request.remove(&request);
                }
                concerned.push(request);
            }
        }
        concerned
    }
}

/// The request that a record is of: of this Promise, and of this name.
fn request_of(record: &HealthRecord) -> Option<RequestKey> {
    let request = record.data.resource_ref.as_ref()?;
    Some(RequestKey {
        promise: record.data.promise_ref.name.clone(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
    })
}
