//! The server's own controllers: what Kubernetes' controller manager does for every API server.
//!
//! Each looks at one thing at a time, told by its name alone: whatever happened, it looks at what
//! is there now. A failure is logged and looked at again later.

pub(crate) mod accounts;
mod definitions;
mod dirty;
mod events;
mod finished;
mod garbage;
mod namespaces;
mod roles;
mod upkeep;

use std::{future::Future, hash::Hash, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    server::Inner,
    service,
    status::Status,
    storage::Storage,
    store::Object,
    verbs::{self, DeleteOptions, Part, Propagation},
};
use dirty::Dirty;

/// What failed is looked at again after so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Starts them; they end with the server's shutdown.
pub(crate) fn start(server: &Arc<Inner>, storage: &Storage) {
    accounts::start(server);
    definitions::start(server);
    events::start(server, storage.keep_events);
    finished::start(server, storage.keep_jobs);
    garbage::start(server);
    namespaces::start(server);
    roles::start(server);
    upkeep::start(server);
}

/// Runs a controller: looks at each dirty thing, in turn, until the shutdown.
fn run<K, F>(
    server: &Arc<Inner>,
    name: &'static str,
    dirty: Arc<Dirty<K>>,
    look: impl Fn(Arc<Inner>, K) -> F + Send + Sync + 'static,
) where
    K: Ord + Hash + Clone + std::fmt::Debug + Send + Sync + 'static,
    F: Future<Output = Result<(), Status>> + Send,
{
    let server = server.clone();
    tokio::spawn(async move {
        let stop = server.shutdown.clone();
        let work = async {
            loop {
                let key = dirty.next().await;
                if let Err(status) = look(server.clone(), key.clone()).await {
                    tracing::warn!(controller = name, ?key, %status, "will look again");
                    dirty.add_later(key, RETRY_AFTER);
                }
            }
        };
        // Cancel-safe enough: each step is one durable change, and the next start looks at all.
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Deletes an object of any kind; that it is gone already is no error.
async fn delete(
    server: &Arc<Inner>,
    object: Arc<Object>,
    propagation: Option<Propagation>,
) -> Result<(), Status> {
    let registry = server.registry();
    let Some(resource) = registry.of_store(&object.key.kind) else { return Ok(()) };
    let options = DeleteOptions {
        propagation,
        uid: Some(object.meta.uid.clone()),
        ..DeleteOptions::default()
    };
    let (namespace, name) = (object.key.namespace.clone(), object.key.name.clone());
    let deleted = service::internal(server, resource, &namespace, &name, async |call| {
        verbs::delete_object(call, object, &options).await
    });
    match deleted.await {
        Err(status) if !["NotFound", "Conflict"].contains(&status.reason) => Err(status),
        _ => Ok(()),
    }
}

/// Edits an object of any kind; that it is gone already is no error.
async fn edit(
    server: &Arc<Inner>,
    object: &Object,
    part: Part,
    change: impl Fn(&mut Value) + Sync,
) -> Result<(), Status> {
    let registry = server.registry();
    let Some(resource) = registry.of_store(&object.key.kind) else { return Ok(()) };
    let (namespace, name) = (&object.key.namespace, &object.key.name);
    let edited = service::internal(server, resource, namespace, name, async |call| {
        verbs::edit(call, part, &object.meta.uid, &change).await
    });
    match edited.await {
        Err(status) if status.reason != "NotFound" => Err(status),
        _ => Ok(()),
    }
}

/// Takes one finalizer off an object.
async fn release(server: &Arc<Inner>, object: &Object, finalizer: &str) -> Result<(), Status> {
    edit(server, object, Part::Main, |value| {
        if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|own| own != finalizer);
        }
    })
    .await
}
