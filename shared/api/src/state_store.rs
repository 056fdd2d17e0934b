//! What GitStateStore and BucketStateStore share: where their secret is, and how they stand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The namespace of a Secret whose reference names none, as in Kratix.
pub const SECRET_NAMESPACE: &str = "default";

/// The Secret that a store is opened with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace; `default` unless said.
    #[serde(default = "secret_namespace")]
    pub namespace: String,
}

/// Where a store stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateStoreStatus {
    /// `Ready` or `NotReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `Ready`: whether the hub can write to it, looked at again and again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

fn secret_namespace() -> String {
    SECRET_NAMESPACE.to_owned()
}
