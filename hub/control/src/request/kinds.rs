//! Which kinds of requests are followed: one watch for each Promise with an API, begun when its CRD
//! is established, ended when the Promise goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use muster_api::{PromiseRevision, labels};
use muster_plan::{options::Options, promise::RequestApi, workflow::rerun};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    objects,
    owner::Owner,
    queue::{Key, Triggers},
    shelf::version,
};

/// A request, and the Promise that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    /// The Promise.
    pub(crate) promise: String,
    /// The request's namespace.
    pub(crate) namespace: String,
    /// The request's name.
    pub(crate) name: String,
}

impl Key for RequestKey {
    /// Each Promise's requests take their own turn.
    fn share(&self) -> &str {
        &self.promise
    }
}

/// The kinds that are followed.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: Client,
    requests: Triggers<RequestKey>,
    promises: Triggers<String>,
    followed: Arc<Mutex<BTreeMap<String, Followed>>>,
    echoes: Echoes,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct Followed {
    api: (String, String),
    wake: Arc<Notify>,
    end: CancellationToken,
}

impl Kinds {
    pub(crate) fn new(
        client: Client,
        requests: Triggers<RequestKey>,
        promises: Triggers<String>,
        shutdown: CancellationToken,
    ) -> Self {
        let (followed, echoes, tasks) = (Arc::default(), Echoes::default(), TaskTracker::new());
        Self { client, requests, promises, followed, echoes, tasks, shutdown }
    }

    /// We wrote this copy of a request, and have decided all that follows from it.
    pub(crate) fn wrote(&self, key: &RequestKey, written: &DynamicObject) {
        self.echoes.wrote(key, version(written));
    }

    /// Follows the requests of a Promise, if that is not done already.
    pub(crate) fn follow(&self, promise: &str, api: &RequestApi) {
        let identity = (api.api_version(), api.plural.clone());
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.get(promise).is_some_and(|held| held.api == identity) {
            return;
        }
        let (wake, end) = (Arc::new(Notify::new()), self.shutdown.child_token());
        let watch = Watch {
            promise: promise.to_owned(),
            requests: self.requests.clone(),
            promises: self.promises.clone(),
            echoes: self.echoes.clone(),
            known: BTreeSet::new(),
        };
        let kind = (api.kind.as_str(), api.plural.as_str());
        let objects = objects::metadata_plural(&self.client, &api.api_version(), kind);
        self.tasks.spawn(watch.run(objects, wake.clone(), end.clone()));
        if let Some(old) =
            followed.insert(promise.to_owned(), Followed { api: identity, wake, end })
        {
            old.end.cancel();
        }
    }

    /// Looks again at all requests of a Promise.
    pub(crate) fn wake(&self, promise: &str) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = followed.get(promise) {
            held.wake.notify_one();
        }
    }

    /// Looks again at all Promises and requests after each change of the options, until `shutdown`.
    pub(crate) async fn wake_all_on(
        &self,
        mut options: watch::Receiver<Arc<Options>>,
        shutdown: CancellationToken,
    ) {
        while let Some(Ok(())) = shutdown.run_until_cancelled(options.changed()).await {
            for name in self.names() {
                self.wake(&name);
                self.promises.look_at(name).await;
            }
        }
    }

    /// Looks again at the requests of a Promise after each change of an interval that is written on
    /// one of its revisions, until the end: they would wait for the one before.
    pub(crate) async fn wake_on_intervals(&self) {
        let revisions: Api<PartialObjectMeta<PromiseRevision>> = Api::all(self.client.clone());
        let config = watcher::Config::default().labels(labels::PROMISE_NAME);
        let events = watcher(revisions, config).default_backoff();
        let mut events = Box::pin(events.take_until(self.shutdown.cancelled()));
        let mut known = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(revision) | watcher::Event::InitApply(revision)) => {
                    let interval = rerun::annotated(&revision.metadata).map(str::to_owned);
                    let before = known.insert(revision.name_any(), interval.clone());
                    let promise = revision.labels().get(labels::PROMISE_NAME);
                    if let Some(promise) = promise.filter(|_| before.flatten() != interval) {
                        self.wake(promise);
                    }
                }
                Ok(watcher::Event::Delete(revision)) => drop(known.remove(&revision.name_any())),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => {
                    let error = crate::queue::chain(&error);
                    tracing::warn!(error, "the watch of revisions begins again");
                }
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.keys().cloned().collect()
    }

    /// Ends the watch of a Promise that goes.
    pub(crate) fn forget(&self, promise: &str) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = followed.remove(promise) {
            held.end.cancel();
        }
    }

    /// Waits for the end of all watches.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What is seen of a request.
type Seen = PartialObjectMeta<DynamicObject>;

/// The watch of one kind.
struct Watch {
    promise: String,
    requests: Triggers<RequestKey>,
    promises: Triggers<String>,
    echoes: Echoes,
    known: BTreeSet<RequestKey>,
}

/// The newest copies that we wrote ourselves: that a watch shows them is no news.
#[derive(Debug, Clone, Default)]
struct Echoes(Arc<Mutex<HashMap<RequestKey, u64>>>);

impl Echoes {
    fn wrote(&self, key: &RequestKey, version: u64) {
        self.lock().insert(key.clone(), version);
    }

    /// Whether a copy of this version is ours, or older than ours.
    fn knows(&self, key: &RequestKey, version: u64) -> bool {
        version > 0 && self.lock().get(key).is_some_and(|ours| *ours >= version)
    }

    fn forget(&self, key: &RequestKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestKey, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    async fn run(mut self, api: Api<Seen>, wake: Arc<Notify>, end: CancellationToken) {
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = Box::pin(events);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = wake.notified() => {
                    for key in &self.known {
                        self.requests.look_at(key.clone()).await;
                    }
                }
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event).await,
                    Some(Err(error)) => {
                        let (promise, error) = (&self.promise, crate::queue::chain(&error));
                        tracing::warn!(promise, error, "the watch of requests begins again");
                    }
                    None => return,
                },
            }
        }
    }

    async fn take(&mut self, event: watcher::Event<Seen>) {
        if let watcher::Event::Apply(child) | watcher::Event::Delete(child) = &event {
            self.wake_parent(child).await;
        }
        match event {
            watcher::Event::Apply(object) => {
                let key = self.key(&object);
                let echo = self.echoes.knows(&key, version(&object));
                self.known.insert(key.clone());
                if !echo {
                    self.requests.look_at(key).await;
                }
            }
            watcher::Event::InitApply(object) => {
                let key = self.key(&object);
                self.known.insert(key.clone());
                self.requests.look_at(key).await;
            }
            watcher::Event::Delete(object) => {
                let key = self.key(&object);
                self.known.remove(&key);
                self.echoes.forget(&key);
                self.requests.look_at(key).await;
                self.promises.look_at(self.promise.clone()).await;
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }

    /// Who a child is made for looks at it again, whoever changed it.
    async fn wake_parent(&self, child: &Seen) {
        match Owner::parent_of(&child.metadata) {
            Some(Owner::Request(key)) => self.requests.look_at(key).await,
            Some(Owner::Promise(name)) => self.promises.look_at(name).await,
            None => {}
        }
    }

    fn key(&self, object: &impl ResourceExt) -> RequestKey {
        RequestKey {
            promise: self.promise.clone(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}
