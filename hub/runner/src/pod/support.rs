//! Which parts of a Job and its template the runner does. Everything else is refused by name.

use k8s_openapi::api::{batch::v1::Job, core::v1::PodSpec};
use serde_json::Value;

use super::NODE_NAME;

const POD_FIELDS: [&str; 21] = [
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "containers",
    "dnsPolicy",
    "enableServiceLinks",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    // Checked by its labels.
    "nodeSelector",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    // One node, without taints: these say where a pod may go, never where it may not.
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
const POD_SECURITY_FIELDS: [&str; 7] = [
    // Volumes are writable for every user of the pod, so groups change nothing.
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    "supplementalGroups",
];
const CONTAINER_FIELDS: [&str; 14] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "ports",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
    "workingDir",
];
const SECURITY_FIELDS: [&str; 8] = [
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
];
// Of what containers write no part is mounted: one of them could have put a link there, out of the pod.
const MOUNT_FIELDS: [&str; 4] = ["mountPath", "name", "readOnly", "subPath"];
const VOLUME_FIELDS: [&str; 6] =
    ["configMap", "downwardAPI", "emptyDir", "name", "projected", "secret"];
const PROJECTIONS: [&str; 4] = ["configMap", "downwardAPI", "secret", "serviceAccountToken"];

/// The first thing in `job` that the runner does not do, as a sentence that names the field.
pub(crate) fn unsupported(job: &Job) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let refuse = |field: &str, why: &str| Some(format!("spec.{field}: {why}"));
    let one = |count: Option<i32>| count.is_none_or(|count| count == 1);
    if !one(spec.parallelism) || !one(spec.completions) {
        return refuse("completions", "the hub's runner runs one pod at a time for each Job");
    }
    if spec.completion_mode.as_deref().is_some_and(|mode| mode != "NonIndexed") {
        return refuse("completionMode", "the hub's runner does only NonIndexed");
    }
    let not_done = "the hub's runner does not do this; remove it, or run the hub in a cluster";
    if spec.pod_failure_policy.is_some() {
        return refuse("podFailurePolicy", not_done);
    }
    if spec.success_policy.is_some() {
        return refuse("successPolicy", not_done);
    }
    let pod = spec.template.spec.as_ref()?;
    if let Some((label, value)) = pod.node_selector.iter().flatten().find(|wanted| !is_own(wanted))
    {
        let own: Vec<_> =
            node_labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let why = format!(
            "the hub's one node has no label {label}={value}, only {}; remove it, or run the hub in a \
             cluster",
            own.join(", ")
        );
        return refuse("template.spec.nodeSelector", &why);
    }
    if pod.restart_policy.as_deref().is_some_and(|p| p != "OnFailure" && p != "Never") {
        return refuse("template.spec.restartPolicy", "use OnFailure or Never");
    }
    unsupported_pod(pod).map(|field| format!("spec.template.spec.{field}: {not_done}"))
}

/// What the one node is labelled with, as a kubelet labels its own.
fn node_labels() -> [(&'static str, &'static str); 3] {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    [
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", NODE_NAME),
        ("kubernetes.io/os", "linux"),
    ]
}

fn is_own((label, value): &(&String, &String)) -> bool {
    node_labels().contains(&(label.as_str(), value.as_str()))
}

fn unsupported_pod(spec: &PodSpec) -> Option<String> {
    let spec = serde_json::to_value(spec).ok()?;
    unknown(&spec, &POD_FIELDS, "")
        .or_else(|| unknown(&spec["securityContext"], &POD_SECURITY_FIELDS, "securityContext."))
        .or_else(|| each(&spec, "initContainers", unsupported_container))
        .or_else(|| each(&spec, "containers", unsupported_container))
        .or_else(|| each(&spec, "volumes", unsupported_volume))
        .or_else(|| ["initContainers", "containers"].into_iter().find_map(|list| part(&spec, list)))
}

/// The first mount of a part of a volume that containers write, or of none.
fn part(spec: &Value, list: &str) -> Option<String> {
    let written = |name: &Value| {
        let mut volumes = spec["volumes"].as_array().into_iter().flatten();
        volumes.find(|volume| volume["name"] == *name).is_none_or(|it| it.get("emptyDir").is_some())
    };
    each(spec, list, |container| {
        each(container, "volumeMounts", |mount| {
            let whole = mount["subPath"].as_str().unwrap_or_default().is_empty();
            (!whole && written(&mount["name"])).then(|| "subPath".to_owned())
        })
    })
}

fn unsupported_container(container: &Value) -> Option<String> {
    let security = &container["securityContext"];
    if security["privileged"] == true {
        return Some("securityContext.privileged".to_owned());
    }
    if security["capabilities"]["add"].as_array().is_some_and(|added| !added.is_empty()) {
        return Some("securityContext.capabilities.add".to_owned());
    }
    unknown(container, &CONTAINER_FIELDS, "")
        .or_else(|| unknown(security, &SECURITY_FIELDS, "securityContext."))
        .or_else(|| each(container, "volumeMounts", |mount| unknown(mount, &MOUNT_FIELDS, "")))
        .or_else(|| {
            each(container, "env", |variable| {
                let from = &variable["valueFrom"];
                unknown(from, &["configMapKeyRef", "fieldRef", "secretKeyRef"], "valueFrom.")
            })
        })
}

fn unsupported_volume(volume: &Value) -> Option<String> {
    unknown(volume, &VOLUME_FIELDS, "").or_else(|| {
        each(&volume["projected"], "sources", |source| unknown(source, &PROJECTIONS, ""))
            .map(|field| format!("projected.{field}"))
    })
}

/// The first field of `object` that is not listed; empty values mean the same as absent ones.
fn unknown(object: &Value, known: &[&str], prefix: &str) -> Option<String> {
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    };
    object
        .as_object()?
        .iter()
        .find(|(name, value)| !known.contains(&name.as_str()) && !says_nothing(value))
        .map(|(name, _)| format!("{prefix}{name}"))
}

fn each(parent: &Value, list: &str, check: impl Fn(&Value) -> Option<String>) -> Option<String> {
    parent[list]
        .as_array()?
        .iter()
        .enumerate()
        .find_map(|(index, item)| Some(format!("{list}[{index}].{}", check(item)?)))
}
