//! What each placement holds in a cluster, kept in that cluster: one ConfigMap for each placement, in
//! the namespace `muster-system`, written before anything is applied.
//!
//! An agent that lost its disk, or another one in its place, finds here what to prune and remove.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use muster_core::{Claim, PlacementKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    api::{Api, ApiError, Applying},
    object::ObjectRef,
};
use crate::disk;

/// Where inventories are.
pub(super) const NAMESPACE: &str = "muster-system";
const LABEL: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY: &str = "muster-agent";
const PLACEMENT_ANNOTATION: &str = "fleet.muster.dev/placement";

/// One object of a placement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) object: ObjectRef,
    /// It was there before the placement: it stays when the placement goes, without our fields.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) adopted: bool,
}

/// The inventories of a cluster; read once, then written through.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    read: OnceCell<()>,
    namespace_made: OnceCell<()>,
    entries: Mutex<BTreeMap<PlacementKey, BTreeSet<Entry>>>,
}

impl Ledger {
    /// What a placement may hold.
    pub(super) async fn get(
        &self,
        api: &Api,
        key: &PlacementKey,
    ) -> Result<BTreeSet<Entry>, ApiError> {
        self.read.get_or_try_init(|| self.read_all(api)).await?;
        Ok(self.lock().get(key).cloned().unwrap_or_default())
    }

    /// The placement, other than `key`, that lists the same thing.
    pub(super) fn other_owner(&self, key: &PlacementKey, claim: &Claim) -> Option<PlacementKey> {
        let entries = self.lock();
        let mut others = entries.iter().filter(|(other, _)| *other != key);
        let lists = |all: &BTreeSet<Entry>| all.iter().any(|entry| entry.object.claim() == *claim);
        others.find(|(_, all)| lists(all)).map(|(other, _)| other.clone())
    }

    /// Writes what a placement may hold; nothing is sent when that is known already.
    pub(super) async fn put(
        &self,
        api: &Api,
        key: &PlacementKey,
        entries: &BTreeSet<Entry>,
    ) -> Result<(), ApiError> {
        if self.get(api, key).await? == *entries {
            return Ok(());
        }
        if entries.is_empty() {
            if let Some(live) = api.read(&config_map(key)).await? {
                api.delete(&config_map(key), uid(&live)).await?;
            }
            self.lock().remove(key);
            return Ok(());
        }
        self.namespace_made.get_or_try_init(|| make_namespace(api)).await?;
        let objects = serde_json::to_string(entries)
            .map_err(|error| ApiError::Unreachable(error.to_string()))?;
        let manifest = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name(key), "namespace": NAMESPACE,
                "labels": {LABEL: MANAGED_BY},
                "annotations": {PLACEMENT_ANNOTATION: key.to_string()},
            },
            "data": {"objects": objects},
        });
        api.apply(&manifest, Applying { force: true, dry_run: false }).await?;
        self.lock().insert(key.clone(), entries.clone());
        Ok(())
    }

    async fn read_all(&self, api: &Api) -> Result<(), ApiError> {
        let uri = format!(
            "/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector={LABEL}%3D{MANAGED_BY}"
        );
        let list = api.get(&uri).await?;
        let mut all = BTreeMap::new();
        for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let pointer =
                format!("/metadata/annotations/{}", PLACEMENT_ANNOTATION.replace('/', "~1"));
            let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str);
            let key = text(&pointer).and_then(|key| PlacementKey::parse(key).ok());
            let entries = text("/data/objects").and_then(|text| serde_json::from_str(text).ok());
            let name = text("/metadata/name").unwrap_or_default();
            let (Some(key), Some(entries)) = (key, entries) else {
                // Guessing would orphan objects; a person has to look.
                return Err(ApiError::Unreachable(format!(
                    "the inventory ConfigMap {name} in namespace {NAMESPACE} cannot be read: \
                     restore it, or delete it to give up the objects that it lists"
                )));
            };
            all.insert(key, entries);
        }
        *self.lock() = all;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PlacementKey, BTreeSet<Entry>>> {
        // A panic while the map was held left it whole: every change is one insertion or removal.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The uid of a live object; empty if it has none, which no precondition matches.
pub(super) fn uid(live: &Value) -> &str {
    live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
}

async fn make_namespace(api: &Api) -> Result<(), ApiError> {
    let manifest =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let namespace = ObjectRef::of(&manifest);
    if api.read(&namespace).await?.is_none() {
        api.apply(&manifest, Applying::default()).await?;
    }
    Ok(())
}

fn name(key: &PlacementKey) -> String {
    format!("placement.{}", disk::name(key))
}

fn config_map(key: &PlacementKey) -> ObjectRef {
    ObjectRef {
        group: String::new(),
        version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: name(key),
    }
}
