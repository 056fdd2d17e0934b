//! Delete pipelines: before anything goes, and what holds them up.

use std::{pin::pin, time::Duration};

use futures::StreamExt as _;
use http::{Method, Request};
use kube::{Client, client::Body, runtime::watcher};
use muster_control::ClientFor;
use tower::{Service as _, service_fn};

use super::{home::*, *};

const DELETED: &str = "DeleteWorkflowCompleted";

/// Delete pipelines of requests and of the Promise; only the first of each runs.
fn undone(offer: &mut Value) {
    let workflows = &mut offer["spec"]["workflows"];
    workflows["resource"]["delete"] = json!([pipeline("undo"), pipeline("never")]);
    workflows["promise"]["delete"] = json!([pipeline("uninstall")]);
}

/// The delete pipelines hand this over until the switch is on.
fn asking(open: &Switch, control: &str) -> Play {
    let (open, control) = (open.clone(), control.to_owned());
    Arc::new(move |pipeline, object| match pipeline {
        "undo" | "uninstall" if !open.is_on() => {
            Ok(files(&[("metadata/workflow-control.yaml", &control)]))
        }
        _ => Ok(rendered(pipeline, object)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_delete_pipeline_runs_while_everything_is_still_there() {
    let released = Switch::default();
    let open = released.clone();
    let play: Play = Arc::new(move |pipeline, object| match pipeline {
        "undo" if !open.is_on() => Err(HOLD.to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let (home, offer) = offered(play, &[pipeline("main")], undone).await;
    completed(&home, "1").await;
    let api = requests(&home);
    api.delete("a", &Default::default()).await.unwrap();
    let seen = home.until(&api, "a", |r| phases(r) == ["Running"]).await;
    let workflows = &seen["status"]["kratix"]["workflows"];
    assert_eq!(workflows["pipelines"][0]["name"], "undo", "it takes the place of the others");
    assert_eq!(workflows["delete"]["pipelines"][0]["phase"], "Running");
    assert_eq!(workflows["configure"]["pipelines"][0]["phase"], "Succeeded");
    assert_eq!(works(&home, "default").await.len(), 1);
    released.on();
    home.until_gone(&api, "a").await;
    assert!(works(&home, "default").await.is_empty());
    let promises = home.of(&offer);
    promises.delete("cache", &Default::default()).await.unwrap();
    home.until_gone(&promises, "cache").await;
    assert_eq!(home.runs(), ["main", "undo", "uninstall"]);
}

/// Clients of healthy controllers, but that a request `a` is removed just before a Work is made of what
/// its pipeline handed over.
fn too_late(home: &Home) -> ClientFor {
    let (services, api) = (home.services(), requests(home));
    Arc::new(move |name| {
        let (service, api, results) = (services(name), api.clone(), name == "results");
        let service = service_fn(move |request: Request<Body>| {
            let (mut service, api) = (service.clone(), api.clone());
            async move {
                let makes = results && request.method() == Method::POST;
                if makes && request.uri().path().ends_with("/works") {
                    api.delete("a", &Default::default()).await.unwrap();
                    let gone = || async { api.get_opt("a").await.unwrap().is_none().then_some(()) };
                    eventually(gone).await.expect("the request goes");
                }
                service.call(request).await
            }
        });
        Client::new(service, "default")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_when_its_request_is_gone_leaves_nothing() {
    let (home, _) = offered(renders(), &[pipeline("main")], |_| {}).await;
    home.replace_controllers(too_late(&home), Options::default()).await;
    let made = home.kind("platform.kratix.io/v1alpha1", "Work", Some("default"));
    let mut seen = pin!(watcher(made, watcher::Config::default()));
    while !matches!(seen.next().await, Some(Ok(watcher::Event::InitDone))) {}
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let made = async { while !matches!(seen.next().await, Some(Ok(watcher::Event::Apply(_)))) {} };
    tokio::time::timeout(PATIENCE, made).await.expect("a Work is made");
    home.until_gone(&requests(&home), "a").await;
    let left = eventually(|| async { works(&home, "default").await.is_empty().then_some(()) });
    assert!(left.await.is_some(), "{:#?}", works(&home, "default").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_awaits_the_configure_job_that_runs() {
    let released = Switch::default();
    let open = released.clone();
    let play: Play = Arc::new(move |pipeline, object| match pipeline {
        "main" if !open.is_on() => Err(HOLD.to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let (home, _) = offered(play, &[pipeline("main"), pipeline("more")], undone).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    ran(&home, 1).await;
    let api = requests(&home);
    api.delete("a", &Default::default()).await.unwrap();
    settled(&home).await;
    assert_eq!(home.runs(), ["main", "undo"][..1]);
    released.on();
    home.until_gone(&api, "a").await;
    assert_eq!(home.runs()[..2], ["main", "undo"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_deletion_keeps_everything_until_a_person_lets_it_go_on() {
    let open = Switch::default();
    let play = asking(&open, "suspend: true\nmessage: waiting for approval\n");
    let (home, offer) = offered(play, &[pipeline("main")], undone).await;
    completed(&home, "1").await;
    let (api, promises) = (requests(&home), home.of(&offer));
    api.delete("a", &Default::default()).await.unwrap();
    let suspended = "False/DeleteWorkflowSuspended: The delete workflow is suspended";
    let seen = home.until(&api, "a", |r| condition(r, DELETED) == suspended).await;
    assert_eq!(seen["metadata"]["labels"][SUSPENDED], "true");
    assert_eq!(seen["status"]["message"], "waiting for approval");
    let workflows = &seen["status"]["kratix"]["workflows"];
    assert_eq!(workflows["delete"]["pipelines"][0]["message"], "waiting for approval");
    assert_eq!(works(&home, "default").await.len(), 1);
    open.on();
    home.label(&api, "a", SUSPENDED, Value::Null).await;
    home.until_gone(&api, "a").await;
    open.off();
    promises.delete("cache", &Default::default()).await.unwrap();
    home.until(&promises, "cache", |p| condition(p, DELETED) == suspended).await;
    open.on();
    home.label(&promises, "cache", SUSPENDED, Value::Null).await;
    home.until_gone(&promises, "cache").await;
    assert_eq!(home.runs(), ["main", "undo", "undo", "uninstall", "uninstall"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_pipeline_that_asks_for_it_is_tried_again_after_its_time() {
    let open = Switch::default();
    let play = asking(&open, "retryAfter: 2h\n");
    let (home, offer) = offered(play, &[pipeline("main")], undone).await;
    completed(&home, "1").await;
    let api = requests(&home);
    api.delete("a", &Default::default()).await.unwrap();
    for attempts in 1..=3 {
        home.until(&api, "a", |r| {
            is(r, DELETED, "False/DeleteWorkflowSuspended")
                && r["status"]["kratix"]["workflows"]["pipelines"][0]["attempts"] == attempts
        })
        .await;
        if attempts == 3 {
            open.on();
        }
        home.clock.skip(Duration::from_secs(7200));
    }
    home.until_gone(&api, "a").await;
    assert_eq!(home.runs()[1..], ["undo"; 4]);
    open.off();
    let promises = home.of(&offer);
    promises.delete("cache", &Default::default()).await.unwrap();
    home.until(&promises, "cache", |p| is(p, DELETED, "False/DeleteWorkflowSuspended")).await;
    open.on();
    home.clock.skip(Duration::from_secs(7200));
    home.until_gone(&promises, "cache").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_deletion_stays_until_someone_asks_or_changes_something() {
    let mended = Switch::default();
    let good = mended.clone();
    let play: Play = Arc::new(move |pipeline, object| match pipeline {
        "undo" | "uninstall" if !good.is_on() => Err("BackoffLimitExceeded: no".to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let (home, mut offer) = offered(play, &[pipeline("main")], undone).await;
    completed(&home, "1").await;
    let api = requests(&home);
    api.delete("a", &Default::default()).await.unwrap();
    let failed = |name: &'static str| {
        let text =
            format!("False/DeleteWorkflowFailed: The Delete Pipeline has failed: {name}: no");
        move |object: &Value| condition(object, DELETED) == text
    };
    let seen = home.until(&api, "a", failed("undo")).await;
    assert_eq!(phases(&seen), ["Failed"]);
    assert_eq!(works(&home, "default").await.len(), 1);
    // Not by itself, however long.
    home.clock.skip(Duration::from_secs(100 * 3600));
    settled(&home).await;
    assert_eq!(home.runs().len(), 2);
    // When someone asks.
    home.label(&api, "a", MANUAL, json!("true")).await;
    ran(&home, 3).await;
    home.until(&api, "a", |r| failed("undo")(r) && r["metadata"]["labels"].get(MANUAL).is_none())
        .await;
    // When the request is changed.
    let size = json!({ "spec": { "size": "2" } });
    let patch = kube::api::Patch::Merge(size);
    api.patch("a", &Default::default(), &patch).await.unwrap();
    ran(&home, 4).await;
    home.until(&api, "a", failed("undo")).await;
    // When the pipeline is changed.
    mended.on();
    let undo = "/spec/workflows/resource/delete/0/spec/containers/0/image";
    *offer.pointer_mut(undo).unwrap() = json!("example.org/render:2");
    home.apply(&offer).await.unwrap();
    home.until_gone(&api, "a").await;
    assert_eq!(home.runs()[1..], ["undo"; 4]);
    mended.off();
    let promises = home.of(&offer);
    promises.delete("cache", &Default::default()).await.unwrap();
    home.until(&promises, "cache", failed("uninstall")).await;
    mended.on();
    home.label(&promises, "cache", MANUAL, json!("true")).await;
    home.until_gone(&promises, "cache").await;
}
