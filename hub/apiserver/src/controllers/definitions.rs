//! The end of a CustomResourceDefinition: all its objects go first
//! (after `apiextensions-apiserver/pkg/controller/finalizer`).

use std::sync::Arc;

use super::{Dirty, delete, edit, release, run};
use crate::{
    registry::{
        DEFINITIONS,
        definition::{CLEANUP, Condition, set_condition},
    },
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
        if &*key.kind == DEFINITIONS && event.object.meta.deleting() {
            noted.add(key.name.clone());
        } else if event.kind == EventKind::Deleted && key.kind.contains('.') {
            // The table of a custom kind has the name of its definition.
            noted.add(key.kind.to_string());
        }
    }));
    for definition in server.store.read().list(DEFINITIONS, None, None) {
        dirty.add(definition.key.name.clone());
    }
    run(server, "definitions", dirty, async |server, name: String| look(&server, &name).await);
}

async fn look(server: &Arc<Inner>, name: &str) -> Result<(), Status> {
    let key = Key { kind: DEFINITIONS.into(), namespace: String::new(), name: name.to_owned() };
    let Some(definition) = server.store.get(&key).filter(|found| found.meta.deleting()) else {
        return Ok(());
    };
    let objects =
        || -> Vec<Arc<Object>> { server.store.read().list(name, None, None).cloned().collect() };
    for object in objects().into_iter().filter(|object| !object.meta.deleting()) {
        delete(server, object, None).await?;
    }
    let left = objects().len();
    if left == 0 {
        return release(server, &definition, CLEANUP).await;
    }
    let now = verbs::now();
    edit(server, &definition, Part::Status, |value| {
        let message = format!("{left} of its objects are not gone yet: their finalizers hold them");
        let why = "InstanceDeletionInProgress";
        set_condition(
            &mut value["status"],
            &Condition { kind: "Terminating", holds: true, reason: why, message: &message },
            &now,
        );
    })
    .await
}
