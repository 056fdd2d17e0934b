//! `PromiseRevision`: a version of a Promise, kept so that requests can stay on it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::promise::PromiseSpec;

/// One version of a Promise.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "PromiseRevision",
    status = "PromiseRevisionStatus",
    category = "kratix",
    printcolumn = r#"{"name":"Promise","type":"string","jsonPath":".spec.promiseRef.name"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version"}"#,
    printcolumn = r#"{"name":"Latest","type":"boolean","jsonPath":".status.latest"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct PromiseRevisionSpec {
    /// The Promise.
    pub promise_ref: PromiseRef,
    /// A whole copy of its spec.
    pub promise_spec: PromiseSpec,
    /// Its version label, or `not-set`.
    pub version: String,
}

/// A Promise by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromiseRef {
    /// Its name.
    pub name: String,
}

/// Where a revision stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromiseRevisionStatus {
    /// Whether it is the last one applied; left out of the others, as in Kratix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// See [`crate::conditions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
