//! Pods as a kubelet writes them, and what is told of them.

use serde_json::{Value, json};

use super::*;

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap()
}

fn ended(code: i32, reason: &str, message: &str, second: u8) -> Value {
    json!({ "terminated": {
        "exitCode": code, "reason": reason, "message": message,
        "finishedAt": format!("2026-01-01T00:00:{second:02}Z"),
    } })
}

fn of(name: &str, state: Value, restarts: i32) -> Value {
    json!({ "name": name, "state": state, "restartCount": restarts,
        "image": "", "imageID": "", "ready": false })
}

fn told(pods: &[Pod]) -> String {
    Trouble::of(pods).unwrap().so_far()
}

#[test]
fn a_pod_that_does_well_is_no_trouble() {
    let well = of("reader", ended(0, "Completed", "", 1), 0);
    let next = of("render", json!({ "waiting": { "reason": "PodInitializing" } }), 0);
    let pod = pod(json!({ "initContainerStatuses": [well, next] }));
    assert_eq!(Trouble::of(&[pod]), None);
}

#[test]
fn the_last_failure_of_all_pods_is_told_with_its_try() {
    let failed = |message, second| {
        pod(json!({ "phase": "Failed", "initContainerStatuses": [
            of("reader", ended(0, "Completed", "", 0), 0),
            of("render", ended(3, "Error", message, second), 0),
        ] }))
    };
    let trouble = Trouble::of(&[failed("no such region", 9), failed("no network", 5)]).unwrap();
    assert_eq!(trouble.so_far(), "try 2 failed: container render exited with 3: no such region");
    assert_eq!(
        trouble.in_the_end(),
        "tried 2 times: container render exited with 3: no such region"
    );
    let once = Trouble::of(&[failed("no such region", 9)]).unwrap();
    assert_eq!(once.in_the_end(), "container render exited with 3: no such region");
}

#[test]
fn restarts_in_one_pod_are_tries() {
    let mut again = of("render", json!({ "running": {} }), 1);
    again["lastState"] = ended(3, "Error", "first", 1);
    let running = pod(json!({ "initContainerStatuses": [again.clone()] }));
    assert_eq!(told(&[running]), "try 1 failed: container render exited with 3: first");
    again["lastState"] = ended(3, "Error", "second", 2);
    again["state"] = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
    let waiting = pod(json!({ "initContainerStatuses": [again] }));
    assert_eq!(told(&[waiting]), "try 2 failed: container render exited with 3: second");
}

#[test]
fn only_the_last_words_are_told() {
    let text: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
    let pod =
        |text: &str| pod(json!({ "containerStatuses": [of("a", ended(1, "Error", text, 1), 0)] }));
    let words = "container a exited with 1: line 95 | line 96 | line 97 | line 98 | line 99";
    assert_eq!(Trouble::of(&[pod(&text)]).unwrap().cause, words);
    let long = Trouble::of(&[pod(&"ü".repeat(3000))]).unwrap().cause;
    assert!(long.chars().count() < CHARS_MAX + 40 && long.contains(": …ü"), "{long}");
    let silent = Trouble::of(&[pod("")]).unwrap().cause;
    assert_eq!(silent, "container a exited with 1");
}

#[test]
fn other_ends_have_words_of_their_own() {
    let cases = [
        (ended(137, "OOMKilled", "", 1), "container a used more memory than its limit"),
        (ended(128, "StartError", "no sh", 1), "container a could not start: no sh"),
        (
            json!({ "waiting": { "reason": "ErrImagePull", "message": "denied" } }),
            "container a cannot start: ErrImagePull: denied",
        ),
    ];
    for (state, expected) in cases {
        let pod = pod(json!({ "initContainerStatuses": [of("a", state, 0)] }));
        assert_eq!(Trouble::of(&[pod]).unwrap().in_the_end(), expected);
    }
    let late = pod(json!({
        "phase": "Failed", "reason": "DeadlineExceeded", "message": "longer than 3600 s",
        "initContainerStatuses": [of("a", ended(137, "Error", "", 1), 0)],
    }));
    let expected = "container a was ended: longer than 3600 s";
    assert_eq!(Trouble::of(&[late]).unwrap().cause, expected);
}
