//! What a Job's next step is, and what its status says.

use serde_json::json;

use super::*;

const FIRST: Duration = Duration::from_secs(10);

fn job(patch: serde_json::Value) -> Job {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "render", "namespace": "default", "uid": "u"},
        "spec": {"backoffLimit": 2, "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "i"}]}}}});
    json_merge(&mut job, &patch);
    serde_json::from_value(job).unwrap()
}

fn json_merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
    match (into, patch) {
        (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                json_merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn step(job: &Job, failed: i32) -> Step {
    let tally = Tally { failed, ..Tally::default() };
    next_step(job, &tally, FIRST, Timestamp::UNIX_EPOCH)
}

#[test]
fn waits_twice_as_long_after_each_failure_and_then_gives_up() {
    let job = job(json!({}));
    assert_eq!(step(&job, 0), Step::RunPod { after: Duration::ZERO });
    assert_eq!(step(&job, 1), Step::RunPod { after: FIRST });
    assert_eq!(step(&job, 2), Step::RunPod { after: FIRST * 2 });
    assert!(matches!(step(&job, 3), Step::Fail { reason, .. } if reason == "BackoffLimitExceeded"));
    assert_eq!(backoff(99, FIRST), RESTART_BACKOFF_MAX);
}

#[test]
fn restarts_within_a_pod_are_tries_of_the_job() {
    let tally = Tally { failed: 1, restarts: 2, ..Tally::default() };
    let step = next_step(&job(json!({})), &tally, FIRST, Timestamp::UNIX_EPOCH);
    assert!(matches!(step, Step::Fail { reason, .. } if reason == "BackoffLimitExceeded"));
}

#[test]
fn an_image_that_cannot_be_run_is_not_tried_again() {
    let why = ("ImageNotRunnable".to_owned(), "image x".to_owned());
    let tally = Tally { failed: 1, last_failure: Some(why), hopeless: true, ..Tally::default() };
    let step = next_step(&job(json!({})), &tally, FIRST, Timestamp::UNIX_EPOCH);
    assert!(matches!(step, Step::Fail { reason, .. } if reason == "ImageNotRunnable"));
}

#[test]
fn leaves_alone_what_is_not_its_own_or_leaving() {
    let foreign = job(json!({"spec": {"managedBy": "kueue.x-k8s.io/multikueue"}}));
    assert_eq!(step(&foreign, 0), Step::LeaveAlone);
    let leaving = job(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(step(&leaving, 0), Step::LeaveAlone);
    assert_eq!(step(&job(json!({"spec": {"suspend": true}})), 0), Step::Suspended);
}

#[test]
fn fails_when_its_time_is_over() {
    let status = json!({"startTime": "1969-12-31T23:59:00Z"});
    let late = job(json!({"spec": {"activeDeadlineSeconds": 60}, "status": status}));
    assert!(matches!(step(&late, 0), Step::Fail { reason, .. } if reason == "DeadlineExceeded"));
    let status = json!({"startTime": "1969-12-31T23:59:00Z"});
    let early = job(json!({"spec": {"activeDeadlineSeconds": 61}, "status": status}));
    assert_eq!(step(&early, 0), Step::RunPod { after: Duration::ZERO });
}

#[test]
fn does_nothing_more_when_it_is_over() {
    for end in ["Complete", "Failed"] {
        let status = json!({"conditions": [{"type": end, "status": "True"}]});
        assert_eq!(step(&job(json!({"status": status})), 0), Step::Finished);
    }
    let not_yet = json!({"conditions": [{"type": "Complete", "status": "False"}]});
    assert_ne!(step(&job(json!({"status": not_yet})), 0), Step::Finished);
}

#[test]
fn refuses_by_name_what_it_does_not_do() {
    let container = |field: serde_json::Value| {
        let mut container = json!({"name": "main", "image": "i"});
        json_merge(&mut container, &field);
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let probe = json!({"livenessProbe": {"exec": {"command": ["true"]}}});
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]});
    for (patch, field) in [
        (json!({"spec": {"parallelism": 2}}), "spec.completions"),
        (json!({"spec": {"completionMode": "Indexed"}}), "spec.completionMode"),
        (json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}), "hostNetwork"),
        (json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}), "nodeSelector"),
        (
            json!({"spec": {"template": {"spec": {"volumes": [
                {"name": "v", "hostPath": {"path": "/"}}]}}}}),
            "volumes[0].hostPath",
        ),
        (container(probe), "containers[0].livenessProbe"),
        (container(mount), "containers[0].volumeMounts[0].subPath"),
        (
            container(json!({"securityContext": {"privileged": true}})),
            "containers[0].securityContext.privileged",
        ),
    ] {
        let Step::Fail { reason, message } = step(&job(patch), 0) else { panic!("{field}") };
        assert_eq!(reason, "Unsupported");
        assert!(message.contains(field), "{field}: {message}");
    }
    let here =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}}});
    assert_eq!(step(&job(here), 0), Step::RunPod { after: Duration::ZERO });
    let harmless = json!({"securityContext": {"privileged": false, "runAsNonRoot": true,
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}}});
    assert_eq!(step(&job(container(harmless)), 0), Step::RunPod { after: Duration::ZERO });
}

#[test]
fn ends_with_the_two_conditions_of_kubernetes_1_32() {
    let tally = Tally { succeeded: 1, ..Tally::default() };
    let status = complete(&job(json!({})), &tally, Timestamp::UNIX_EPOCH);
    let kinds: Vec<String> =
        status.conditions.unwrap().into_iter().map(|condition| condition.type_).collect();
    assert_eq!(kinds, ["SuccessCriteriaMet", "Complete"]);
    assert_eq!((status.succeeded, status.active, status.failed), (Some(1), Some(0), None));
}
