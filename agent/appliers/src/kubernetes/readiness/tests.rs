//! Objects and how they do.

use super::*;
use serde_json::json;

fn verdict(kind: &str, rest: Value) -> Verdict {
    let (api_version, kind) = kind.rsplit_once('/').unwrap();
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
    for (key, value) in rest.as_object().unwrap() {
        object[key] = value.clone();
    }
    judge(&object, true)
}

#[test]
fn a_custom_resource_is_never_healthy_by_silence() {
    let silent = verdict("helm.toolkit.fluxcd.io/v2/HelmRelease", json!({}));
    assert_eq!(silent, (Health::Progressing, "no controller has reported yet".to_owned()));
    let object = json!({"apiVersion": "a.example.com/v1", "kind": "Note", "metadata": {}});
    assert_eq!(
        judge(&object, false).0,
        Health::Healthy,
        "a kind without status has nothing to say"
    );
    assert_eq!(verdict("networking.k8s.io/v1/Ingress", json!({})).0, Health::Healthy);
}

#[test]
fn conditions_of_any_kind_are_understood() {
    let conditions = |kind: &str, status: &str| {
        let condition = json!([{"type": kind, "status": status, "reason": "Why", "message": "m"}]);
        verdict("a.example.com/v1/Thing", json!({"status": {"conditions": condition}}))
    };
    assert_eq!(conditions("Ready", "True").0, Health::Healthy);
    assert_eq!(conditions("Ready", "False"), (Health::Progressing, "Why: m".to_owned()));
    assert_eq!(conditions("Stalled", "True").0, Health::Degraded);
    assert_eq!(conditions("Reconciling", "True").0, Health::Progressing);
    let behind = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
    assert_eq!(verdict("a.example.com/v1/Thing", behind).0, Health::Progressing);
}

#[test]
fn a_deployment_is_healthy_when_all_its_replicas_are_new_and_available() {
    let status = |status: Value| {
        verdict("apps/v1/Deployment", json!({"spec": {"replicas": 2}, "status": status}))
    };
    assert_eq!(status(json!({})).0, Health::Progressing);
    let (health, why) =
        status(json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "availableReplicas": 1, "readyReplicas": 1}));
    assert_eq!((health, why.as_str()), (Health::Progressing, "1 of 2 replicas available"));
    let all = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "availableReplicas": 2, "readyReplicas": 2});
    assert_eq!(status(all).0, Health::Healthy);
    let stuck = json!({"observedGeneration": 1, "conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]});
    assert_eq!(status(stuck).0, Health::Degraded);
}

#[test]
fn builtin_kinds_follow_their_own_rules() {
    let cases = [
        ("v1/PersistentVolumeClaim", json!({"status": {"phase": "Pending"}}), Health::Progressing),
        ("v1/PersistentVolumeClaim", json!({"status": {"phase": "Bound"}}), Health::Healthy),
        ("v1/Service", json!({"spec": {"type": "ClusterIP"}}), Health::Healthy),
        ("v1/Service", json!({"spec": {"type": "LoadBalancer"}}), Health::Progressing),
        ("v1/ConfigMap", json!({"data": {}}), Health::Healthy),
        ("batch/v1/Job", json!({}), Health::Progressing),
        ("batch/v1/Job", json!({"status": {"startTime": "t"}}), Health::Healthy),
        (
            "batch/v1/Job",
            json!({"status": {"startTime": "t", "conditions": [{"type": "Failed", "status": "True"}]}}),
            Health::Degraded,
        ),
        (
            "v1/Pod",
            json!({"status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            Health::Degraded,
        ),
        (
            "apps/v1/DaemonSet",
            json!({"status": {"observedGeneration": 1, "desiredNumberScheduled": 1,
                "updatedNumberScheduled": 1, "numberAvailable": 0, "numberReady": 1}}),
            Health::Progressing,
        ),
        (
            "apps/v1/StatefulSet",
            json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 1, "readyReplicas": 1,
                "currentRevision": "a", "updateRevision": "b"}}),
            Health::Progressing,
        ),
        (
            "apiextensions.k8s.io/v1/CustomResourceDefinition",
            json!({"status": {"conditions": [{"type": "Established", "status": "True"}]}}),
            Health::Healthy,
        ),
    ];
    for (kind, rest, wanted) in cases {
        let (health, why) = verdict(kind, rest.clone());
        assert_eq!(health, wanted, "{kind} {rest}: {why}");
    }
    let deleted = json!({"metadata": {"name": "x", "deletionTimestamp": "t"}});
    assert_eq!(verdict("v1/ConfigMap", deleted).0, Health::Progressing);
}
