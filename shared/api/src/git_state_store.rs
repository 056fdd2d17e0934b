//! `GitStateStore`: a branch of a Git repository that Flux or Argo CD reads.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state_store::{SecretRef, StateStoreStatus};

/// Which repository, and how it is entered.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "GitStateStore",
    status = "StateStoreStatus",
    category = "kratix",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url"}"#,
    printcolumn = r#"{"name":"Branch","type":"string","jsonPath":".spec.branch"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct GitStateStoreSpec {
    /// `https://…`, or for authMethod ssh `user@host:path` or `ssh://…`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// A directory of the repository, below which all is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The branch.
    #[serde(default = "branch")]
    pub branch: String,
    /// The Secret: `username` and `password`; or `sshPrivateKey` and `knownHosts`; or `appID`,
    /// `installationID` and `privateKey`. With each: `caFile`, more authorities to trust, and
    /// `signingKey`, an SSH key that signs commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// How the hub proves who it is.
    #[serde(default)]
    pub auth_method: GitAuthMethod,
    /// Whose name commits carry.
    #[serde(default)]
    pub git_author: GitAuthor,
}

/// How the hub proves who it is to a Git server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GitAuthMethod {
    /// A user and a password or token, over https.
    #[default]
    #[serde(rename = "basicAuth")]
    BasicAuth,
    /// A key, to a host that is known.
    #[serde(rename = "ssh")]
    Ssh,
    /// An installation of a GitHub App, over https.
    #[serde(rename = "githubApp")]
    GithubApp,
}

/// Whose name commits carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GitAuthor {
    /// The name.
    #[serde(default = "author")]
    pub name: String,
    /// The mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl Default for GitAuthor {
    fn default() -> Self {
        Self { name: author(), email: None }
    }
}

fn branch() -> String {
    "main".to_owned()
}

fn author() -> String {
    "kratix".to_owned()
}
