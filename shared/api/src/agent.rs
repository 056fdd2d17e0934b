//! `Agent`: one for each enrolled agent; its Destination has the same name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who the agent is.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleet.muster.dev",
    version = "v1alpha1",
    kind = "Agent",
    status = "AgentStatus",
    category = "muster",
    shortname = "magent",
    printcolumn = r#"{"name":"Connected","type":"string","jsonPath":".status.conditions[?(@.type==\"Connected\")].status"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Appliers","type":"string","jsonPath":".status.appliers"}"#,
    printcolumn = r#"{"name":"Host","type":"string","jsonPath":".status.hostname"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// The digest (SHA-256, hexadecimal) of its public key (SubjectPublicKeyInfo).
    pub public_key: String,
    /// Whether its certificate is refused and its session cut.
    #[serde(default)]
    pub revoked: bool,
}

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// `Connected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The appliers that its policy enables, comma-separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appliers: Option<String>,
    /// Its host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// When its certificate ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<String>,
}
