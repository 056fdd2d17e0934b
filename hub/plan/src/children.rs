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

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use muster_api::{ChildRequest, Pipeline, Work, labels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    drift::covers,
    names,
    workflow::{
        Subject,
        engine::{Progress, Step},
    },
};
pub use family::{Family, Member, unreconciled};

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

/// The children that an object's Works ask for, in the order of its pipelines. One that two
/// pipelines put out is refused.
pub fn wanted(parent: &Subject, works: &[Work], pipelines: &[&str]) -> Vec<Wanted> {
    let staying = works.iter().filter(|work| work.metadata.deletion_timestamp.is_none());
    let mut order: Vec<_> = staying.map(|work| (pipeline_of(work), work)).collect();
    order.sort_by_key(|(pipeline, _)| (rank(pipeline, pipelines), *pipeline));
    let mut found: Vec<Wanted> = Vec::new();
    for (pipeline, work) in order {
        for request in &work.spec.children {
            let child = Child::of(request, pipeline);
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
pub fn next(manifest: &Value, live: Option<&Value>, parent: &Subject) -> Move {
    let Some(live) = live else { return Move::Create };
    if !is_own(live, parent) {
        return Move::Foreign;
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Move::Await;
    }
    // Its hash among the annotations tells what is no longer put out; the rest, what others changed.
    let mut comparable = manifest.clone();
    if let Some(metadata) = comparable["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    if covers(live, &comparable) { Move::Keep } else { Move::Update }
}

/// Whether an object is a child of this parent, and not only named as one.
pub fn is_own(live: &Value, parent: &Subject) -> bool {
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| {
        owner["uid"] == parent.uid.as_str() && owner["controller"] == true && !parent.uid.is_empty()
    })
}

/// What is told of a child whose name is taken.
pub fn foreign(child: &Child) -> String {
    format!(
        "a {} of that name exists in {} and is somebody else's: choose another name, or delete it",
        child.kind, child.namespace
    )
}

fn pipeline_of(work: &Work) -> &str {
    let labels = work.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::PIPELINE_NAME)).map_or("", String::as_str)
}

/// What the hub applies: what was put out, with the marks of its parent.
fn manifest(request: &ChildRequest, parent: &Subject) -> Value {
    let mut manifest = request.manifest.clone();
    let hash = names::fingerprint(&[&manifest.to_string()]);
    let metadata = &mut manifest["metadata"];
    metadata["annotations"][labels::EMITTED] = json!(hash);
    metadata["labels"][labels::PARENT_PROMISE_NAME] = json!(parent.promise);
    if let Some(namespace) = &parent.namespace {
        metadata["labels"][labels::PARENT_RESOURCE_NAME] = json!(parent.name);
        metadata["labels"][labels::PARENT_RESOURCE_NAMESPACE] = json!(namespace);
    }
    metadata["ownerReferences"] = json!([{
        "apiVersion": parent.api_version(), "kind": parent.kind,
        "name": parent.name, "uid": parent.uid,
        "controller": true,
    }]);
    manifest
}
