//! From Promises and requests to Works: the two queues, and the watches that feed them.

use std::sync::Arc;

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta};
use muster_api::{Promise, Work, WorkPlacement, labels};
use muster_daemon::Clock;
use muster_plan::workflow::trouble::Trouble;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    ClientFor,
    manifests::identity,
    objects::follow,
    options::Chosen,
    promise::{self, Promises},
    queue::{Queue, Triggers, queue},
    request::{self, Kinds, RequestKey, Requests},
};

/// The controllers of Promises and requests.
pub(crate) struct Offers {
    promise_client: Client,
    request_client: Client,
    promises: (Triggers<String>, Queue<String>),
    requests: (Triggers<RequestKey>, Queue<RequestKey>),
    clock: Clock,
    options: Chosen,
}

/// What a changed object wakes.
enum Woken {
    Promise(String),
    Request(RequestKey),
}

impl Offers {
    pub(crate) fn build(client_for: &ClientFor, clock: &Clock, options: Chosen) -> Self {
        Self {
            promise_client: client_for(identity::PROMISE),
            request_client: client_for(identity::REQUEST),
            promises: queue(clock),
            requests: queue(clock),
            clock: clock.clone(),
            options,
        }
    }

    /// Runs until `shutdown`; what is being reconciled then is finished first.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { promise_client, request_client, promises, requests, clock, options } = self;
        let (promise_triggers, promise_queue) = promises;
        let (request_triggers, request_queue) = requests;
        let kinds = Kinds::new(
            request_client.clone(),
            request_triggers.clone(),
            promise_triggers.clone(),
            shutdown.clone(),
        );
        let wake = Wake {
            client: promise_client.clone(),
            promises: promise_triggers.clone(),
            requests: request_triggers,
            clock: clock.clone(),
            shutdown: shutdown.clone(),
        };
        let promises = Arc::new(Promises::new(
            promise_client,
            kinds.clone(),
            promise_triggers,
            options.clone(),
            clock.clone(),
        ));
        let requests = Arc::new(Requests::new(request_client, options.clone(), clock));
        let reconcile_promise = move |name| promises.clone().reconcile(name);
        let reconcile_request = move |key| requests.clone().reconcile(key);
        tokio::join!(
            promise_queue.run(promise::AT_ONCE, reconcile_promise, shutdown.clone()),
            request_queue.run(request::AT_ONCE, reconcile_request, shutdown.clone()),
            wake.on_promises(),
            wake.on_definitions(),
            wake.on::<Job>(),
            wake.on::<Work>(),
            wake.on::<WorkPlacement>(),
            wake.on_troubled_pods(),
            kinds.wake_all_on(options.changes(), shutdown.clone()),
        );
        kinds.ended().await;
    }
}

/// The watches on kinds that exist before any Promise.
struct Wake {
    client: Client,
    promises: Triggers<String>,
    requests: Triggers<RequestKey>,
    clock: Clock,
    shutdown: CancellationToken,
}

impl Wake {
    async fn on_promises(&self) {
        let api: Api<PartialObjectMeta<Promise>> = Api::all(self.client.clone());
        let name = |object: &PartialObjectMeta<Promise>| Some(object.name_any());
        follow(api, None, self.promises.clone(), name, self.shutdown.clone()).await;
    }

    async fn on_definitions(&self) {
        let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(self.client.clone());
        let promise = |object: &PartialObjectMeta<CustomResourceDefinition>| {
            object.labels().get(labels::PROMISE_NAME).cloned()
        };
        let (triggers, shutdown) = (self.promises.clone(), self.shutdown.clone());
        follow(api, Some(labels::PROMISE_NAME), triggers, promise, shutdown).await;
    }

    /// Objects that belong to a request or to a Promise, by their labels.
    async fn on<K>(&self)
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::all(self.client.clone());
        self.on_each(api, |object| belongs_to(&object.metadata)).await;
    }

    /// A container that failed is told while its Job still tries; that others run tells nothing.
    async fn on_troubled_pods(&self) {
        let troubled = |pod: &Pod| {
            Trouble::of(std::slice::from_ref(pod)).and_then(|_| belongs_to(&pod.metadata))
        };
        self.on_each(Api::<Pod>::all(self.client.clone()), troubled).await;
    }

    async fn on_each<K>(&self, api: Api<K>, whose: impl Fn(&K) -> Option<Woken>)
    where
        K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let (woken, taken) = queue(&self.clock);
        let watch = follow(api, Some(labels::PROMISE_NAME), woken, whose, self.shutdown.clone());
        let sort = taken.each(|woken| async {
            match woken {
                Woken::Promise(name) => self.promises.look_at(name).await,
                Woken::Request(key) => self.requests.look_at(key).await,
            }
        });
        tokio::join!(watch, sort);
    }
}

fn belongs_to(metadata: &ObjectMeta) -> Option<Woken> {
    let label = |key: &str| metadata.labels.as_ref()?.get(key).cloned();
    let promise = label(labels::PROMISE_NAME)?;
    let woken = match label(labels::RESOURCE_NAME) {
        None => Woken::Promise(promise),
        Some(name) => {
            let namespace = label(labels::RESOURCE_NAMESPACE)?;
            Woken::Request(RequestKey { promise, namespace, name })
        }
    };
    Some(woken)
}
