//! `Content`: the bytes of a group of files, once, named by their digest and never changed.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most compressed bytes in one Content; more is split, so that an object with its base64 text stays
/// well below the 1.5 MiB that etcd takes.
pub const PART_BYTES_MAX: usize = 768 << 10;

/// Compressed bytes of a file set (`muster_core::FileSet`), or of a part of it.
///
/// The first part's name is the digest; part `i` (from 1) is `<digest>.<i>`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleet.muster.dev",
    version = "v1alpha1",
    kind = "Content",
    plural = "contents",
    category = "muster",
    printcolumn = r#"{"name":"Size","type":"integer","jsonPath":".spec.size"}"#,
    printcolumn = r#"{"name":"Files","type":"integer","jsonPath":".spec.files"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "content is immutable: its name is its digest"}
]))]
pub struct ContentSpec {
    /// Size of the files in bytes, uncompressed, of all parts.
    pub size: i64,
    /// How many files all parts hold.
    pub files: i64,
    /// How many parts there are.
    pub parts: i64,
    /// Base64 of the zstd-compressed canonical bytes, or of this part of them.
    pub data: String,
}
