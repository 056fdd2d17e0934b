//! `WorkPlacement`: one group of a Work on one destination.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::work::Workload;

/// Which files, and where.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "WorkPlacement",
    namespaced,
    status = "WorkPlacementStatus",
    category = "kratix",
    shortname = "wp",
    shortname = "wps",
    printcolumn = r#"{"name":"DESTINATION","type":"string","jsonPath":".spec.targetDestinationName"}"#,
    printcolumn = r#"{"name":"STATUS","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"HEALTH","type":"string","jsonPath":".status.health"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkPlacementSpec {
    /// The destination.
    #[schemars(length(min = 1))]
    pub target_destination_name: String,
    /// The digest that it is pinned to: the name of a Content.
    #[schemars(length(min = 1))]
    pub digest: String,
    /// The files, for people.
    #[serde(default)]
    pub workloads: Vec<Workload>,
    /// The Promise.
    #[serde(default)]
    pub promise_name: String,
    /// The request; absent for dependencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// The request's namespace; absent for dependencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_namespace: Option<String>,
    /// The workload group.
    #[serde(default)]
    pub id: String,
    /// The Work's generation.
    #[serde(default)]
    pub generation: i64,
}

/// What the destination says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkPlacementStatus {
    /// See [`crate::conditions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The digest that is applied there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_digest: Option<String>,
    /// Pending, Applying, Applied, Failed, Refused, Removing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Healthy, Unknown, Progressing, Degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_message: Option<String>,
    /// What the applied files put out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::crds::free_object")]
    pub outputs: BTreeMap<String, Value>,
    /// Files that no applier uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unapplied_files: Vec<String>,
    /// A state store's version of the files.
    #[serde(default, rename = "versionID", skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}
