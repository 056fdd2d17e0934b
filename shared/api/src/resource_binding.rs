//! `ResourceBinding`: which version of its Promise a request follows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::promise_revision::PromiseRef;

/// The version that a request follows.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "ResourceBinding",
    namespaced,
    status = "ResourceBindingStatus",
    category = "kratix",
    selectable = ".spec.version",
    printcolumn = r#"{"name":"Resource","type":"string","jsonPath":".spec.resourceRef.name"}"#,
    printcolumn = r#"{"name":"Promise","type":"string","jsonPath":".spec.promiseRef.name"}"#,
    printcolumn = r#"{"name":"Desired","type":"string","jsonPath":".spec.version"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","jsonPath":".status.lastAppliedVersion"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct ResourceBindingSpec {
    /// `latest`, or an exact version.
    pub version: String,
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// The request.
    pub resource_ref: ResourceRef,
}

/// A request by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The generation that was seen.
    #[serde(default)]
    pub generation: i64,
}

/// Where a binding stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceBindingStatus {
    /// `UpgradeSucceeded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The version that was last applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_version: Option<String>,
    /// The version that failed; not tried again until asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_version: Option<String>,
}
