//! The one node: what all pods of this host share.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use rand::Rng;
use tokio::sync::Semaphore;

use crate::{config::RunnerConfig, executor::Executor, logs::Logs, slots::Slots};

/// Events that wait to be written; more of them would only tell the same again.
const EVENTS_PENDING_MAX: usize = 64;
/// The characters of Kubernetes' generated names: none that spell a word.
const SUFFIX_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;

pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) executor: Executor,
    pub(crate) config: RunnerConfig,
    pub(crate) logs: Logs,
    pub(crate) slots: Slots,
    pub(crate) events: Events,
}

/// Tells what happens to an object, as `kubectl describe` shows it. Best effort: never waited for.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    pending: Arc<Semaphore>,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, pending: Arc::new(Semaphore::new(EVENTS_PENDING_MAX)) }
    }

    pub(crate) fn normal<K: Resource<DynamicType = ()>>(&self, on: &K, reason: &str, text: &str) {
        self.tell(on, "Normal", reason, text);
    }

    pub(crate) fn warn<K: Resource<DynamicType = ()>>(&self, on: &K, reason: &str, text: &str) {
        self.tell(on, "Warning", reason, text);
    }

    fn tell<K: Resource<DynamicType = ()>>(&self, on: &K, kind: &str, reason: &str, text: &str) {
        let Ok(permit) = self.pending.clone().try_acquire_owned() else { return };
        let namespace = on.namespace().unwrap_or_default();
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:016x}", on.name_any(), rand::random::<u64>())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: Some(on.name_any()),
                namespace: Some(namespace.clone()),
                uid: on.uid(),
                ..ObjectReference::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(text.to_owned()),
            type_: Some(kind.to_owned()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            source: Some(EventSource {
                component: Some("muster-runner".to_owned()),
                host: Some(crate::pod::NODE_NAME.to_owned()),
            }),
            ..Event::default()
        };
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        tokio::spawn(async move {
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, "an event could not be written");
            }
            drop(permit);
        });
    }
}

/// Five characters that make a generated name unique.
pub(crate) fn suffix() -> String {
    let mut rng = rand::rng();
    (0..SUFFIX_LEN)
        .map(|_| SUFFIX_CHARACTERS[rng.random_range(0..SUFFIX_CHARACTERS.len())] as char)
        .collect()
}
