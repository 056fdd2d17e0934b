//! `PromiseRelease`: a Promise that is fetched from an address.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which Promise is to be installed, and from where.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "PromiseRelease",
    status = "PromiseReleaseStatus",
    category = "kratix",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.status"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct PromiseReleaseSpec {
    /// The version that the document must have; empty: whichever it has, which is then filled in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where the document is.
    #[serde(default)]
    pub source_ref: SourceRef,
}

/// Where a Promise's document is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// How it is fetched.
    #[serde(default, rename = "type")]
    #[schemars(schema_with = "source_type")]
    pub type_: SourceType,
    /// Its address: `https://…` or `http://…`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// A Secret whose key `authorizationHeader` is sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// How a document is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// By HTTP, over TLS or not.
    #[default]
    Http,
}

/// A Secret by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace; `default` where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromiseReleaseStatus {
    /// `Installed` or `Error installing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `Installed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn source_type(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["http"], "default": "http" })
}
