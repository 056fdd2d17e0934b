//! What is said of each kind of object, in the cases that a person asks about.

use muster_api::{DestinationSpec, WorkPlacementStatus, WorkSpec, WorkloadGroup};
use serde_json::json;

use super::*;

/// An object of a kind whose conditions are `TYPE=STATUS REASON: MESSAGE`.
fn object(kind: &str, name: &str, conditions: &[&str]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|text| {
            let (head, message) = text.split_once(": ").unwrap();
            let (verdict, reason) = head.split_once(' ').unwrap();
            let (kind, status) = verdict.split_once('=').unwrap();
            json!({ "type": kind, "status": status, "reason": reason, "message": message })
        })
        .collect();
    json!({
        "kind": kind,
        "metadata": { "name": name, "namespace": "default" },
        "status": { "conditions": conditions },
    })
}

fn destination(name: &str, platform: &str) -> Destination {
    let mut made = Destination::new(name, DestinationSpec::default());
    made.metadata.labels = Some([("platform".to_owned(), platform.to_owned())].into());
    made
}

fn work() -> Work {
    let selector = json!([{ "matchLabels": { "platform": "vm" }, "source": "promise" }]);
    let group = WorkloadGroup {
        id: "5058f".into(),
        directory: ".".into(),
        destination_selectors: serde_json::from_value(selector).unwrap(),
        ..Default::default()
    };
    let mut work = Work::new(
        "web-shop",
        WorkSpec {
            promise_name: "web".into(),
            resource_name: Some("shop".into()),
            workload_groups: vec![group],
            ..WorkSpec::default()
        },
    );
    work.metadata.namespace = Some("default".into());
    work.metadata.uid = Some("uid".into());
    work
}

fn placed(work: &Work, destinations: &[Destination], phase: &str) -> WorkPlacement {
    let mut plan = schedule(work, &sites(destinations), &|_| 0, &[]);
    let mut placement = plan.create.remove(0);
    let message = "apply exited with 1: port in use";
    let status = object("", "", &[&format!("Applied=False Failed: {message}")])["status"].clone();
    let mut status: WorkPlacementStatus = serde_json::from_value(json!({
        "phase": phase, "health": "Healthy", "conditions": status["conditions"].as_array().unwrap()
            .iter().map(|c| {
                let mut c = c.clone();
                c["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
                c
            }).collect::<Vec<_>>(),
    }))
    .unwrap();
    if phase == "Applied" {
        status.conditions.clear();
    }
    placement.status = Some(status);
    placement
}

fn told(
    object: &Value,
    works: &[Work],
    placements: &[WorkPlacement],
    destinations: &[Destination],
) -> String {
    explain(&Subject { object, works, placements, destinations }).join("\n")
}

fn has(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

#[test]
fn a_request_that_is_done_says_where_why_there_and_why_not_elsewhere() {
    let destinations = [destination("vm-1", "vm"), destination("k8s-1", "kubernetes")];
    let work = work();
    let placements = [placed(&work, &destinations, "Applied")];
    let object = object("Web", "shop", &["Reconciled=True Reconciled: Reconciled"]);
    let told = told(&object, &[work], &placements, &destinations);
    has(
        &told,
        &[
            "Web default/shop is done.",
            "web-shop is on vm-1",
            "applied, Healthy",
            "Why here: matches platform=vm; when it was placed, the only one to match platform=vm",
            "Not on k8s-1: ",
        ],
    );
}

#[test]
fn a_failed_placement_says_what_its_host_says_and_what_to_do() {
    let destinations = [destination("vm-1", "vm")];
    let work = work();
    let placements = [placed(&work, &destinations, "Failed")];
    let object = object("Web", "shop", &["Reconciled=False Failed: vm-1: port in use"]);
    let told = told(&object, &[work], &placements, &destinations);
    has(
        &told,
        &[
            "Web default/shop failed: vm-1: port in use (Failed).",
            "Failed: apply exited with 1: port in use",
            "To do: correct what vm-1 says",
            "kubectl describe workplacement",
        ],
    );
}

#[test]
fn an_agent_that_is_not_connected_is_named_with_its_cure() {
    let destinations = [destination("vm-1", "vm")];
    let work = work();
    let placements = [placed(&work, &destinations, "Applied")];
    let object = object("Web", "shop", &["Reconciled=True Reconciled: Reconciled"]);
    has(
        &told(&object, &[work], &placements, &destinations),
        &[
            "(not connected yet)",
            "To do: start the agent on vm-1 (muster-agent run)",
            "muster agents remove vm-1 --abandon",
        ],
    );
}

#[test]
fn a_request_without_a_destination_says_which_labels_are_missing() {
    let destinations = [destination("k8s-1", "kubernetes")];
    let waits = "Reconciled=Unknown NoMatchingDestination: no destination matches platform=vm";
    let object = object("Web", "shop", &[waits]);
    has(
        &told(&object, &[work()], &[], &destinations),
        &[
            "Web default/shop waits: no destination matches platform=vm",
            "web-shop: no destination matches platform=vm: add a destination",
            "Not on k8s-1: ",
        ],
    );
}

#[test]
fn what_a_request_is_made_of_is_told_with_what_each_waits_for() {
    let mut object = object("App", "shop", &["Reconciled=Unknown ChildNotReady: waiting"]);
    let child = |name: &str, phase: &str, message: &str| {
        json!({
            "promise": "database", "apiVersion": "ex.io/v1", "kind": "Database",
            "resource": "databases", "namespace": "default", "name": name,
            "pipeline": "bring", "phase": phase, "message": message,
        })
    };
    object["status"]["children"] =
        json!([child("a", "Ready", ""), child("b", "Waiting", "pipeline main is running")]);
    has(
        &told(&object, &[], &[], &[]),
        &[
            "Database a: ready (put out by pipeline bring; more: muster explain database a",
            "Database b: waits: pipeline main is running (put out by pipeline bring",
        ],
    );
}

#[test]
fn pipelines_that_try_or_failed_say_why_and_where_the_log_is() {
    let trying = [
        "Reconciled=Unknown WorkflowPending: Pending",
        "ConfigureWorkflowCompleted=False PipelinesInProgress: in progress: try 1 failed: no disk",
    ];
    has(
        &told(&object("Web", "shop", &trying), &[], &[], &[]),
        &[
            "Web default/shop waits: in progress: try 1 failed: no disk.",
            "no pipeline has put files out yet",
        ],
    );
    let failed = [
        "Reconciled=False ConfigureWorkflowFailed: A Configure Pipeline has failed: render: no disk",
        "ConfigureWorkflowCompleted=False ConfigureWorkflowFailed: A Configure Pipeline has failed",
    ];
    has(
        &told(&object("Web", "shop", &failed), &[], &[], &[]),
        &[
            "Web default/shop failed: A Configure Pipeline has failed: render: no disk",
            "To do: read the pipeline's log: muster logs web shop",
        ],
    );
}

#[test]
fn objects_that_are_no_requests_are_explained_by_what_they_hold() {
    let destinations = [destination("vm-1", "vm")];
    let placements = [placed(&work(), &destinations, "Applied")];
    let ready = object("Destination", "vm-1", &["Ready=True Connected: its agent is connected"]);
    let about = told(&ready, &[], &placements, &destinations);
    has(&about, &["is ready.", "request default/shop of promise web, on vm-1: applied, Healthy"]);
    assert!(!about.contains("Nothing is placed"), "{about}");
    let agent = object("Agent", "vm-1", &["Connected=False SessionClosed: no session since noon"]);
    has(&told(&agent, &[], &[], &[]), &["is not connected: no session since noon."]);
    let promise = object(
        "Promise",
        "web",
        &[
            "Reconciled=True Reconciled: Reconciled",
            "ConfigureWorkflowCompleted=True PipelinesExecutedSuccessfully: Pipelines completed",
        ],
    );
    has(&told(&promise, &[], &[], &[]), &["is done.", "It has no dependencies"]);
}

#[test]
fn an_object_in_deletion_says_what_it_waits_for() {
    let mut object = object("Web", "shop", &["Reconciled=Unknown AgentOffline: vm-1 is offline"]);
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    has(&told(&object, &[], &[], &[]), &["Web default/shop is being deleted. vm-1 is offline"]);
}
