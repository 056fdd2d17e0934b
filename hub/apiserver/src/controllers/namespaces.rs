//! The end of a namespace: its content goes first, then the namespace itself
//! (after `pkg/controller/namespace`).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::{Dirty, delete, edit, run};
use crate::{
    registry::definition::{Condition, set_condition},
    server::Inner,
    status::Status,
    store::{EventKind, Key, Object},
    verbs::{self, Part},
};

pub(super) fn start(server: &Arc<Inner>) {
    let dirty = Dirty::new();
    let noted = dirty.clone();
    server.store.observe(Box::new(move |event| {
        let key = &event.object.key;
        if &*key.kind == "namespaces" && event.object.meta.deleting() {
            noted.add(key.name.clone());
        } else if event.kind == EventKind::Deleted && !key.namespace.is_empty() {
            // Perhaps the last thing that a dying namespace waited for.
            noted.add(key.namespace.clone());
        }
    }));
    for namespace in server.store.read().list("namespaces", None, None) {
        dirty.add(namespace.key.name.clone());
    }
    run(server, "namespaces", dirty, async |server, name: String| look(&server, &name).await);
}

async fn look(server: &Arc<Inner>, name: &str) -> Result<(), Status> {
    let key = Key { kind: "namespaces".into(), namespace: String::new(), name: name.to_owned() };
    let Some(namespace) = server.store.get(&key).filter(|found| found.meta.deleting()) else {
        return Ok(());
    };
    for object in content(server, name) {
        if !object.meta.deleting() {
            delete(server, object, None).await?;
        }
    }
    let left = content(server, name);
    if !left.is_empty() {
        return tell(server, &namespace, &left).await;
    }
    edit(server, &namespace, Part::Finalize, |value| value["spec"]["finalizers"] = json!([])).await
}

fn content(server: &Inner, namespace: &str) -> Vec<Arc<Object>> {
    let state = server.store.read();
    state.kinds().flat_map(|kind| state.list(kind, Some(namespace), None).cloned()).collect()
}

/// Says in the namespace's conditions what it waits for, in Kubernetes' words.
async fn tell(server: &Arc<Inner>, namespace: &Object, left: &[Arc<Object>]) -> Result<(), Status> {
    let (mut kinds, mut finalizers) = (BTreeMap::new(), BTreeMap::new());
    for object in left {
        let kind = &object.key.kind;
        // Kubernetes writes the dot before a group even where there is no group.
        let dot = if kind.contains('.') { "" } else { "." };
        *kinds.entry(format!("{kind}{dot}")).or_insert(0) += 1;
        for finalizer in &object.meta.finalizers {
            *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
    }
    let told = |counts: BTreeMap<String, i32>, link: &str| {
        let each =
            counts.iter().map(|(what, count)| format!("{what} {link} {count} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    };
    let nothing_held = finalizers.is_empty();
    let remaining = format!("Some resources are remaining: {}", told(kinds, "has"));
    let held = format!(
        "Some content in the namespace has finalizers remaining: {}",
        told(finalizers, "in")
    );
    let conditions = conditions(&remaining, (!nothing_held).then_some(&*held));
    let now = verbs::now();
    edit(server, namespace, Part::Status, |value| {
        for condition in &conditions {
            set_condition(&mut value["status"], condition, &now);
        }
    })
    .await
}

/// What can go wrong on the way elsewhere (discovery, other servers' kinds) cannot here.
fn conditions<'a>(remaining: &'a str, held: Option<&'a str>) -> [Condition<'a>; 5] {
    let of = |kind, holds, reason, message| Condition { kind, holds, reason, message };
    [
        of(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        of(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        of(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        of("NamespaceContentRemaining", true, "SomeResourcesRemain", remaining),
        match held {
            Some(held) => of("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", held),
            None => of(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        },
    ]
}
