//! From Promises and requests to Works: the two queues, and the watches that feed them.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta};
use muster_api::{Promise, PromiseRevision, labels};
use muster_daemon::Clock;
use tokio_util::sync::CancellationToken;

use crate::{
    ClientFor,
    fleet::Observer,
    jobs::Jobs,
    manifests::identity,
    objects::follow,
    options::Chosen,
    owner::Wakes,
    promise::{self, Promises},
    queue::{Next, Queue, Triggers, queue},
    request::{self, Bindings, Kinds, Records, RequestKey, Requests},
    world::World,
};

/// The two queues of Promises and requests, and the ways to them.
pub(crate) struct Queues {
    clients: (Client, Client),
    wakes: Wakes,
    promises: Queue<String>,
    requests: Queue<RequestKey>,
    clock: Clock,
    options: Chosen,
}

/// The controllers of Promises and requests.
pub(crate) struct Offers {
    queues: Queues,
    observer: Observer,
}

impl Queues {
    pub(crate) fn build(client_for: &ClientFor, clock: &Clock, options: Chosen) -> Self {
        let (promises, requests) = (queue("promise", clock), queue("request", clock));
        Self {
            clients: (client_for(identity::PROMISE), client_for(identity::REQUEST)),
            wakes: Wakes { promises: promises.0, requests: requests.0 },
            promises: promises.1,
            requests: requests.1,
            clock: clock.clone(),
            options,
        }
    }

    /// The ways to the queues.
    pub(crate) fn wakes(&self) -> Wakes {
        self.wakes.clone()
    }

    /// The controllers, with what is observed of Works.
    pub(crate) fn observing(self, observer: Observer) -> Offers {
        Offers { queues: self, observer }
    }
}

impl Offers {
    /// Runs until `shutdown`; what is being reconciled then is finished first.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { queues, observer } = self;
        let Queues { clients, wakes, promises, requests, clock, options } = queues;
        let (promise_client, request_client) = clients;
        let kinds = Kinds::new(
            request_client.clone(),
            wakes.requests.clone(),
            wakes.promises.clone(),
            shutdown.clone(),
        );
        let jobs = Arc::new(Jobs::new());
        let wake = Wake {
            client: promise_client.clone(),
            promises: wakes.promises.clone(),
            shutdown: shutdown.clone(),
        };
        let seen = (observer.world.clone(), jobs.clone());
        let offered = Arc::new(Promises::new(
            promise_client.clone(),
            (observer, jobs.clone()),
            (kinds.clone(), wakes.promises.clone()),
            options.clone(),
            clock.clone(),
        ));
        let (bindings, records) = (Arc::new(Bindings::default()), Arc::new(Records::default()));
        let (seen_client, woken) = (request_client.clone(), wakes.requests.clone());
        let asked = Arc::new(Requests::new(
            request_client,
            seen.clone(),
            (kinds.clone(), bindings.clone(), records.clone()),
            options.clone(),
            clock,
        ));
        let (world, jobs_seen) = seen;
        let loaded = Loaded { world, jobs: jobs_seen, shutdown: shutdown.clone() };
        let reconcile_promise = loaded.first(move |name| offered.clone().reconcile(name));
        let reconcile_request = loaded.first(move |key| asked.clone().reconcile(key));
        tokio::join!(
            promises.run(promise::AT_ONCE, reconcile_promise, shutdown.clone()),
            requests.run(request::AT_ONCE, reconcile_request, shutdown.clone()),
            wake.on_promises(),
            wake.on_definitions(),
            wake.on_revisions(),
            bindings.follow(seen_client.clone(), woken.clone(), shutdown.clone()),
            records.follow(seen_client, woken, shutdown.clone()),
            shutdown.run_until_cancelled(jobs.follow(promise_client, wakes)),
            kinds.wake_all_on(options.changes(), shutdown.clone()),
            kinds.wake_on_intervals(),
        );
        kinds.ended().await;
    }
}

/// Nothing is decided before everything was seen once.
#[derive(Clone)]
struct Loaded {
    world: Arc<World>,
    jobs: Arc<Jobs>,
    shutdown: CancellationToken,
}

impl Loaded {
    /// Lets a reconcile wait for that; not longer than until the end.
    fn first<K, R, E>(
        &self,
        reconcile: impl Fn(K) -> R,
    ) -> impl Fn(K) -> BoxFuture<'static, Result<Next, E>>
    where
        R: Future<Output = Result<Next, E>> + Send + 'static,
    {
        let this = self.clone();
        move |key| {
            let (this, work) = (this.clone(), reconcile(key));
            let ended = this.shutdown.clone();
            let seen = async move { tokio::join!(this.world.loaded(), this.jobs.loaded()) };
            let seen = ended.run_until_cancelled_owned(seen);
            async move { if seen.await.is_some() { work.await } else { Ok(Next::Change) } }.boxed()
        }
    }
}

/// The watches on kinds that exist before any Promise.
struct Wake {
    client: Client,
    promises: Triggers<String>,
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

    /// A revision that goes waits for its Promise's controller.
    async fn on_revisions(&self) {
        let api: Api<PartialObjectMeta<PromiseRevision>> = Api::all(self.client.clone());
        let promise = |object: &PartialObjectMeta<PromiseRevision>| {
            object.labels().get(labels::PROMISE_NAME).cloned()
        };
        let (triggers, shutdown) = (self.promises.clone(), self.shutdown.clone());
        follow(api, Some(labels::PROMISE_NAME), triggers, promise, shutdown).await;
    }
}
