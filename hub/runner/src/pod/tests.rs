//! Pods as they are made from a Job's template.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::*;

fn pod() -> Pod {
    let job: Job = serde_json::from_value(json!({"metadata": {"name": "render", "uid": "ju",
        "namespace": "team"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Never", "initContainers": [{"name": "one", "image": "i"}],
        "containers": [{"name": "two", "image": "r/i:1"}]}}}}))
    .unwrap();
    build(&job, "abcde")
}

#[test]
fn is_made_as_the_job_controller_would() {
    let pod = pod();
    assert_eq!(pod.name_any(), "render-abcde");
    assert_eq!(pod.labels()["batch.kubernetes.io/job-name"], "render");
    assert_eq!(pod.labels()["a"], "b");
    let owner = &pod.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.controller), ("Job", Some(true)));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let policies: Vec<&str> =
        containers(&spec).filter_map(|c| c.image_pull_policy.as_deref()).collect();
    assert_eq!(policies, ["Always", "IfNotPresent"]);
    for container in containers(&spec) {
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert_eq!(mounts.last().unwrap().mount_path, SERVICE_ACCOUNT_DIR);
    }
    assert_eq!(spec.volumes.unwrap()[0].name, "kube-api-access-abcde");
}

#[test]
fn fields_of_the_downward_api() {
    let pod = pod();
    assert_eq!(field(&pod, "metadata.namespace").as_deref(), Some("team"));
    assert_eq!(field(&pod, "metadata.labels['a']").as_deref(), Some("b"));
    assert_eq!(field(&pod, "metadata.labels['none']").as_deref(), Some(""));
    assert_eq!(field(&pod, "spec.unheardOf"), None);
}

#[test]
fn variables_refer_to_variables() {
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    for (text, expanded) in [
        ("$(A)", "1"),
        ("a$(A)b$(B)", "a1b$(B)"),
        ("$$(A)", "$(A)"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
    ] {
        assert_eq!(env::expand(text, &env), expanded, "{text}");
    }
}

#[test]
fn quantities() {
    for (text, scale, value) in [
        ("200m", 1000.0, Some(200)),
        ("2", 1000.0, Some(2000)),
        ("0.5", 1000.0, Some(500)),
        ("256Mi", 1.0, Some(268_435_456)),
        ("1e3", 1.0, Some(1000)),
        ("1G", 1.0, Some(1_000_000_000)),
        ("lots", 1.0, None),
        ("-1", 1.0, None),
    ] {
        assert_eq!(launch::quantity(&Quantity(text.to_owned()), scale), value, "{text}");
    }
}
