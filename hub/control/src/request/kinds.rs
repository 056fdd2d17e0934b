//! Which kinds of requests are followed: one watch for each Promise with an API, begun when its CRD
//! is established, ended when the Promise goes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use muster_api::{KRATIX_GROUP, PromiseRevision, labels};
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
    api: RequestApi,
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
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |api: &RequestApi| (api.api_version(), api.plural.clone());
        if followed.get(promise).is_some_and(|held| identity(&held.api) == identity(api)) {
            return;
        }
        let (wake, end) = (Arc::new(Notify::new()), self.shutdown.child_token());
        let (promise_name, kinds) = (promise.to_owned(), self.clone());
        let (known, unseen) = (BTreeMap::new(), BTreeMap::new());
        let watch = Watch { promise: promise_name, kinds, known, unseen };
        let kind = (api.kind.as_str(), api.plural.as_str());
        let objects = objects::metadata_plural(&self.client, &api.api_version(), kind);
        self.tasks.spawn(watch.run(objects, wake.clone(), end.clone()));
        let fresh = Followed { api: api.clone(), wake, end };
        if let Some(old) = followed.insert(promise.to_owned(), fresh) {
            old.end.cancel();
        }
    }

    /// Whose child a request is, by who controls it: labels are for people, and anybody's to remove.
    fn parent_of(&self, request: &Seen) -> Option<Owner> {
        let owners = request.owner_references();
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        let group = owner.api_version.split('/').next().unwrap_or_default();
        if (group, owner.kind.as_str()) == (KRATIX_GROUP, "Promise") {
            return Some(Owner::Promise(owner.name.clone()));
        }
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_its = |held: &Followed| held.api.group == group && held.api.kind == owner.kind;
        let (promise, _) = followed.iter().find(|(_, held)| is_its(held))?;
        Some(Owner::Request(RequestKey {
            promise: promise.clone(),
            namespace: request.namespace().unwrap_or_default(),
            name: owner.name.clone(),
        }))
    }

    async fn look_at(&self, owner: Owner) {
        match owner {
            Owner::Promise(name) => self.promises.look_at(name).await,
            Owner::Request(key) => self.requests.look_at(key).await,
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
    kinds: Kinds,
    /// Each request, and whose child it was when it was last seen.
    known: BTreeMap<RequestKey, Option<Owner>>,
    /// What was known before the list that is being read, and is not in it so far.
    unseen: BTreeMap<RequestKey, Option<Owner>>,
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
                    for key in self.known.keys() {
                        self.kinds.requests.look_at(key.clone()).await;
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
        match event {
            watcher::Event::Apply(object) => {
                let echo = self.kinds.echoes.knows(&self.key(&object), version(&object));
                self.see(&object, !echo).await;
            }
            watcher::Event::InitApply(object) => self.see(&object, true).await,
            watcher::Event::Delete(object) => {
                let key = self.key(&object);
                self.lose(key, self.kinds.parent_of(&object)).await;
            }
            watcher::Event::Init => self.unseen.append(&mut self.known),
            // What went while nobody watched.
            watcher::Event::InitDone => {
                for (key, parent) in std::mem::take(&mut self.unseen) {
                    self.lose(key, parent).await;
                }
            }
        }
    }

    /// A request is there. Whose child it is looks at it again, whoever changed it; and whose it was.
    async fn see(&mut self, object: &Seen, is_news: bool) {
        let (key, parent) = (self.key(object), self.kinds.parent_of(object));
        let unseen = self.unseen.remove(&key);
        let before = self.known.insert(key.clone(), parent.clone()).or(unseen).flatten();
        if is_news {
            self.kinds.requests.look_at(key).await;
        }
        for owner in
            before.filter(|before| parent.as_ref() != Some(before)).into_iter().chain(parent)
        {
            self.kinds.look_at(owner).await;
        }
    }

    async fn lose(&mut self, key: RequestKey, parent: Option<Owner>) {
        let before = self.known.remove(&key).flatten();
        self.kinds.echoes.forget(&key);
        self.kinds.requests.look_at(key).await;
        self.kinds.promises.look_at(self.promise.clone()).await;
        if let Some(owner) = before.or(parent) {
            self.kinds.look_at(owner).await;
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
