//! What the owner of this host allows the agent to touch: a local file that the hub cannot change.
//!
//! ```yaml
//! appliers:
//!   kubernetes: { kubeconfig: /etc/muster/kubeconfig, namespaces: [shop, shop-db] }
//!   terraform: { program: /usr/bin/tofu }
//!   shell: {}
//! ```
//!
//! What is not listed does not run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// The names of all appliers.
pub const APPLIERS: [&str; 3] = ["kubernetes", "terraform", "shell"];

/// The policy file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The appliers that run.
    #[serde(default)]
    pub appliers: Enabled,
}

/// Which appliers run, and what each may touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enabled {
    /// Applies objects to a Kubernetes API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesPolicy>,
    /// Runs Terraform or OpenTofu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terraform: Option<TerraformPolicy>,
    /// Runs `Script` documents, and Terraform's provisioners and `external` data sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<ShellPolicy>,
}

/// What the kubernetes applier may touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesPolicy {
    /// Which cluster and as whom; absent: `$KUBECONFIG`, `~/.kube/config` or the pod's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Which namespaces. A list also forbids cluster-scoped objects, except those Namespaces.
    #[serde(default)]
    pub namespaces: Namespaces,
}

/// Which namespaces may be touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Namespaces {
    /// Every namespace, and cluster-scoped objects: written `all`.
    #[default]
    #[serde(with = "all")]
    All,
    /// These.
    Only(BTreeSet<String>),
}

/// How Terraform is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerraformPolicy {
    /// The program; absent: `terraform`, else `tofu`, found on `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The CLI configuration file that it reads (mirrors, plugin directories); absent: an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli_config: Option<PathBuf>,
    /// Variables of the agent's environment that are passed on (providers' credentials).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub environment: BTreeSet<String>,
}

/// How scripts are run; nothing to set yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShellPolicy {}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not YAML, or a field that is not known.
    #[error("the policy file cannot be read: {0}")]
    Syntax(String),
    /// An applier of that name does not exist.
    #[error("there is no applier {0:?}: choose among kubernetes, terraform, shell")]
    UnknownApplier(String),
}

impl Policy {
    /// Reads a policy file's text.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))
    }

    /// A policy that enables these appliers with their defaults.
    pub fn enabling<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for name in names {
            match name {
                "kubernetes" => policy.appliers.kubernetes = Some(KubernetesPolicy::default()),
                "terraform" => policy.appliers.terraform = Some(TerraformPolicy::default()),
                "shell" => policy.appliers.shell = Some(ShellPolicy::default()),
                unknown => return Err(PolicyError::UnknownApplier(unknown.to_owned())),
            }
        }
        Ok(policy)
    }

    /// The policy as a file's text.
    pub fn to_yaml(&self) -> String {
        // JSON is YAML; one line for each applier keeps it readable without a YAML writer.
        let appliers = serde_json::to_value(&self.appliers).unwrap_or_default();
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_value(appliers).unwrap_or_default();
        let mut text =
            String::from("# What this host lets its agent run; the hub cannot change it.\n");
        if entries.is_empty() {
            return text + "appliers: {}\n";
        }
        text += "appliers:\n";
        for (name, applier) in entries {
            text += &format!("  {name}: {applier}\n");
        }
        text
    }

    /// The names of the appliers that it enables.
    pub fn appliers(&self) -> BTreeSet<String> {
        let Enabled { kubernetes, terraform, shell } = &self.appliers;
        let enabled = [kubernetes.is_some(), terraform.is_some(), shell.is_some()];
        let names = APPLIERS.into_iter().zip(enabled);
        names.filter(|(_, enabled)| *enabled).map(|(name, _)| name.to_owned()).collect()
    }
}

/// The text `all`.
mod all {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("all")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "all" => Ok(()),
            other => Err(D::Error::custom(format!("expected `all` or a list, not {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut policy = Policy::enabling(["shell", "kubernetes"]).unwrap();
        assert_eq!(Policy::parse(&policy.to_yaml()).unwrap(), policy);
        let only = Namespaces::Only(BTreeSet::from(["shop".to_owned()]));
        policy.appliers.kubernetes.as_mut().unwrap().namespaces = only;
        assert_eq!(Policy::parse(&policy.to_yaml()).unwrap(), policy);
        assert_eq!(Policy::parse(&Policy::default().to_yaml()).unwrap(), Policy::default());
        assert_eq!(policy.appliers(), ["kubernetes", "shell"].map(str::to_owned).into());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = Policy::parse("appliers: {docker: {}}").unwrap_err().to_string();
        assert!(error.contains("docker"), "{error}");
        assert!(Policy::parse("appliers: {kubernetes: {namespaces: most}}").is_err());
        assert!(Policy::enabling(["docker"]).is_err());
    }
}
