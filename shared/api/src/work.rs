//! `Work`: what one pipeline put out: groups of files, and which destinations each may go to.
//!
//! A Work names files and digests; their bytes are in [`crate::Content`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::destination::DestinationSelector;

/// Groups of files.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "Work",
    namespaced,
    status = "WorkStatus",
    category = "kratix",
    printcolumn = r#"{"name":"STATUS","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkSpec {
    /// The Promise.
    #[schemars(length(min = 1))]
    pub promise_name: String,
    /// The request; absent for dependencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// The groups, by directory.
    #[serde(default)]
    pub workload_groups: Vec<WorkloadGroup>,
    /// Requests of Promises of this very platform: the hub makes them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildRequest>,
}

/// A request that a pipeline put out for this platform. It is an object and no file: it stands here
/// whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChildRequest {
    /// The Promise that it is a request of.
    pub promise: String,
    /// The plural of its kind.
    pub resource: String,
    /// Its apiVersion, kind, metadata and spec.
    #[schemars(schema_with = "crate::crds::free_object")]
    pub manifest: Value,
}

/// Files that go to the same destinations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadGroup {
    /// The MD5 of the directory in hexadecimal, as in Kratix.
    pub id: String,
    /// The directory; `.` for the rest.
    pub directory: String,
    /// The digest of the group's file set: the name of its Content.
    pub digest: String,
    /// The files, for people.
    #[serde(default)]
    pub workloads: Vec<Workload>,
    /// Which destinations; merged.
    #[serde(default)]
    pub destination_selectors: Vec<DestinationSelector>,
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Its path, with the group's directory.
    pub filepath: String,
    /// Its size in bytes.
    pub size: i64,
}

/// Where a Work stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkStatus {
    /// See [`crate::conditions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many placements it has.
    #[serde(default)]
    pub work_placements: i64,
    /// How many were created.
    #[serde(default)]
    pub work_placements_created: i64,
    /// How many are applied at the digests of this generation.
    #[serde(default)]
    pub work_placements_applied: i64,
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The counts and the worst of its placements, summed up to the request from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placements: Option<PlacementsSummary>,
}

/// Counts, and the worst 20.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementsSummary {
    /// How many there are.
    pub total: i64,
    /// How many are applied at their pinned digest.
    pub applied: i64,
    /// How many are healthy.
    pub healthy: i64,
    /// How many are on destinations whose agent is not connected.
    pub offline: i64,
    /// Where, for people: a destination's name, or how many there are.
    pub destination: String,
    /// How it is, for people: `Healthy`, or the worst verdict and its cause; empty before anything
    /// is applied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// The worst 20, worst first.
    #[serde(default)]
    pub worst: Vec<PlacementSummary>,
}

/// One placement, for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlacementSummary {
    /// The destination.
    pub destination: String,
    /// Pending, Applying, Applied, Failed, Refused, Removing, Offline.
    pub phase: String,
    /// Healthy, Unknown, Progressing, Degraded.
    pub health: String,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when (RFC 3339).
    pub since: String,
}
