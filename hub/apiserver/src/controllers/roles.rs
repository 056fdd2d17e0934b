//! Aggregated cluster roles: their rules, which follow from labels of other roles, are written
//! into them, so that whoever reads a role sees what it gives. (What it gives is decided by
//! [`crate::rbac`], from the same function, without waiting for this.)

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Dirty, edit, run};
use crate::{rbac, server::Inner, status::Status, store::Object, verbs::Part};

const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

pub(super) fn start(server: &Arc<Inner>) {
    // Any role may be gathered into any other: there is one thing to look at.
    let dirty = Dirty::new();
    let noted = dirty.clone();
    server.store.observe(Box::new(move |event| {
        if &*event.object.key.kind == ROLES {
            noted.add(());
        }
    }));
    dirty.add(());
    run(server, "roles", dirty, async |server, ()| look(&server).await);
}

async fn look(server: &Arc<Inner>) -> Result<(), Status> {
    let objects: Vec<Arc<Object>> = server.store.read().list(ROLES, None, None).cloned().collect();
    let roles: Vec<Value> = objects.iter().map(|object| object.value()).collect();
    for (object, role) in objects.iter().zip(&roles) {
        if !role["aggregationRule"].is_object() {
            continue;
        }
        let rules = json!(rbac::aggregate(role, &roles));
        let own = match &role["rules"] {
            Value::Null => &json!([]),
            own => own,
        };
        if *own != rules {
            edit(server, object, Part::Main, |value| value["rules"] = rules.clone()).await?;
        }
    }
    Ok(())
}
