//! The few things that every controller does to objects: bring up to date, remove, write status,
//! follow.
//!
//! What is reconciled is read from the API, and written only as it was when that was decided; what
//! belongs to it (Jobs, Works, placements) comes from an index that holds our own writes at once.
//! A write that would change nothing is not made.

use std::{collections::BTreeMap, fmt::Debug};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use muster_plan::drift::covers;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::queue::Triggers;

/// The hash of what the hub wanted an object to be when it last wrote it.
const WANTED: &str = "fleet.muster.dev/wanted";

/// A call to the API failed. Trying again later may help; the queue does.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub(crate) struct Failed {
    action: String,
    #[source]
    source: Box<kube::Error>,
}

impl Failed {
    /// Names the action that a call was for.
    pub(crate) fn to(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self { action, source: Box::new(source) }
    }

    /// What was to be done and the API's words, if it refuses: trying the same again at once would
    /// not help. Not so if it only met another write, or cannot answer now.
    pub(crate) fn refusal(&self) -> Option<String> {
        match &*self.source {
            kube::Error::Api(status)
                if matches!(status.code, 400 | 403 | 404 | 405 | 413 | 415 | 422) =>
            {
                Some(format!("{self}: {}", status.message))
            }
            _ => None,
        }
    }

    /// Whether another write came in between.
    pub(crate) fn is_overtaken(&self) -> bool {
        is_conflict(&self.source)
    }

    /// The API's words, if it answered.
    pub(crate) fn answer(&self) -> Option<&str> {
        match &*self.source {
            kube::Error::Api(status) => Some(&status.message),
            _ => None,
        }
    }
}

/// Whether the API says that there is no such object.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API says that there is one already, or that it was changed meanwhile.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The API for objects of a kind, in a namespace or in none.
pub(crate) fn dynamic(
    client: &Client,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// As [`dynamic`], of a kind whose plural cannot be guessed.
pub(crate) fn dynamic_plural(
    client: &Client,
    api_version: &str,
    (kind, plural): (&str, &str),
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// As [`dynamic_plural`], of all namespaces, metadata alone.
pub(crate) fn metadata_plural(
    client: &Client,
    api_version: &str,
    (kind, plural): (&str, &str),
) -> Api<PartialObjectMeta<DynamicObject>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, plural))
}

/// Lists the objects of a kind with these labels.
pub(crate) async fn with_labels<K>(
    api: &Api<K>,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<K>, Failed>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let terms: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selector = terms.join(",");
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    Ok(listed.map_err(Failed::to(format!("list {} with {selector}", api.resource_url())))?.items)
}

/// Makes an object be as wanted; says whether anything was written. An existing ServiceAccount is
/// left as it is: it may be someone's own.
pub(crate) async fn ensure(client: &Client, wanted: &Value) -> Result<bool, Failed> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let namespace = wanted.pointer("/metadata/namespace").and_then(Value::as_str);
    let api = dynamic(client, text("/apiVersion"), kind, namespace);
    let hash = muster_plan::names::md5_hex(&wanted.to_string());
    let mut marked = wanted.clone();
    marked["metadata"]["annotations"][WANTED] = json!(hash);
    let live = api.get_opt(name).await.map_err(Failed::to(format!("read {kind} {name}")))?;
    let parse =
        |value| serde_json::from_value::<DynamicObject>(value).map_err(kube::Error::SerdeError);
    match live {
        None => {
            let object = parse(marked).map_err(Failed::to(format!("write {kind} {name}")))?;
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(true),
                Err(error) if is_conflict(&error) => Ok(false),
                Err(error) => Err(Failed::to(format!("create {kind} {name}"))(error)),
            }
        }
        Some(_) if kind == "ServiceAccount" => Ok(false),
        Some(live) if live.annotations().get(WANTED) == Some(&hash) && holds(&live, wanted) => {
            Ok(false)
        }
        Some(live) => {
            marked["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
            let object = parse(marked).map_err(Failed::to(format!("write {kind} {name}")))?;
            let replaced = api.replace(name, &PostParams::default(), &object).await;
            replaced.map(|_| true).map_err(Failed::to(format!("update {kind} {name}")))
        }
    }
}

/// Deletes an object; that it is gone already is as good.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), Failed>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(Failed::to(format!("delete {} {name}", api.resource_url()))(error)),
    }
}

/// Writes what differs of a status, unless the object was changed meanwhile; says whether anything
/// was written.
pub(crate) async fn write_status(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    status: &Value,
) -> Result<bool, Failed> {
    put_status(api, object, status).await.map(|written| written.is_some())
}

/// As [`write_status`]; says what came of it, if anything was written.
pub(crate) async fn put_status(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    status: &Value,
) -> Result<Option<DynamicObject>, Failed> {
    let Some(patch) = muster_plan::request::patch(&object.data["status"], status) else {
        return Ok(None);
    };
    let name = object.name_any();
    let patch = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": patch,
    });
    let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    written.map(Some).map_err(Failed::to(format!("write the status of {name}")))
}

/// Changes metadata (labels, finalizers), unless the object was changed meanwhile.
pub(crate) async fn patch_metadata(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    mut metadata: Map<String, Value>,
) -> Result<DynamicObject, Failed> {
    let name = object.name_any();
    let version = json!(object.metadata.resource_version);
    metadata.insert("resourceVersion".to_owned(), version);
    let patch = json!({ "metadata": metadata });
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map_err(Failed::to(format!("change the metadata of {name}")))
}

/// Whether an object has a label that says `true`.
pub(crate) fn is_marked(metadata: &ObjectMeta, label: &str) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label)).is_some_and(|value| value == "true")
}

/// Whether an object is being deleted.
pub(crate) fn is_leaving(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Follows objects and puts into the queue what `keys` says for each change,
/// until `shutdown`. The watch begins again by itself after an error, with growing waits.
pub(crate) async fn follow<K, T>(
    api: Api<K>,
    labels: Option<&str>,
    triggers: Triggers<T>,
    keys: impl Fn(&K) -> Option<T>,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut config = watcher::Config::default();
    if let Some(labels) = labels {
        config = config.labels(labels);
    }
    let events = watcher(api, config).default_backoff();
    let mut events = Box::pin(events.take_until(shutdown.cancelled()));
    while let Some(event) = events.next().await {
        match event {
            Ok(
                watcher::Event::Apply(object)
                | watcher::Event::InitApply(object)
                | watcher::Event::Delete(object),
            ) => {
                if let Some(key) = keys(&object) {
                    triggers.look_at(key).await;
                }
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(error = %crate::queue::chain(&error), "a watch begins again");
            }
        }
    }
}

/// Whether `live` has all that is wanted; what the server added does not matter.
fn holds(live: &DynamicObject, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    let labels = wanted.get("metadata").and_then(|metadata| metadata["labels"].as_object());
    let labelled = labels
        .into_iter()
        .flatten()
        .all(|(key, value)| live.labels().get(key).map(String::as_str) == value.as_str());
    let skipped = ["apiVersion", "kind", "metadata"];
    let rest = wanted.iter().filter(|(key, _)| !skipped.contains(&key.as_str()));
    labelled && rest.into_iter().all(|(key, value)| covers(&live.data[key], value))
}
