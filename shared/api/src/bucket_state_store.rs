//! `BucketStateStore`: a bucket of an S3 server that Flux reads.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state_store::{SecretRef, StateStoreStatus};

/// Which bucket, and how it is entered.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "BucketStateStore",
    status = "StateStoreStatus",
    category = "kratix",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.bucketName"}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".spec.endpoint"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct BucketStateStoreSpec {
    /// The bucket; it must exist.
    pub bucket_name: String,
    /// The server: a host, with a port if it is not the usual one, without a scheme.
    pub endpoint: String,
    /// A prefix, below which all is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Plain http instead of https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,
    /// Whether Amazon's hosts are asked by their names for both IPv4 and IPv6.
    #[serde(default)]
    pub use_dual_stack: bool,
    /// The Secret with `accessKeyID` and `secretAccessKey`; `caFile` in it adds authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// How the hub proves who it is.
    #[serde(default)]
    pub auth_method: BucketAuthMethod,
}

/// How the hub proves who it is to an S3 server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BucketAuthMethod {
    /// A key of the Secret.
    #[default]
    #[serde(rename = "accessKey")]
    AccessKey,
    /// The credentials of the machine or pod that the hub runs on.
    #[serde(rename = "IAM")]
    Iam,
}
