//! What the hub puts into the API at every start: its kinds, its roles, its agents' door.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use muster_api::{SYSTEM_NAMESPACE, enrolment};
use muster_gateway::Gateway;
use serde_json::{Value, json};

/// The manager of the fields that the hub installs.
const MANAGER: &str = "muster-hub";

/// Installs our kinds, and the identities and rights of the controllers.
pub(crate) async fn everything(client: &Client) -> anyhow::Result<()> {
    for manifest in muster_control::manifests() {
        object(client, &manifest).await?;
    }
    Ok(())
}

/// Publishes where agents dial in, for `muster agents token create`.
pub(crate) async fn door(client: &Client, gateway: &Gateway) -> anyhow::Result<()> {
    let data = BTreeMap::from([
        (enrolment::DOOR_ADDRESS, gateway.address()),
        (enrolment::DOOR_CA, gateway.ca_pem().to_owned()),
        (enrolment::DOOR_CA_PIN, gateway.ca_pin().to_string()),
    ]);
    let map = json!({
        "apiVersion": ConfigMap::api_version(&()),
        "kind": ConfigMap::kind(&()),
        "metadata": {"name": enrolment::DOOR, "namespace": SYSTEM_NAMESPACE},
        "data": data,
    });
    object(client, &map).await
}

async fn object(client: &Client, manifest: &Value) -> anyhow::Result<()> {
    let object: DynamicObject =
        serde_json::from_value(manifest.clone()).context("a manifest of ours is no object")?;
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types).context("a manifest of ours has no kind")?;
    let resource = ApiResource::from_gvk(&kind);
    let name = object.name_any();
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let apply = PatchParams::apply(MANAGER).force();
    api.patch(&name, &apply, &Patch::Apply(&object))
        .await
        .with_context(|| format!("cannot install {} {name}", types.kind))?;
    Ok(())
}
