//! HealthRecords as people see them: listed, refused, told on the request.

use muster_e2e::{Executor, Hub, scratch};
use serde_json::{Value, json};

use super::{GOOD, good, with};

const CREATE: [&str; 4] = ["create", "--validate=false", "-f", "-"];

const RECORD: &str = "\
apiVersion: platform.kratix.io/v1alpha1
kind: HealthRecord
metadata: {name: probe}
data:
  promiseRef: {name: good}
  resourceRef: {name: a, namespace: default, generation: 1}
  state: degraded
  lastRun: 1700000000
  details: {slow: 3}
";

#[test]
fn a_record_is_listed_refused_and_told_on_its_request() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(GOOD);
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&good("a", "default", "x"));
    kubectl.wait("good/a", "ConfigureWorkflowCompleted");

    for (from, to, words) in [
        ("state: degraded", "state: fine", "data.state: Unsupported value: \"fine\""),
        ("{name: good}", "{}", "data.promiseRef.name: Required value"),
        ("  promiseRef: {name: good}\n", "", "data.promiseRef: Required value"),
        ("name: a, ", "", "data.resourceRef.name: Required value"),
    ] {
        let told = kubectl.refused(&CREATE, &with(RECORD, from, to));
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    kubectl.apply(RECORD);
    kubectl.apply(&with(&with(RECORD, "probe", "idle"), "  state: degraded\n", ""));
    kubectl.prints(&["healthrecords"], &["NAME STATUS AGE", "idle unknown *", "probe degraded *"]);
    let state = ["get", "good/a", "-o", "jsonpath={.status.healthStatus.state}"];
    kubectl.until(&state, |state| state == "degraded");
    let status = ["get", "good/a", "-o", "jsonpath={.status.healthStatus}"];
    let two = kubectl.until(&status, |told| told.contains("idle"));
    let two: Value = serde_json::from_str(&two).unwrap();
    let source = |name: &str| json!({ "name": name, "namespace": "default" });
    assert_eq!(two["healthRecords"][0]["source"], source("probe"), "the worst comes first");
    assert_eq!(two["healthRecords"][0]["details"], json!({ "slow": 3 }));
    assert_eq!(two["healthRecords"][1]["source"], source("idle"));
    kubectl.until(&["describe", "good/a"], |told| {
        told.lines().any(|line| {
            line.contains("Warning")
                && line.contains("HealthRecord")
                && line.ends_with("Health state is degraded")
        })
    });

    kubectl.ok(&["delete", "healthrecords", "--all", "--timeout=120s"]);
    kubectl.prints(&["healthrecords"], &[]);
    kubectl.until(&state, str::is_empty);
}
