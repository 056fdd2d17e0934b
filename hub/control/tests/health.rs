//! What others record of a request's health, against the embedded API.

#[path = "offers/home.rs"]
mod home;

use std::sync::Arc;

use home::{Home, Play, condition, eventually, files, pipeline, promise, request};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

fn renders() -> Play {
    Arc::new(|_, _| Ok(files(&[("output/a.yaml", "a: 1\n")])))
}

fn record(name: &str, promise: &str, state: &str) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "HealthRecord",
        "metadata": { "name": name, "namespace": "default" },
        "data": {
            "promiseRef": { "name": promise },
            "resourceRef": { "name": "a", "namespace": "default", "generation": 1 },
            "state": state, "lastRun": 1_700_000_000, "details": { "probe": name },
        },
    })
}

fn state(request: &Value) -> &str {
    request["status"]["healthStatus"]["state"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_reach_their_own_request_and_go_at_any_time() {
    let home = Home::open(renders()).await;
    // Two Promises, each with a request of one name: their records are not each other's.
    for (name, kind) in [("cache", "Cache"), ("queue", "Queue")] {
        let offer = promise(name, kind, &[pipeline("main")]);
        home.apply(&offer).await.unwrap();
        home.until(&home.of(&offer), name, |p| condition(p, "Available").starts_with("True")).await;
        let wanted = request(kind, "a", "1");
        home.apply(&wanted).await.unwrap();
        home.until(&home.of(&wanted), "a", |r| {
            condition(r, "ConfigureWorkflowCompleted").starts_with("True")
        })
        .await;
    }
    let caches = home.of(&request("Cache", "a", "1"));
    let records = home.of(&record("one", "cache", "ready"));

    home.apply(&record("one", "cache", "ready")).await.unwrap();
    let seen = home.until(&caches, "a", |r| state(r) == "ready").await;
    assert_eq!(
        seen["status"]["healthStatus"]["healthRecords"],
        json!([{
            "state": "ready", "lastRun": 1_700_000_000, "details": { "probe": "one" },
            "source": { "name": "one", "namespace": "default" },
        }])
    );
    home.apply(&record("two", "cache", "degraded")).await.unwrap();
    let seen = home.until(&caches, "a", |r| state(r) == "degraded").await;
    let names = seen.pointer("/status/healthStatus/healthRecords/0/source/name");
    assert_eq!(names, Some(&json!("two")), "the worst comes first");

    let events = home.kind("events.k8s.io/v1", "Event", Some("default"));
    let told = eventually(|| async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let of_health = all.iter().filter(|it| it.data["reason"] == "HealthRecord");
        let notes: Vec<_> = of_health.map(|it| it.data["note"].clone()).collect();
        (notes.len() == 2).then_some(notes)
    });
    let told = told.await.expect("each change is told once");
    assert!(told.contains(&json!("Health state is degraded")), "{told:?}");

    let other = json!(home.of(&request("Queue", "a", "1")).get("a").await.unwrap());
    assert_eq!(state(&other), "", "another Promise's request of the same name hears nothing");

    // A record that moves to another request leaves the first.
    home.apply(&record("two", "queue", "unhealthy")).await.unwrap();
    home.until(&caches, "a", |r| state(r) == "ready").await;
    home.until(&home.of(&request("Queue", "a", "1")), "a", |r| state(r) == "unhealthy").await;

    records.delete("one", &DeleteParams::default()).await.unwrap();
    home.until_gone(&records, "one").await;
    home.until(&caches, "a", |r| state(r).is_empty()).await;
    // Also when its request is gone already.
    let queues = home.of(&request("Queue", "a", "1"));
    queues.delete("a", &DeleteParams::default()).await.unwrap();
    home.until_gone(&queues, "a").await;
    records.delete("two", &DeleteParams::default()).await.unwrap();
    home.until_gone(&records, "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_says_which_promise_and_one_of_five_states() {
    let home = Home::open(renders()).await;
    let refused = home.apply(&record("one", "cache", "fine")).await.unwrap_err().to_string();
    assert!(refused.contains("data.state"), "{refused}");
    let mut nameless = record("one", "cache", "ready");
    nameless["data"]["promiseRef"] = json!({});
    let refused = home.apply(&nameless).await.unwrap_err().to_string();
    assert!(refused.contains("data.promiseRef.name"), "{refused}");
    home.apply(&record("one", "cache", "ready")).await.expect("its Promise may come later");
}
