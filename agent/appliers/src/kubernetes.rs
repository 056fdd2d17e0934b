//! Applies objects to a Kubernetes API by server-side apply, under the field manager `muster-agent`.
//!
//! - A placement of several objects is tried as a dry run first: a refused manifest changes nothing.
//! - Fields that another manager owns are left, and named ([`conflict`]).
//! - An object that was there before is adopted: it gets our fields, and keeps the rest; when the
//!   placement goes, our fields go and the object stays.
//! - What the placement lists no more is pruned, unless another placement lists it ([`ledger`]).

mod api;
mod conflict;
mod guard;
mod ledger;
mod object;
mod readiness;
mod remove;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{
    future::{BoxFuture, FutureExt as _},
    stream::{self, StreamExt as _, TryStreamExt as _},
};
use muster_core::{Claim, Failure, Health, Observation, PlacementKey};
use serde_json::Value;

use crate::{
    KubernetesPolicy,
    applier::{Applier, Job},
    split::{Document, Parts},
};
pub use api::KubernetesError;
use api::{Api, ApiError, Applying, FIELD_MANAGER};
use guard::Guard;
use ledger::{Entry, Ledger, uid};
use object::ObjectRef;

/// Requests of one placement in flight: what an API server's fairness gives one client gladly.
const REQUESTS_MAX: usize = 8;
/// How long kinds may take to be served after their definition was accepted.
const ESTABLISH_MAX: Duration = Duration::from_secs(30);
const ESTABLISH_LOOK: Duration = Duration::from_millis(25);
/// Most objects that a health message names.
const NAMED_MAX: usize = 3;

/// The kubernetes applier.
pub(crate) struct Kubernetes {
    api: Api,
    guard: Guard,
    ledger: Ledger,
    /// The resourceVersions at which objects were found as applied: no need to compare them again.
    clean: Mutex<BTreeMap<(PlacementKey, Claim), String>>,
}

impl Applier for Kubernetes {
    fn apply<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        cancellable(job, self.apply_objects(job)).boxed()
    }

    fn check<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        cancellable(job, self.check_objects(job)).boxed()
    }

    fn remove<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<(), Failure>> {
        cancellable(job, self.remove_objects(&job.key)).boxed()
    }
}

/// Everything here is a sequence of idempotent requests, so it may stop between any two.
async fn cancellable<T>(
    job: &Job,
    action: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let cancelled = Failure::retried("Cancelled", "the action was cancelled");
    job.cancel.run_until_cancelled(action).await.unwrap_or(Err(cancelled))
}

impl Kubernetes {
    /// An applier by the policy's kubeconfig. The API is not reached yet.
    pub(crate) async fn connect(policy: KubernetesPolicy) -> Result<Self, KubernetesError> {
        Ok(Self::new(Api::connect(&policy).await?, policy))
    }

    fn new(api: Api, policy: KubernetesPolicy) -> Self {
        let guard = Guard::new(policy.namespaces);
        Self { api, guard, ledger: Ledger::default(), clean: Mutex::default() }
    }

    async fn apply_objects(&self, job: &Job) -> Result<Observation, Failure> {
        let objects = &job.parts.objects;
        let checks = objects.iter().map(|object| {
            let checked = self.guard.check(&self.api, &object.value);
            checked.map(|result| result.map_err(|failure| at(object, failure))).boxed()
        });
        several(checks.collect()).await?;
        let previous = Previous::of(job.previous.as_deref());
        if objects.len() > 1 {
            self.rehearse(objects, &previous).await?;
        }
        let before = self.ledger.get(&self.api, &job.key).await.map_err(inventory_failure)?;
        let now = self.entries(objects, &before).await?;
        let both: BTreeSet<Entry> = before.union(&now).cloned().collect();
        self.put(&job.key, &both).await?;

        let mut sorted: Vec<&Document<Value>> = objects.iter().collect();
        sorted.sort_by_key(|object| ObjectRef::of(&object.value).rank());
        let mut live = Vec::with_capacity(objects.len());
        let rank = |object: &Document<Value>| ObjectRef::of(&object.value).rank();
        for same_rank in sorted.chunk_by(|one, two| rank(one) == rank(two)) {
            let applied = same_rank.iter().map(|object| self.apply_one(object, &previous).boxed());
            live.extend(several(applied.collect()).await?);
            if self.establish(same_rank).await? {
                for definition in live.iter_mut().filter(|o| ObjectRef::of(o).is_crd()) {
                    let object = ObjectRef::of(definition);
                    let now = self.api.read(&object).await.map_err(|e| failure(&object, &e))?;
                    *definition = now.unwrap_or_default();
                }
            }
        }
        for object in &live {
            self.mark_clean(&job.key, object);
        }
        self.prune(&job.key, &before, &now).await?;
        self.put(&job.key, &now).await?;
        let verdicts = live.iter().map(|object| (ObjectRef::of(object), Some(object)));
        self.judge(verdicts).await
    }

    async fn check_objects(&self, job: &Job) -> Result<Observation, Failure> {
        let entries = self.ledger.get(&self.api, &job.key).await.map_err(inventory_failure)?;
        let manifests: BTreeMap<Claim, &Value> =
            job.parts.objects.iter().map(|o| (ObjectRef::of(&o.value).claim(), &o.value)).collect();
        let looks = entries.iter().map(|entry| {
            let manifest = manifests.get(&entry.object.claim()).copied();
            self.look(&job.key, &entry.object, manifest).boxed()
        });
        let looked = several(looks.collect()).await?;
        let mut seen = self
            .judge(looked.iter().map(|(object, live, _)| (object.clone(), live.as_ref())))
            .await?;
        seen.drift = looked.into_iter().find_map(|(_, _, drift)| drift);
        // The inventory says which objects; a lost one leaves the manifests to say what is missing.
        let held: BTreeSet<Claim> = entries.iter().map(|entry| entry.object.claim()).collect();
        if let Some(claim) = manifests.keys().find(|claim| !held.contains(claim)) {
            seen.drift.get_or_insert(format!("{claim} is not in the cluster's inventory"));
        }
        Ok(seen)
    }

    /// Tries everything that can be tried, changing nothing.
    async fn rehearse(
        &self,
        objects: &[Document<Value>],
        previous: &Previous<'_>,
    ) -> Result<(), Failure> {
        let own: BTreeSet<&str> = objects
            .iter()
            .filter(|o| ObjectRef::of(&o.value).is("", "Namespace"))
            .filter_map(|o| o.value.pointer("/metadata/name").and_then(Value::as_str))
            .collect();
        let rehearsals = objects.iter().map(|object| {
            let own = own.contains(ObjectRef::of(&object.value).namespace.as_str());
            async move {
                match self.patch(&object.value, previous, true).await {
                    Ok(_) => Ok(()),
                    // What this very placement brings is not there yet: its namespaces and kinds.
                    Err(error) if error.is_not_found() && own => Ok(()),
                    Err(ApiError::UnknownKind { .. }) if brings_kind(objects, &object.value) => {
                        Ok(())
                    }
                    Err(error) => Err(refused(object, &error)),
                }
            }
            .boxed()
        });
        several(rehearsals.collect()).await.map(|_| ())
    }

    async fn apply_one(
        &self,
        object: &Document<Value>,
        previous: &Previous<'_>,
    ) -> Result<Value, Failure> {
        let applied = self.patch(&object.value, previous, false).await;
        applied.map_err(|error| refused(object, &error))
    }

    /// Applies, taking back edited fields that were ours, and no others.
    async fn patch(
        &self,
        manifest: &Value,
        previous: &Previous<'_>,
        dry_run: bool,
    ) -> Result<Value, ApiError> {
        match self.api.apply(manifest, Applying { dry_run, force: false }).await {
            Err(ApiError::Refused(status))
                if status.code == 409 && conflict::is_drift(&status, previous.get(manifest)) =>
            {
                self.api.apply(manifest, Applying { dry_run, force: true }).await
            }
            result => result,
        }
    }

    /// The entries of the objects; a new one that exists already is adopted.
    async fn entries(
        &self,
        objects: &[Document<Value>],
        before: &BTreeSet<Entry>,
    ) -> Result<BTreeSet<Entry>, Failure> {
        let known: BTreeMap<Claim, &Entry> =
            before.iter().map(|entry| (entry.object.claim(), entry)).collect();
        let entries = objects.iter().map(|document| {
            let object = ObjectRef::of(&document.value);
            let known = known.get(&object.claim()).map(|entry| entry.adopted);
            async move {
                let adopted = match known {
                    Some(adopted) => adopted,
                    None => {
                        let live = self.api.read(&object).await;
                        let live = live.map_err(|error| refused(document, &error))?;
                        live.is_some_and(|live| !is_ours(&live))
                    }
                };
                Ok(Entry { object, adopted })
            }
            .boxed()
        });
        Ok(several(entries.collect()).await?.into_iter().collect())
    }

    /// Waits until the kinds that were just defined are served; false if there are none.
    async fn establish(&self, objects: &[&Document<Value>]) -> Result<bool, Failure> {
        let deadline = tokio::time::Instant::now() + ESTABLISH_MAX;
        let mut any = false;
        for document in objects.iter().filter(|o| ObjectRef::of(&o.value).is_crd()) {
            any = true;
            let object = ObjectRef::of(&document.value);
            while !self.is_served(&object, document).await? {
                if tokio::time::Instant::now() > deadline {
                    let place = &document.place;
                    let message = format!(
                        "{object} ({place}): its kinds are not served after {ESTABLISH_MAX:?}"
                    );
                    return Err(Failure::retried("NotEstablished", message));
                }
                tokio::time::sleep(ESTABLISH_LOOK).await;
            }
        }
        if any {
            self.api.forget_kinds();
        }
        Ok(any)
    }

    /// Whether a definition is established and its newest kind is found by discovery, which follows a
    /// moment later.
    async fn is_served(
        &self,
        crd: &ObjectRef,
        document: &Document<Value>,
    ) -> Result<bool, Failure> {
        let live = self.api.read(crd).await.map_err(|error| refused(document, &error))?;
        let Some(live) = live else { return Ok(false) };
        match readiness::crd(&live) {
            (Health::Healthy, _) => {}
            (Health::Degraded, why) => {
                let message = format!("{crd} ({}): {why}", document.place);
                return Err(Failure::retried("Rejected", message));
            }
            _ => return Ok(false),
        }
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let versions = live.pointer("/spec/versions").and_then(Value::as_array);
        for version in versions.into_iter().flatten() {
            let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
            if version.get("served").and_then(Value::as_bool) != Some(true) {
                continue;
            }
            let kind = ObjectRef {
                group: text("/spec/group").to_owned(),
                version: name.to_owned(),
                kind: text("/spec/names/kind").to_owned(),
                namespace: String::new(),
                name: String::new(),
            };
            match self.api.resource(&kind).await {
                Ok(_) => {}
                Err(ApiError::UnknownKind { .. }) => return Ok(false),
                Err(error) => return Err(refused(document, &error)),
            }
        }
        Ok(true)
    }

    /// An object as it is, and what of it is not as applied.
    async fn look(
        &self,
        key: &PlacementKey,
        object: &ObjectRef,
        manifest: Option<&Value>,
    ) -> Result<(ObjectRef, Option<Value>, Option<String>), Failure> {
        let live = self.api.read(object).await.map_err(|error| failure(object, &error))?;
        let drift = self.drift(key, object, live.as_ref(), manifest).await?;
        Ok((object.clone(), live, drift))
    }

    /// What of an object is not as applied, in words.
    async fn drift(
        &self,
        key: &PlacementKey,
        object: &ObjectRef,
        live: Option<&Value>,
        manifest: Option<&Value>,
    ) -> Result<Option<String>, Failure> {
        let Some(manifest) = manifest else { return Ok(None) };
        let Some(live) = live else { return Ok(Some(format!("{object} is gone"))) };
        let version = resource_version(live);
        if self.lock_clean().get(&(key.clone(), object.claim())).is_some_and(|v| *v == version) {
            return Ok(None);
        }
        let how = Applying { dry_run: true, force: true };
        let wanted = self.api.apply(manifest, how).await.map_err(|e| failure(object, &e))?;
        if without_bookkeeping(&wanted) == without_bookkeeping(live) && is_ours(live) {
            self.mark_clean(key, live);
            return Ok(None);
        }
        Ok(Some(format!("{object} is not as it was applied")))
    }

    /// Joins the verdicts on the objects of a placement; the worst ones are named.
    async fn judge<'a>(
        &self,
        objects: impl Iterator<Item = (ObjectRef, Option<&'a Value>)>,
    ) -> Result<Observation, Failure> {
        let mut verdicts = Vec::new();
        for (object, live) in objects {
            let (health, why) = match live {
                Some(live) => {
                    let resource = self.api.resource(&object).await;
                    readiness::judge(live, resource.is_ok_and(|resource| resource.has_status))
                }
                None => (Health::Degraded, "it is gone".to_owned()),
            };
            verdicts.push((health, why, object.to_string()));
        }
        let health = Health::worst(verdicts.iter().map(|(health, ..)| *health));
        let health = health.unwrap_or(Health::Healthy);
        verdicts.retain(|(verdict, ..)| *verdict == health && health != Health::Healthy);
        Ok(Observation { health, health_message: causes(&verdicts), ..Observation::default() })
    }

    async fn put(&self, key: &PlacementKey, entries: &BTreeSet<Entry>) -> Result<(), Failure> {
        self.ledger.put(&self.api, key, entries).await.map_err(inventory_failure)
    }

    fn mark_clean(&self, key: &PlacementKey, live: &Value) {
        let claim = ObjectRef::of(live).claim();
        self.lock_clean().insert((key.clone(), claim), resource_version(live));
    }

    fn lock_clean(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PlacementKey, Claim), String>> {
        // A panic while the map was held left it whole: every change is one insertion or removal.
        self.clean.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each cause once, with the objects that it concerns.
fn causes(verdicts: &[(Health, String, String)]) -> String {
    let mut by_cause: Vec<(&str, Vec<&str>)> = Vec::new();
    for (_, why, object) in verdicts {
        match by_cause.iter_mut().find(|(cause, _)| cause == why) {
            Some((_, objects)) => objects.push(object),
            None => by_cause.push((why, vec![object])),
        }
    }
    let words = |(cause, objects): &(&str, Vec<&str>)| {
        let named = objects.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        match objects.len().saturating_sub(NAMED_MAX) {
            0 => format!("{cause} ({named})"),
            more => format!("{cause} ({named} and {more} more)"),
        }
    };
    by_cause.iter().map(words).collect::<Vec<_>>().join("; ")
}

/// Does several things at once, though never all; the first failure in order is the answer.
async fn several<T>(actions: Vec<BoxFuture<'_, Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    stream::iter(actions).buffered(REQUESTS_MAX).try_collect().await
}

/// The manifests that the placement applied last, by object.
struct Previous<'a>(BTreeMap<Claim, &'a Value>);

impl<'a> Previous<'a> {
    fn of(parts: Option<&'a Parts>) -> Self {
        let objects = parts.map(|parts| parts.objects.as_slice()).unwrap_or_default();
        Self(objects.iter().map(|o| (ObjectRef::of(&o.value).claim(), &o.value)).collect())
    }

    fn get(&self, manifest: &Value) -> Option<&'a Value> {
        self.0.get(&ObjectRef::of(manifest).claim()).copied()
    }
}

fn resource_version(live: &Value) -> String {
    live.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether our field manager has applied anything to an object.
fn is_ours(live: &Value) -> bool {
    let managers = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    managers.into_iter().flatten().any(|manager| {
        manager.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER)
            && manager.get("operation").and_then(Value::as_str) == Some("Apply")
    })
}

/// An object without what changes with every write.
fn without_bookkeeping(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    object
}

/// Whether a CustomResourceDefinition among `objects` defines the kind of `manifest`.
fn brings_kind(objects: &[Document<Value>], manifest: &Value) -> bool {
    let wanted = ObjectRef::of(manifest);
    objects.iter().any(|object| {
        let text = |pointer| object.value.pointer(pointer).and_then(Value::as_str);
        ObjectRef::of(&object.value).is_crd()
            && text("/spec/group") == Some(&wanted.group)
            && text("/spec/names/kind") == Some(&wanted.kind)
    })
}

fn at(object: &Document<Value>, failure: Failure) -> Failure {
    Failure { message: format!("{}: {}", object.place, failure.message), ..failure }
}

fn failure(object: &ObjectRef, error: &ApiError) -> Failure {
    Failure::retried(error.reason(), format!("{object}: {error}"))
}

fn refused(object: &Document<Value>, error: &ApiError) -> Failure {
    let cure = if error.is_conflict() {
        ": leave the field out of the Promise's files, or let the other manager give it up"
    } else {
        ""
    };
    let identity = ObjectRef::of(&object.value);
    let message = format!("{identity} ({}): {error}{cure}", object.place);
    Failure::retried(error.reason(), message)
}

fn inventory_failure(error: ApiError) -> Failure {
    let message = format!("the inventory in namespace {}: {error}", ledger::NAMESPACE);
    Failure::retried(error.reason(), message)
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}
