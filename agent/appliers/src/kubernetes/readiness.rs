//! How is this object doing? The rules of kstatus (kubernetes-sigs/cli-utils, pkg/kstatus/status),
//! with one of our own: a custom resource that has a status subresource and no status is on its way,
//! because no controller has said anything; it is never healthy by silence.

use muster_core::Health;
use serde_json::Value;

use super::object::ObjectRef;

/// A verdict and its reason; the reason of a healthy one is empty.
pub(super) type Verdict = (Health, String);

/// Judges a live object. `has_status`: whether its kind has a status subresource.
pub(super) fn judge(object: &Value, has_status: bool) -> Verdict {
    if text(object, "/metadata/deletionTimestamp").is_some() {
        return progressing("it is being deleted");
    }
    let generation = number(object, "/metadata/generation");
    let observed = number(object, "/status/observedGeneration");
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return progressing("its controller has not seen the last change yet");
    }
    let identity = ObjectRef::of(object);
    match (identity.group.as_str(), identity.kind.as_str()) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound"),
        ("", "Namespace") => phase(object, "Active"),
        ("", "Service") => service(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd(object),
        _ => generic(object, has_status && !identity.is_builtin()),
    }
}

fn healthy() -> Verdict {
    (Health::Healthy, String::new())
}

fn progressing(why: impl Into<String>) -> Verdict {
    (Health::Progressing, why.into())
}

fn degraded(why: impl Into<String>) -> Verdict {
    (Health::Degraded, why.into())
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A count in the status; absent is none.
fn count(object: &Value, field: &str) -> i64 {
    number(object, &format!("/status/{field}")).unwrap_or_default()
}

/// The status of a condition, and what it says.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, String)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| text(condition, "/type") == Some(kind))?;
    let words = [text(found, "/reason"), text(found, "/message")];
    let words: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    Some((text(found, "/status")?, words.join(": ")))
}

fn generic(object: &Value, needs_status: bool) -> Verdict {
    if needs_status && object.get("status").is_none_or(is_empty) {
        return progressing("no controller has reported yet");
    }
    if let Some(("True", why)) = condition(object, "Stalled") {
        return degraded(why);
    }
    if let Some(("True", why)) = condition(object, "Reconciling") {
        return progressing(why);
    }
    match condition(object, "Ready") {
        Some(("True", _)) | None => healthy(),
        // A controller that keeps trying says False too; Stalled says that it gave up.
        Some((_, why)) => progressing(why),
    }
}

fn is_empty(status: &Value) -> bool {
    status.is_null() || status.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Enough of each count, in the order in which a rollout reaches them.
fn replicas(wanted: i64, counts: &[(&str, i64)]) -> Verdict {
    match counts.iter().find(|(_, found)| *found < wanted) {
        Some((word, found)) => progressing(format!("{found} of {wanted} replicas {word}")),
        None => healthy(),
    }
}

fn observed(object: &Value) -> bool {
    number(object, "/status/observedGeneration").is_some()
}

const UNOBSERVED: &str = "no controller has reported yet";

fn deployment(object: &Value) -> Verdict {
    if let Some(("False", why)) = condition(object, "Progressing")
        && why.starts_with("ProgressDeadlineExceeded")
    {
        return degraded(why);
    }
    if let Some(("True", why)) = condition(object, "ReplicaFailure") {
        return degraded(why);
    }
    if !observed(object) {
        return progressing(UNOBSERVED);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let old = count(object, "replicas") - count(object, "updatedReplicas");
    let verdict = replicas(
        wanted,
        &[
            ("updated", count(object, "updatedReplicas")),
            ("available", count(object, "availableReplicas")),
            ("ready", count(object, "readyReplicas")),
        ],
    );
    match verdict {
        (Health::Healthy, _) if old > 0 => progressing(format!("{old} old replicas remain")),
        verdict => verdict,
    }
}

fn stateful_set(object: &Value) -> Verdict {
    if text(object, "/spec/updateStrategy/type") == Some("OnDelete") {
        return healthy();
    }
    if !observed(object) {
        return progressing(UNOBSERVED);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let verdict = replicas(wanted, &[("ready", count(object, "readyReplicas"))]);
    if verdict.0 != Health::Healthy {
        return verdict;
    }
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    if partition > 0 {
        return replicas(wanted - partition, &[("updated", count(object, "updatedReplicas"))]);
    }
    if text(object, "/status/currentRevision") != text(object, "/status/updateRevision") {
        return progressing("its pods are being replaced one by one");
    }
    healthy()
}

fn daemon_set(object: &Value) -> Verdict {
    if !observed(object) {
        return progressing(UNOBSERVED);
    }
    let wanted = count(object, "desiredNumberScheduled");
    replicas(
        wanted,
        &[
            ("updated", count(object, "updatedNumberScheduled")),
            ("available", count(object, "numberAvailable")),
            ("ready", count(object, "numberReady")),
        ],
    )
}

fn replica_set(object: &Value) -> Verdict {
    if let Some(("True", why)) = condition(object, "ReplicaFailure") {
        return degraded(why);
    }
    if !observed(object) {
        return progressing(UNOBSERVED);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let counts = [("available", count(object, "availableReplicas"))];
    replicas(wanted, &counts)
}

/// As in kstatus, a Job that has started is current; how it ends is told when it has.
fn job(object: &Value) -> Verdict {
    if let Some(("True", why)) = condition(object, "Failed") {
        return degraded(why);
    }
    if matches!(condition(object, "Complete"), Some(("True", _))) {
        return healthy();
    }
    match text(object, "/status/startTime") {
        Some(_) => healthy(),
        None => progressing("it has not started"),
    }
}

fn pod(object: &Value) -> Verdict {
    const STUCK: [&str; 5] = [
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "CreateContainerConfigError",
    ];
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array);
    for status in statuses.into_iter().flatten() {
        let reason = text(status, "/state/waiting/reason").unwrap_or_default();
        if STUCK.contains(&reason) {
            let name = text(status, "/name").unwrap_or_default();
            return degraded(format!("container {name}: {reason}"));
        }
    }
    match text(object, "/status/phase") {
        Some("Succeeded") => healthy(),
        Some("Failed") => degraded(text(object, "/status/message").unwrap_or("it has failed")),
        Some("Running") if matches!(condition(object, "Ready"), Some(("True", _))) => healthy(),
        Some("Running") => progressing("it is not ready"),
        _ => match condition(object, "PodScheduled") {
            Some(("False", why)) => progressing(why),
            _ => progressing("it has not started"),
        },
    }
}

fn phase(object: &Value, wanted: &str) -> Verdict {
    match text(object, "/status/phase") {
        Some(found) if found == wanted => healthy(),
        Some("Lost") => degraded("its volume is lost"),
        Some(found) => progressing(format!("it is {found}, not {wanted}")),
        None => progressing(format!("it is not {wanted} yet")),
    }
}

fn service(object: &Value) -> Verdict {
    if text(object, "/spec/type") != Some("LoadBalancer") {
        return healthy();
    }
    let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    if ingress.is_some_and(|all| !all.is_empty()) {
        healthy()
    } else {
        progressing("it has no load balancer address yet")
    }
}

/// Whether a CustomResourceDefinition serves its kinds.
pub(super) fn crd(object: &Value) -> Verdict {
    if let Some(("False", why)) = condition(object, "NamesAccepted") {
        return degraded(why);
    }
    match condition(object, "Established") {
        Some(("True", _)) => healthy(),
        _ => progressing("its kinds are not served yet"),
    }
}

#[cfg(test)]
mod tests;
