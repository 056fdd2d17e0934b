//! `Promise`: a service that the platform offers. Kratix's kind, field for field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::destination::DestinationSelector;

/// What a Promise offers, needs and runs.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "Promise",
    status = "PromiseStatus",
    category = "kratix",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.status"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".status.kind"}"#,
    printcolumn = r#"{"name":"API Version","type":"string","jsonPath":".status.apiVersion"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct PromiseSpec {
    /// The request API: a whole CustomResourceDefinition, namespaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crds::embedded_object")]
    pub api: Option<Value>,
    /// Pipelines that turn the Promise, and each request, into files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Workflows>,
    /// Promises that must be installed before this one is available.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_promises: Vec<RequiredPromise>,
    /// Objects that every matching destination needs before requests can run there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::embedded_objects")]
    pub dependencies: Vec<Value>,
    /// Which destinations the Promise's files go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_selectors: Vec<DestinationSelector>,
}

/// Pipelines of the Promise and of its requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workflows {
    /// Options for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<WorkflowConfig>,
    /// Run for the Promise itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<WorkflowPipelines>,
    /// Run for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<WorkflowPipelines>,
}

/// Options of workflows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowConfig {
    /// Where pipelines run instead of the request's namespace; it must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_namespace: Option<String>,
    /// How often everything runs again: a Go duration of at least 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation_interval: Option<String>,
}

/// Pipelines by action. They stay unparsed here: `muster-plan` reads them strictly, so that an
/// unknown field is refused by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowPipelines {
    /// Run in order when the object is created or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::embedded_objects")]
    pub configure: Vec<Value>,
    /// The first is run when the object is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::embedded_objects")]
    pub delete: Vec<Value>,
}

/// A Promise that must be installed first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequiredPromise {
    /// Its name.
    pub name: String,
    /// Its version; empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Where a Promise stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PromiseStatus {
    /// See [`crate::conditions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The version label's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The kind of its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The group and version of its requests, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// `Available` or `Unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// One sentence; a promise pipeline may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many pipelines there are.
    #[serde(default)]
    pub workflows: i64,
    /// How many have succeeded.
    #[serde(default)]
    pub workflows_succeeded: i64,
    /// How many have failed.
    #[serde(default)]
    pub workflows_failed: i64,
    /// The state of each requirement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_promises: Vec<RequiredPromiseStatus>,
    /// Who requires it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_by: Vec<RequiredBy>,
    /// When it was last available (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_available_time: Option<String>,
    /// Kratix's nested view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kratix: Option<KratixStatus>,
}

/// The state of one requirement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequiredPromiseStatus {
    /// Its name.
    pub name: String,
    /// The version asked for; empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Kratix's words, such as "Requirement installed".
    pub state: String,
}

/// A Promise that requires this one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredBy {
    /// Who.
    pub promise: NamedVersion,
    /// Which version it asks for; empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub required_version: String,
}

/// A Promise at a version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamedVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

/// What Kratix keeps under `status.kratix`; pipelines may not write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct KratixStatus {
    /// The run of each pipeline.
    #[serde(default)]
    pub workflows: WorkflowsStatus,
    /// A Promise's kind of requests, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A Promise's group and version of requests, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// A Promise's version, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A Promise's `Available` or `Unavailable`, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// When a Promise was last available, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_available_time: Option<String>,
}

/// The runs of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct WorkflowsStatus {
    /// One entry for each pipeline of the action that runs, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<PipelineStatus>,
    /// The generation that was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_generation: Option<i64>,
    /// The configure pipelines alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure: Option<ActionStatus>,
    /// The delete pipelines alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<ActionStatus>,
    /// When the configure workflow last succeeded (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_configure_workflow_time: Option<String>,
}

/// The runs of the pipelines of one action.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// One entry for each pipeline, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<PipelineStatus>,
    /// The generation that was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_generation: Option<i64>,
}

/// One pipeline's last run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// Pending, Running, Succeeded, Failed or Suspended.
    pub phase: String,
    /// Why, when it failed or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The hash of the inputs of its last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// When it is tried again (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<String>,
    /// How often it has asked to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,
    /// Which of its Jobs in this run is spoken of, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<i64>,
    /// When its phase last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}
