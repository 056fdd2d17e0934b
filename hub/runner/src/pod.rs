//! From a Job's template to a Pod as a controller and an API server would make it.

pub(crate) mod env;
pub(crate) mod launch;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod support;
pub(crate) mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, Pod, PodSpec, Volume, VolumeMount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt;
use serde_json::json;

/// The name of the one node: `kubectl get pods -o wide` shows where a pod runs.
pub(crate) const NODE_NAME: &str = "muster-hub";
/// Where Kubernetes puts a ServiceAccount's token.
pub(crate) const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Kubernetes' `TerminationGracePeriodSeconds` where a pod names none.
pub(crate) const GRACE_SECONDS: i64 = 30;
/// What Kubernetes asks for a token that it mounts, seconds.
const TOKEN_SECONDS: i64 = 3607;
/// A generated name keeps this much of its base (Kubernetes: 63 less the suffix of five).
const NAME_BASE_LEN_MAX: usize = 57;

/// The Pod of a Job. `suffix` makes its name unique.
pub(crate) fn build(job: &Job, suffix: &str) -> Pod {
    let template = &job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.clone().unwrap_or_default();
    let (job_name, job_uid) = (job.name_any(), job.uid().unwrap_or_default());
    let mut labels = meta.labels.unwrap_or_default();
    // The Job's admission sets these in its template; a server that does not loses nothing.
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &job_uid),
        ("batch.kubernetes.io/job-name", &job_name),
        ("controller-uid", &job_uid),
        ("job-name", &job_name),
    ] {
        labels.insert(key.to_owned(), value.clone());
    }
    let base: String = job_name.chars().take(NAME_BASE_LEN_MAX).collect();
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{base}-{suffix}")),
            generate_name: Some(format!("{base}-")),
            namespace: job.namespace(),
            labels: Some(labels),
            annotations: meta.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name: job_name,
                uid: job_uid,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(complete(template.spec.clone().unwrap_or_default(), suffix)),
        status: None,
    }
}

/// Fills in what API server, admission and scheduler would.
fn complete(mut spec: PodSpec, suffix: &str) -> PodSpec {
    let set = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    let account = spec.service_account_name.get_or_insert_with(|| "default".to_owned()).clone();
    spec.service_account = Some(account);
    spec.node_name = Some(NODE_NAME.to_owned());
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        set(&mut container.termination_message_path, "/dev/termination-log");
        set(&mut container.termination_message_policy, "File");
        let image = container.image.as_deref().unwrap_or_default();
        let latest = image.ends_with(":latest") || !names_a_version(image);
        let policy = if latest { "Always" } else { "IfNotPresent" };
        set(&mut container.image_pull_policy, policy);
    }
    if spec.automount_service_account_token != Some(false) {
        mount_token(&mut spec, suffix);
    }
    spec
}

fn names_a_version(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|name| name.contains(':'))
}

/// As the ServiceAccount admission plugin does: one projected volume, last in every container.
fn mount_token(spec: &mut PodSpec, suffix: &str) {
    let name = format!("kube-api-access-{suffix}");
    let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let mut used = false;
    for container in all {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|mount| mount.mount_path != SERVICE_ACCOUNT_DIR) {
            used = true;
            mounts.push(VolumeMount {
                name: name.clone(),
                mount_path: SERVICE_ACCOUNT_DIR.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
    if let (true, Ok(volume)) = (used, serde_json::from_value::<Volume>(volume)) {
        spec.volumes.get_or_insert_default().push(volume);
    }
}

/// All containers of a pod in the order in which they are shown, init containers first.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// What a field reference of the downward API stands for.
pub(crate) fn field(pod: &Pod, path: &str) -> Option<String> {
    let of = |map: Option<&BTreeMap<String, String>>, key: &str| {
        Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let line = |(key, value): (&String, &String)| format!("{key}={value:?}\n");
        map.into_iter().flatten().map(line).collect::<String>()
    };
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "metadata.labels" => Some(lines(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Some(lines(pod.metadata.annotations.as_ref())),
        "spec.nodeName" => Some(NODE_NAME.to_owned()),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone(),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => {
            Some("127.0.0.1".to_owned())
        }
        _ => match (quoted("metadata.labels['"), quoted("metadata.annotations['")) {
            (Some(key), _) => of(pod.metadata.labels.as_ref(), key),
            (_, Some(key)) => of(pod.metadata.annotations.as_ref(), key),
            (None, None) => None,
        },
    }
}

#[cfg(test)]
mod tests;
