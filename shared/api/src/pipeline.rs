//! `Pipeline`: containers that run in order. Embedded in Promises, not served by the API.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{
        Container, EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements,
        SecurityContext, Toleration, Volume, VolumeMount,
    },
    rbac::v1::PolicyRule,
};
use serde::{Deserialize, Serialize};

/// A pipeline as its author wrote it. `muster-plan` reads it strictly: what does not come back when
/// it is written again is a field that nobody knows, wherever it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pipeline {
    /// `platform.kratix.io/v1alpha1`.
    pub api_version: String,
    /// `Pipeline`.
    pub kind: String,
    /// Its name, labels and annotations; the latter two go onto its pods.
    pub metadata: PipelineMetadata,
    /// What it runs.
    pub spec: PipelineSpec,
}

/// Name, labels and annotations of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineMetadata {
    /// Its name, unique within its workflow and action.
    pub name: String,
    /// Labels for its Jobs and pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for its pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Accepted and unused, as in Kratix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a pipeline runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// Run one after another.
    #[serde(default)]
    pub containers: Vec<PipelineContainer>,
    /// Volumes for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Secrets for pulling images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Options of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_options: Option<JobOptions>,
    /// Which nodes it may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which taints it tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// `OnFailure` (the default) or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// What it may do with the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbac: Option<Rbac>,
}

/// One container of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    #[serde(default)]
    pub image: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The command, instead of the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Environment from ConfigMaps and Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// Mounts of the pipeline's volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// When to pull the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Security options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Options of a pipeline's Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobOptions {
    /// How often a failed pod is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// How long its Job stays after its end, seconds; for ever unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// What a pipeline may do with the API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rbac {
    /// Run as this ServiceAccount instead of a generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Rules beyond the generated ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// A rule, and where it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// A namespace, `*` for all, or absent for the pipeline's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_namespace: Option<String>,
    /// The rule.
    #[serde(flatten)]
    pub rule: PolicyRule,
}

impl PipelineContainer {
    /// As a container of a pod.
    pub fn to_container(&self) -> Container {
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        Container {
            name: self.name.clone(),
            image: Some(self.image.clone()),
            args: some(&self.args),
            command: some(&self.command),
            env: (!self.env.is_empty()).then(|| self.env.clone()),
            env_from: (!self.env_from.is_empty()).then(|| self.env_from.clone()),
            volume_mounts: (!self.volume_mounts.is_empty()).then(|| self.volume_mounts.clone()),
            image_pull_policy: self.image_pull_policy.clone(),
            security_context: self.security_context.clone(),
            resources: self.resources.clone(),
            ..Container::default()
        }
    }
}
