//! The Jobs of all workflows as watches show them, and their pods that are in trouble; by owner, so
//! that looking at one request costs the same however many there are.
//!
//! What the controllers create themselves is in here before its watch shows it, so that none of
//! them starts a Job twice because a watch is late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use muster_api::labels;
use muster_plan::workflow::trouble::Trouble;
use tokio::sync::watch;

use crate::{
    owner::{Owner, Wakes},
    queue::chain,
    shelf::{Changed, ObjectKey, Shelf},
};

/// The label by which a pod names its Job, in every version of Kubernetes.
pub(crate) const JOB_NAME: &str = "job-name";

/// The index; without the pods' templates, of which nothing is decided.
#[derive(Debug)]
pub(crate) struct Jobs {
    inner: Mutex<Inner>,
    loaded: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: Shelf<Job>,
    /// Pods in trouble; all others are nobody's concern.
    pods: Shelf<Pod>,
    by_owner: HashMap<Owner, BTreeSet<ObjectKey>>,
    by_job: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), loaded: watch::Sender::new(false) }
    }

    /// Waits until the first list is complete: before, nothing may be decided.
    pub(crate) async fn loaded(&self) {
        let mut loaded = self.loaded.subscribe();
        // It cannot close: the sender lives as long as `self`.
        let _closed = loaded.wait_for(|loaded| *loaded).await.is_err();
    }

    /// The Jobs with these labels, which name their owner.
    pub(crate) fn with(&self, found: &BTreeMap<String, String>) -> Vec<Arc<Job>> {
        let inner = self.lock();
        let keys = Owner::by(found).and_then(|owner| inner.by_owner.get(&owner));
        let jobs = keys.into_iter().flatten().filter_map(|key| inner.jobs.get(key));
        jobs.filter(|job| is_labelled(job, found)).cloned().collect()
    }

    /// All Jobs of a Promise and of its requests that have these labels.
    pub(crate) fn of_promise(
        &self,
        promise: &str,
        found: &BTreeMap<String, String>,
    ) -> Vec<Arc<Job>> {
        let inner = self.lock();
        let of_promise = |owner: &&Owner| match owner {
            Owner::Promise(name) => name == promise,
            Owner::Request(key) => key.promise == promise,
        };
        let owners = inner.by_owner.keys().filter(of_promise);
        let keys = owners.filter_map(|owner| inner.by_owner.get(owner)).flatten();
        let jobs = keys.filter_map(|key| inner.jobs.get(key));
        jobs.filter(|job| is_labelled(job, found)).cloned().collect()
    }

    /// What went wrong so far with a Job that runs.
    pub(crate) fn trouble(&self, job: &ObjectKey) -> Option<Trouble> {
        let inner = self.lock();
        let keys = inner.by_job.get(job)?;
        let pods: Vec<_> = keys.iter().filter_map(|key| inner.pods.get(key)).collect();
        Trouble::of(&pods.into_iter().map(|pod| Pod::clone(pod)).collect::<Vec<_>>())
    }

    /// Takes in what the API answered to a write of ours.
    pub(crate) fn saw(&self, mut job: Job) {
        trim(&mut job);
        let mut inner = self.lock();
        if let Some(changed) = inner.jobs.saw(job) {
            inner.index_job(&changed);
        }
    }

    /// Follows Jobs and pods, and wakes whom each change concerns, for ever.
    pub(crate) async fn follow(&self, client: Client, wakes: Wakes) {
        let config = || watcher::Config::default().labels(labels::PROMISE_NAME);
        let jobs = watcher(Api::<Job>::all(client.clone()), config()).default_backoff();
        let pods = watcher(Api::<Pod>::all(client), config()).default_backoff();
        let mut events = stream::select(
            jobs.map(|event| event.map(Seen::Job)).boxed(),
            pods.map(|event| event.map(Seen::Pod)).boxed(),
        );
        while let Some(event) = events.next().await {
            let woken = match event {
                Ok(Seen::Job(event)) => self.take_job(event),
                Ok(Seen::Pod(event)) => self.take_pod(event),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a watch begins again");
                    continue;
                }
            };
            for owner in woken {
                wakes.look_at(owner).await;
            }
        }
    }

    fn take_job(&self, event: Event<Job>) -> BTreeSet<Owner> {
        let mut inner = self.lock();
        let changes = inner.jobs.take(trimmed(event));
        let mut woken = BTreeSet::new();
        for changed in changes {
            inner.index_job(&changed);
            if matters(&changed) {
                woken.extend(owners(&changed));
            }
        }
        if inner.jobs.loaded() {
            drop(inner);
            self.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
        }
        woken
    }

    /// A container that failed is told while its Job still tries; that others run tells nothing.
    fn take_pod(&self, event: Event<Pod>) -> BTreeSet<Owner> {
        let troubled = |pod: &Pod| Trouble::of(std::slice::from_ref(pod)).is_some();
        let mut inner = self.lock();
        let event = match event {
            Event::Apply(pod) if !troubled(&pod) => Event::Delete(pod),
            Event::InitApply(pod) if !troubled(&pod) => return BTreeSet::new(),
            event => event,
        };
        let mut woken = BTreeSet::new();
        for changed in inner.pods.take(event) {
            for (pod, present) in [(&changed.old, false), (&changed.new, true)] {
                let Some(job) = pod.as_deref().and_then(job_of) else { continue };
                let members = inner.by_job.entry(job.clone()).or_default();
                if present {
                    members.insert(changed.key.clone());
                } else {
                    members.remove(&changed.key);
                }
                if members.is_empty() {
                    inner.by_job.remove(&job);
                }
            }
            woken.extend(changed.new.as_deref().and_then(|pod| Owner::of(&pod.metadata)));
        }
        woken
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::large_enum_variant, reason = "both are large, and each is looked at once")]
enum Seen {
    Job(Event<Job>),
    Pod(Event<Pod>),
}

impl Inner {
    fn index_job(&mut self, changed: &Changed<Job>) {
        for (job, present) in [(&changed.old, false), (&changed.new, true)] {
            let Some(owner) = job.as_ref().and_then(|job| Owner::of(&job.metadata)) else {
                continue;
            };
            let members = self.by_owner.entry(owner.clone()).or_default();
            if present {
                members.insert(changed.key.clone());
            } else {
                members.remove(&changed.key);
            }
            if members.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }
}

fn owners(changed: &Changed<Job>) -> impl Iterator<Item = Owner> {
    let sides = changed.old.iter().chain(&changed.new);
    sides.filter_map(|job| Owner::of(&job.metadata)).collect::<BTreeSet<_>>().into_iter()
}

/// Whether a workflow may go on: how many pods are active, say, is not its concern.
fn matters(changed: &Changed<Job>) -> bool {
    let state = |job: &Option<Arc<Job>>| {
        job.as_ref().map(|job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.clone());
            let suspended = job.spec.as_ref().and_then(|spec| spec.suspend);
            let metadata = &job.metadata;
            (conditions, suspended, metadata.labels.clone(), metadata.deletion_timestamp.clone())
        })
    };
    state(&changed.old) != state(&changed.new)
}

fn is_labelled(job: &Job, found: &BTreeMap<String, String>) -> bool {
    let held = job.metadata.labels.as_ref();
    found.iter().all(|(key, value)| held.and_then(|held| held.get(key)) == Some(value))
}

fn job_of(pod: &Pod) -> Option<ObjectKey> {
    let name = pod.metadata.labels.as_ref()?.get(JOB_NAME)?;
    Some(ObjectKey::new(pod.metadata.namespace.as_deref().unwrap_or_default(), name))
}

fn trimmed(event: Event<Job>) -> Event<Job> {
    match event {
        Event::Apply(mut job) => {
            trim(&mut job);
            Event::Apply(job)
        }
        Event::InitApply(mut job) => {
            trim(&mut job);
            Event::InitApply(job)
        }
        event => event,
    }
}

fn trim(job: &mut Job) {
    job.metadata.managed_fields = None;
    if let Some(spec) = &mut job.spec {
        spec.template = PodTemplateSpec::default();
    }
}
