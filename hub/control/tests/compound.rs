//! Promises that need others, and requests that are made of requests, against the embedded API.

#[path = "offers/home.rs"]
mod home;

use std::sync::Arc;

use home::{Home, Play, condition, files, pipeline, promise, request};
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// Pipelines that write one file.
fn renders() -> Play {
    Arc::new(|pipeline, _| Ok(files(&[(&format!("output/{pipeline}.yaml"), "a: 1\n")])))
}

fn is(object: &Value, kind: &str, text: &str) -> bool {
    condition(object, kind).starts_with(text)
}

/// A Promise at a version.
fn version(name: &str, kind: &str, version: &str) -> Value {
    let mut offer = promise(name, kind, &[]);
    offer["metadata"]["labels"] = json!({ "kratix.io/promise-version": version });
    offer
}

fn state(promise: &Value, index: usize) -> &str {
    promise["status"]["requiredPromises"][index]["state"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requirement_is_met_by_its_version_and_stays_met_when_that_is_upgraded() {
    let home = Home::open(renders()).await;
    let mut tea = version("tea", "Tea", "v0.1.0");
    tea["spec"]["workflows"]["resource"]["configure"] = json!([pipeline("brew")]);
    tea["spec"]["requiredPromises"] = json!([{ "name": "water", "version": "v1.2.0" }]);
    home.apply(&tea).await.unwrap();
    let promises = home.of(&tea);
    let seen = home.until(&promises, "tea", |p| is(p, "RequirementsFulfilled", "False")).await;
    assert_eq!(state(&seen, 0), "Requirement not installed");
    home.apply(&request("Tea", "green", "cup")).await.unwrap();
    let teas = home.of(&request("Tea", "green", "cup"));
    home.until(&teas, "green", |r| is(r, "PromiseAvailable", "False")).await;

    // Another version is told as such, and the change of it wakes whoever waits.
    home.apply(&version("water", "Water", "v1.1.0")).await.unwrap();
    let other = "Requirement not installed at the specified version";
    home.until(&promises, "tea", |p| state(p, 0) == other).await;
    home.apply(&version("water", "Water", "v1.2.0")).await.unwrap();
    let seen = home.until(&promises, "tea", |p| is(p, "Available", "True")).await;
    assert_eq!(state(&seen, 0), "Requirement installed");
    home.until(&teas, "green", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    let water = home
        .until(&promises, "water", |p| p["status"]["requiredBy"][0]["promise"]["name"] == "tea")
        .await;
    assert_eq!(
        water["status"]["requiredBy"],
        json!([{ "promise": { "name": "tea", "version": "v0.1.0" }, "requiredVersion": "v1.2.0" }])
    );

    // Upgraded past what is asked for.
    home.apply(&version("water", "Water", "v1.3.0")).await.unwrap();
    home.until(&promises, "water", |p| p["status"]["version"] == "v1.3.0").await;
    tea["metadata"]["labels"]["kratix.io/promise-version"] = json!("v0.2.0");
    home.apply(&tea).await.unwrap();
    home.until(&promises, "water", |p| {
        p["status"]["requiredBy"][0]["promise"]["version"] == "v0.2.0"
    })
    .await;
    let seen = home.until(&promises, "tea", |p| p["status"]["version"] == "v0.2.0").await;
    assert_eq!(state(&seen, 0), "Requirement installed");
    assert!(is(&seen, "Available", "True"), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_told_when_what_their_promise_requires_goes() {
    let home = Home::open(renders()).await;
    let mut tea = promise("tea", "Tea", &[pipeline("brew")]);
    tea["spec"]["requiredPromises"] = json!([{ "name": "water" }]);
    home.apply(&promise("water", "Water", &[])).await.unwrap();
    home.apply(&tea).await.unwrap();
    let (promises, teas) = (home.of(&tea), home.of(&request("Tea", "green", "cup")));
    home.until(&promises, "tea", |p| is(p, "Available", "True")).await;
    home.apply(&request("Tea", "green", "cup")).await.unwrap();
    home.until(&teas, "green", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;

    promises.delete("water", &DeleteParams::default()).await.unwrap();
    home.until(&teas, "green", |r| is(r, "PromiseAvailable", "False")).await;
    home.until_gone(&promises, "water").await;
    let seen = home.until(&promises, "tea", |p| state(p, 0) == "Requirement not installed").await;
    assert!(is(&seen, "Available", "False"), "{seen:#}");
    home.apply(&promise("water", "Water", &[])).await.unwrap();
    home.until(&teas, "green", |r| is(r, "PromiseAvailable", "True")).await;

    // Who no longer requires it, or goes, is no longer named.
    home.until(&promises, "water", |p| p["status"]["requiredBy"].is_array()).await;
    tea["spec"].as_object_mut().unwrap().remove("requiredPromises");
    home.apply(&tea).await.unwrap();
    home.until(&promises, "water", |p| p["status"]["requiredBy"].is_null()).await;
}
