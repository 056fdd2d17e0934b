//! Tables as kubectl shows them.

use serde_json::json;

use super::*;

fn cells(columns: &[Column], object: &Value) -> Vec<Value> {
    super::cells(columns, object, "2026-01-01T00:10:00Z".parse().unwrap())
}

/// Cells that are shown without `-o wide`.
fn narrow(group: &str, kind: &str, object: &Value) -> Vec<Value> {
    let columns: Vec<Column> =
        builtin_columns(group, kind).into_iter().filter(|c| c.priority == 0).collect();
    cells(&columns, object)
}

#[test]
fn crd_columns_are_typed() {
    let columns = columns_from_crd(&json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Obj", "type": "string", "jsonPath": ".spec.o", "priority": 1, "description": "an object"},
        {"name": "Bad", "type": "boolean", "jsonPath": ".spec.size"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]));
    let object = json!({"metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"size": 3, "o": {"a": [1]}}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        cells(&columns, &object),
        [json!("w"), json!(3), json!("True"), json!("{\"a\":[1]}"), json!(null), json!("10m")]
    );
    let empty = json!({"metadata": {"name": "w"}});
    assert_eq!(
        cells(&columns, &empty),
        [json!("w"), json!(null), json!(null), json!(null), json!(null), json!(null)]
    );
    let definitions = definitions(&columns);
    assert_eq!(definitions[0]["format"], "name");
    assert_eq!(
        definitions[1]["description"],
        "Custom resource definition column (in JSONPath format): .spec.size"
    );
    assert_eq!(definitions[3]["priority"], 1);
    let names: Vec<String> = columns_from_crd(&Value::Null).into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["Name", "Age"]);
}

#[test]
fn pods_say_how_they_are() {
    let pod = |status: Value| {
        json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:09:57Z"},
        "spec": {"initContainers": [{}, {}], "containers": [{}, {}]}, "status": status})
    };
    let cases = [
        (json!({"phase": "Pending"}), "0/2", "Pending"),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0}}}, {"state": {"running": {}}}]}),
            "0/2",
            "Init:1/2",
        ),
        (
            json!({"phase": "Failed", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "0/2",
            "Init:Error",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}, {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "1/2",
            "Running",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "0/2",
            "Completed",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImageNotRunnable"}}}]}),
            "0/2",
            "ImageNotRunnable",
        ),
    ];
    for (status, ready, word) in cases {
        assert_eq!(
            narrow("", "Pod", &pod(status)),
            [json!("p"), json!(ready), json!(word), json!("0"), json!("3s")]
        );
    }
}

#[test]
fn built_in_kinds_have_their_columns() {
    let created = json!({"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let cases = [
        ("", "Namespace", json!({"status": {"phase": "Active"}}), json!(["n", "Active", "10m"])),
        (
            "",
            "ConfigMap",
            json!({"data": {"a": "b"}, "binaryData": {"c": "d"}}),
            json!(["n", 2, "10m"]),
        ),
        (
            "",
            "Secret",
            json!({"type": "Opaque", "data": {"a": "b"}}),
            json!(["n", "Opaque", 1, "10m"]),
        ),
        ("", "ServiceAccount", json!({}), json!(["n", 0, "10m"])),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"spec": {"holderIdentity": "h"}}),
            json!(["n", "h", "10m"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRole",
            json!({}),
            json!(["n", "2026-01-01T00:00:00Z"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}}),
            json!(["n", "Role/r", "10m"]),
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            json!({}),
            json!(["n", "2026-01-01T00:00:00Z"]),
        ),
        (
            "batch",
            "Job",
            json!({"spec": {"completions": 1}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
            json!(["n", "Complete", "1/1", "5s", "10m"]),
        ),
        (
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "* * * * *"}}),
            json!(["n", "* * * * *", "<none>", "False", 0, "<none>", "10m"]),
        ),
        (
            "",
            "Service",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}),
            json!(["n", "ClusterIP", "10.0.0.1", "<none>", "80/TCP", "10m"]),
        ),
        (
            "",
            "Node",
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
            json!(["n", "Ready", "<none>", "10m", "v1"]),
        ),
        (
            "",
            "Event",
            json!({"type": "Normal", "reason": "R", "message": "m\n", "lastTimestamp": "2026-01-01T00:09:00Z", "involvedObject": {"kind": "Pod", "name": "p"}}),
            json!(["60s", "Normal", "R", "pod/p", "m"]),
        ),
        (
            "events.k8s.io",
            "Event",
            json!({"type": "Normal", "reason": "R", "note": "m", "eventTime": "2026-01-01T00:09:00Z", "regarding": {"kind": "Pod", "name": "p"}}),
            json!(["60s", "Normal", "R", "pod/p", "m"]),
        ),
    ];
    for (group, kind, mut object, expected) in cases {
        object["metadata"] = created.clone();
        assert_eq!(json!(narrow(group, kind, &object)), expected, "{kind}");
    }
}

#[test]
fn columns_that_cannot_be_printed_are_refused() {
    let columns = json!([
        {"name": "A", "type": "string", "jsonPath": ".a"},
        {"type": "text", "jsonPath": "a["},
        {"name": "B"}]);
    let errors: Vec<String> =
        check_columns(&columns, "columns").iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "columns[1].name: Required value",
            "columns[1].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "columns[1].JSONPath: Invalid value: \"a[\": must be a simple json path starting with .",
            "columns[2].type: Required value: must be one of boolean,date,integer,number,string",
            "columns[2].JSONPath: Required value",
        ]
    );
}

#[test]
fn cells_are_the_same_when_only_what_they_look_at_is_read() {
    let columns = columns_from_crd(&json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Spec", "type": "string", "jsonPath": ".spec"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Below", "type": "string", "jsonPath": ".status.phase.text"},
        {"name": "Last", "type": "string", "jsonPath": ".data.list[-1].name"}]));
    for object in [
        json!({
            "metadata": {"name": "w", "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            "spec": {"size": 3, "other": [1, {"a": null}]},
            "status": {"phase": "ok", "conditions": [{"type": "Ready", "status": "True"}]},
            "data": {"list": [{"name": "a"}, {"name": "b\n\"c\""}], "unused": 1.5},
        }),
        json!({"metadata": {"name": "w"}, "spec": [1], "status": 3, "data": {"list": "x"}}),
        json!({}),
    ] {
        let part = Wanted::by(&columns).read(object.to_string().as_bytes());
        assert_eq!(cells(&columns, &part), cells(&columns, &object), "{object}");
        assert!(part["metadata"].get("managedFields").is_none());
    }
}

#[test]
fn a_column_that_may_look_anywhere_is_shown_everything() {
    for path in ["..name", ".*"] {
        let columns = columns_from_crd(&json!([{"name": "X", "type": "string", "jsonPath": path}]));
        assert!(matches!(Wanted::by(&columns), Wanted::Everything), "{path}");
    }
}
