//! For whom something is there: the Promise or the request that Jobs, pods, Works and placements
//! belong to, by their labels; and how it is woken.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_api::labels;
use muster_daemon::Clock;

use crate::{
    queue::{Triggers, queue},
    request::RequestKey,
};

/// A Promise or a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Promise(String),
    Request(RequestKey),
}

impl Owner {
    /// Whose an object is.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        Self::by(metadata.labels.as_ref()?)
    }

    /// Whose an object with these labels is.
    pub(crate) fn by(all: &BTreeMap<String, String>) -> Option<Self> {
        let promise = all.get(labels::PROMISE_NAME)?.clone();
        let Some(name) = all.get(labels::RESOURCE_NAME).cloned() else {
            return Some(Self::Promise(promise));
        };
        let namespace = all.get(labels::RESOURCE_NAMESPACE)?.clone();
        Some(Self::Request(RequestKey { promise, namespace, name }))
    }
}

/// The ways to the two queues.
#[derive(Clone)]
pub(crate) struct Wakes {
    pub(crate) promises: Triggers<String>,
    pub(crate) requests: Triggers<RequestKey>,
}

impl Wakes {
    /// Ways that lead nowhere.
    pub(crate) fn of_nobody(clock: &Clock) -> Self {
        Self { promises: queue("", clock).0, requests: queue("", clock).0 }
    }

    /// Has the owner looked at again.
    pub(crate) async fn look_at(&self, owner: Owner) {
        match owner {
            Owner::Promise(name) => self.promises.look_at(name).await,
            Owner::Request(key) => self.requests.look_at(key).await,
        }
    }
}
