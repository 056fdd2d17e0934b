//! What every namespace has from its start: the ServiceAccount `default`, and the certificate of
//! the server's authority in the ConfigMap `kube-root-ca.crt`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Dirty, run};
use crate::{
    server::Inner,
    service,
    status::Status,
    store::{EventKind, Key},
    verbs,
};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

pub(super) fn start(server: &Arc<Inner>) {
    let dirty = Dirty::new();
    let noted = dirty.clone();
    server.store.observe(Box::new(move |event| {
        let key = &event.object.key;
        match (&*key.kind, event.kind) {
            ("namespaces", EventKind::Added) => noted.add(key.name.clone()),
            ("serviceaccounts", EventKind::Deleted) if key.name == ACCOUNT => {
                noted.add(key.namespace.clone());
            }
            ("configmaps", EventKind::Deleted) if key.name == ROOT_CA => {
                noted.add(key.namespace.clone());
            }
            _ => {}
        }
    }));
    run(server, "accounts", dirty, async |server, name: String| look(&server, &name).await);
}

/// Completes the namespaces that there are, before anyone is served.
pub(crate) async fn complete(server: &Arc<Inner>) -> Result<(), Status> {
    let namespaces: Vec<String> = {
        let state = server.store.read();
        state.list("namespaces", None, None).map(|found| found.key.name.clone()).collect()
    };
    let each = namespaces.iter().map(|namespace| look(server, namespace));
    futures::future::try_join_all(each).await.map(drop)
}

async fn look(server: &Arc<Inner>, namespace: &str) -> Result<(), Status> {
    let key =
        Key { kind: "namespaces".into(), namespace: String::new(), name: namespace.to_owned() };
    if server.store.get(&key).is_none_or(|found| found.meta.deleting()) {
        return Ok(());
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT},
    });
    make(server, "serviceaccounts", namespace, account).await?;
    let about = "the certificate of the authority that signs the API server's own";
    let root_ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description": about}},
        "data": {"ca.crt": server.pki.ca_pem()},
    });
    make(server, "configmaps", namespace, root_ca).await
}

async fn make(
    server: &Arc<Inner>,
    plural: &str,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let registry = server.registry();
    let Some(resource) = registry.find("", "v1", plural) else { return Ok(()) };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let key = Key { kind: plural.into(), namespace: namespace.to_owned(), name };
    if server.store.get(&key).is_some() {
        return Ok(());
    }
    let made = service::internal(server, resource, namespace, "", async |call| {
        verbs::make(call, object).await
    });
    match made.await {
        // The namespace may have begun to end meanwhile.
        Err(status) if !["AlreadyExists", "Forbidden", "NotFound"].contains(&status.reason) => {
            Err(status)
        }
        _ => Ok(()),
    }
}
