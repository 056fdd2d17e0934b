//! Requests that are made of requests: which does a pipeline put out, and how do they stand?
//!
//! A pipeline may put out requests of other Promises of this platform: its **children**, of which the
//! object that it ran for is the **parent**. Where a Destination is the platform itself, they are files
//! like all others and go there ([`emitted`] says which those are). Else the hub makes them itself: no
//! round trip through a store, owned by their parent, and seen by it.
//!
//! **Who may what.** The hub makes children with its own rights, not with those of who asked for the
//! parent. That gives a requester no more than the Promise gives him: what is put out is what the
//! Promise's author, who is of the platform's team, wrote into its pipelines; the requester fills in
//! the fields of his request. So that it stays so however careless a pipeline is with those fields:
//! - only requests of Promises are made, never any other object;
//! - a request's children live in its own namespace: who may ask in one namespace can have nothing
//!   made in another. Only a Promise's own pipelines, whose input nobody but the platform's team
//!   writes, may put out requests for any namespace;
//! - what exists and is not the parent's is never touched, whatever it is named;
//! - what marks a child as its parent's is set by the hub, and nothing else of metadata but name,
//!   namespace, labels and annotations is taken;
//! - a child passes the same schema and the same rules as if a person had asked for it;
//! - how many, how large and how deep children may be is bounded, and none may be its own ancestor.
//!
//! **Who writes.** A pipeline hands its result over; what of it are children goes into the Work. The
//! parent's reconciler alone makes, changes and removes them, and records in the parent's status
//! which there are *before* it makes one: what status does not name was never made, so that nothing
//! is left behind by a crash.
//!
//! **When the next pipeline begins.** A pipeline that comes after one which put children out begins
//! when these are reconciled, and finds them, status and all, below `/kratix/input/children`. Its
//! author may take that wait away ([`labels::WAIT_FOR_CHILDREN`]). Pipelines that look for children by
//! themselves and ask to be tried again, as Kratix's must, run unchanged: they find them at once.

pub mod emitted;
mod family;
mod files;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use muster_api::{ChildRequest, Pipeline, Work, labels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    drift::covers,
    names,
    promise::RequestApi,
    workflow::{
        Subject,
        engine::{Progress, Step},
    },
};
pub use family::{Family, Member, unreconciled};
pub use files::{FILES_LEN_MAX, Files};

/// One child, as its parent's status records it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// The Promise that it is a request of.
    pub promise: String,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its plural.
    pub resource: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pipeline that put it out.
    pub pipeline: String,
    /// Its UID, once it is made: it is the parent's whatever others write into it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// How it stands.
    #[serde(default)]
    pub phase: Phase,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How a child stands; from best to worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// It is reconciled.
    Ready,
    /// It is made, and not reconciled yet.
    Waiting,
    /// It is not made yet.
    #[default]
    Pending,
    /// It is being removed.
    Removing,
    /// It has failed.
    Failed,
    /// It cannot be made.
    Refused,
}

impl Child {
    /// Its kind and name, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// Whether both are the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        let of = |child: &Self| {
            let group = child.api_version.split('/').next().map(str::to_owned);
            (group, child.kind.clone(), child.namespace.clone(), child.name.clone())
        };
        of(self) == of(other)
    }

    /// Where pipelines that come later find it, below `/kratix/input`.
    pub fn path(&self, parent: &Subject) -> String {
        let Self { promise, namespace, name, .. } = self;
        if parent.namespace.as_ref() == Some(namespace) {
            format!("children/{promise}/{name}.yaml")
        } else {
            format!("children/{promise}/{namespace}/{name}.yaml")
        }
    }

    fn of(request: &ChildRequest, pipeline: &str) -> Self {
        let text = |pointer: &str| {
            let found = request.manifest.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        Self {
            promise: request.promise.clone(),
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            resource: request.resource.clone(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            pipeline: pipeline.to_owned(),
            ..Self::default()
        }
    }
}

/// A child that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which.
    pub child: Child,
    /// What it shall be.
    pub manifest: Value,
}

/// What status records of an object's children.
pub fn recorded(status: &Value) -> Vec<Child> {
    let entries = status.get("children").cloned().unwrap_or_default();
    serde_json::from_value(entries).unwrap_or_default()
}

/// The children that an object's Works ask for, in the order of its pipelines. Refused is one that two
/// pipelines put out, and one of another namespace than a request's own: that was asked when the
/// pipeline handed it over, and is asked again, because who may write Works may not write everywhere.
pub fn wanted(
    parent: &Subject,
    recorded: &[Child],
    works: &[Work],
    pipelines: &[&str],
) -> Vec<Wanted> {
    let staying = works.iter().filter(|work| work.metadata.deletion_timestamp.is_none());
    let mut order: Vec<_> = staying.map(|work| (pipeline_of(work), work)).collect();
    order.sort_by_key(|(pipeline, _)| (rank(pipeline, pipelines), *pipeline));
    let mut found: Vec<Wanted> = Vec::new();
    for (pipeline, work) in order {
        for request in &work.spec.children {
            let mut child = Child::of(request, pipeline);
            if let Some(known) = recorded.iter().find(|known| known.is_same(&child)) {
                child.uid.clone_from(&known.uid);
            }
            if let Some(cause) = emitted::misplaced(parent, &child.namespace) {
                child.phase = Phase::Refused;
                child.message = cause;
            }
            if let Some(first) = found.iter_mut().find(|held| held.child.is_same(&child)) {
                first.child.phase = Phase::Refused;
                first.child.message = format!(
                    "pipelines {} and {pipeline} both put it out: leave it to one of them",
                    first.child.pipeline
                );
                continue;
            }
            found.push(Wanted { child, manifest: manifest(request, parent) });
        }
    }
    found
}

/// Lets a pipeline begin only when the children of those before it are reconciled, unless its author
/// wants it otherwise. One that is tried again has begun already.
pub fn hold(
    progress: Progress,
    family: &Family,
    pipelines: &[Pipeline],
    now: Timestamp,
) -> Progress {
    let Step::Start { index, attempt: 1 } = progress.step else { return progress };
    let waits = pipelines[index].metadata.annotations.get(labels::WAIT_FOR_CHILDREN);
    let names: Vec<_> = pipelines.iter().map(|pipeline| pipeline.metadata.name.as_str()).collect();
    match family.before(index, &names).waiting() {
        Some(waiting) if waits.is_none_or(|waits| waits != "false") => {
            progress.held(index, waiting, now)
        }
        _ => progress,
    }
}

/// Where a pipeline stands in the order; those that are no longer there come last.
pub fn rank(pipeline: &str, pipelines: &[&str]) -> usize {
    pipelines.iter().position(|name| *name == pipeline).unwrap_or(usize::MAX)
}

/// What is to be done about a wanted child, seen it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Make it.
    Create,
    /// Change it: what was put out differs, or somebody changed a part of it.
    Update,
    /// Nothing.
    Keep,
    /// Nothing: it is somebody else's.
    Foreign,
    /// Wait until it is gone, to make it anew.
    Await,
}

/// Decides about a wanted child.
pub fn next(wanted: &Wanted, live: Option<&Value>, parent: &Subject) -> Move {
    let Some(live) = live else { return Move::Create };
    if !is_own(live, parent, &wanted.child.uid) {
        return Move::Foreign;
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Move::Await;
    }
    // Its hash among the annotations tells what is no longer put out; the rest, what others changed.
    let mut comparable = wanted.manifest.clone();
    if let Some(metadata) = comparable["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    let is_whole = is_owned(live, parent) && covers(live, &comparable);
    if is_whole { Move::Keep } else { Move::Update }
}

/// Whether an object is a child of this parent, and not only named as one: it says so, or it is the
/// one that the parent's status names.
pub fn is_own(live: &Value, parent: &Subject, recorded_uid: &str) -> bool {
    let is_recorded = !recorded_uid.is_empty() && live["metadata"]["uid"] == recorded_uid;
    is_recorded || is_owned(live, parent)
}

fn is_owned(live: &Value, parent: &Subject) -> bool {
    let owner = controller(live);
    !parent.uid.is_empty() && owner.is_some_and(|owner| owner["uid"] == parent.uid.as_str())
}

fn controller(live: &Value) -> Option<&Value> {
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array)?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Why a child cannot be made under this Promise; `None`: it can.
pub fn unoffered(child: &Child, api: Option<&RequestApi>) -> Option<String> {
    let promise = &child.promise;
    let Some(api) = api else { return Some(format!("promise {promise} is not installed")) };
    let group = child.api_version.split('/').next().unwrap_or_default();
    let offered = (api.group.as_str(), api.kind.as_str(), api.plural.as_str());
    (offered != (group, &child.kind, &child.resource))
        .then(|| format!("promise {promise} does not offer {}.{group}", child.kind))
}

/// What is told of a child whose name is taken.
pub fn foreign(child: &Child, live: &Value) -> String {
    let text = |owner: &Value, key: &str| owner[key].as_str().unwrap_or_default().to_owned();
    let whose = controller(live)
        .map(|owner| format!("{} {}'s", text(owner, "kind"), text(owner, "name")))
        .unwrap_or_else(|| "somebody else's".to_owned());
    format!(
        "a {} of that name exists in {} and is {whose}: choose another name, or delete it",
        child.kind, child.namespace
    )
}

/// Makes what a child got when it was created count as applied, so that what is no longer put out
/// goes when it is applied the next time; `None`: it does count so already.
pub fn as_applied(live: &Value, manager: &str) -> Option<Value> {
    let mut entries = live.pointer("/metadata/managedFields")?.as_array()?.clone();
    let created = entries.iter_mut().find(|entry| {
        entry["manager"] == manager
            && entry["operation"] == "Update"
            && entry["subresource"].is_null()
    })?;
    created["operation"] = json!("Apply");
    Some(Value::Array(entries))
}

fn pipeline_of(work: &Work) -> &str {
    let labels = work.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::PIPELINE_NAME)).map_or("", String::as_str)
}

/// What the hub makes of it: what was put out, with the marks of its parent.
fn manifest(request: &ChildRequest, parent: &Subject) -> Value {
    let hash = names::fingerprint(&[&request.manifest.to_string()]);
    let part = |key: &str| {
        let written = request.manifest.get("metadata").and_then(|metadata| metadata.get(key));
        written.and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut labels, mut annotations) = (part("labels"), part("annotations"));
    annotations.insert(labels::EMITTED.to_owned(), json!(hash));
    labels.insert(labels::PARENT_PROMISE_NAME.to_owned(), json!(parent.promise));
    if let Some(namespace) = &parent.namespace {
        labels.insert(labels::PARENT_RESOURCE_NAME.to_owned(), json!(parent.name));
        labels.insert(labels::PARENT_RESOURCE_NAMESPACE.to_owned(), json!(namespace));
    }
    let mut manifest = request.manifest.as_object().cloned().unwrap_or_default();
    let metadata = |key: &str| request.manifest.pointer(&format!("/metadata/{key}"));
    manifest.insert(
        "metadata".to_owned(),
        json!({
            "name": metadata("name"), "namespace": metadata("namespace"),
            "labels": labels, "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": parent.api_version(), "kind": parent.kind,
                "name": parent.name, "uid": parent.uid,
                "controller": true,
            }],
        }),
    );
    Value::Object(manifest)
}
