//! Everything runs again although nothing changed: asked for, released, or due.

use std::time::Duration;

use super::{home::*, *};

const HOUR: Duration = Duration::from_secs(3600);

/// The pipelines hold while the switch is off.
fn held_by(switch: &Switch) -> Play {
    let open = switch.clone();
    Arc::new(move |pipeline, object| match open.is_on() {
        true => Ok(rendered(pipeline, object)),
        false => Err(HOLD.to_owned()),
    })
}

fn annotated(object: &mut Value, interval: Option<&str>) {
    object["metadata"]["annotations"] = json!({ "kratix.io/reconciliation-interval": interval });
}

fn failed(request: &Value) -> bool {
    is(request, COMPLETED, "False/ConfigureWorkflowFailed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_reconciliation_stops_the_job_that_runs_and_begins_at_the_first_pipeline() {
    let (released, ledger) = (Switch::default(), Ledger::default());
    let (open, seen) = (released.clone(), ledger.clone());
    let play: Play = Arc::new(move |pipeline, object| {
        if pipeline == "second" && !open.is_on() {
            return Err(HOLD.to_owned());
        }
        seen.enter(pipeline.to_owned());
        Ok(rendered(pipeline, object))
    });
    let (home, _) = offered(play, &[pipeline("first"), pipeline("second")], |_| {}).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    ran(&home, 2).await;
    let api = requests(&home);
    home.label(&api, "a", MANUAL, json!("true")).await;
    ran(&home, 4).await;
    let stopped = |job: &&DynamicObject| job.data["spec"]["suspend"] == true;
    let all = jobs(&home, "default").await;
    assert_eq!(all.iter().filter(stopped).count(), 1);
    let seen = json!(api.get("a").await.unwrap());
    assert!(seen["metadata"]["labels"].get(MANUAL).is_none(), "the label goes before any Job");
    released.on();
    home.until(&api, "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(ledger.lines(), ["first", "first", "second"], "a stopped Job had an effect");
    assert_eq!(home.runs().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_reconciliation_of_a_promise_runs_its_own_pipelines_alone() {
    let own = |offer: &mut Value| {
        offer["spec"]["workflows"]["promise"] = json!({ "configure": [pipeline("setup")] });
    };
    let (home, offer) = offered(renders(), &[pipeline("main")], own).await;
    completed(&home, "1").await;
    let promises = home.of(&offer);
    home.label(&promises, "cache", MANUAL, json!("true")).await;
    ran(&home, 3).await;
    let seen = home.until(&promises, "cache", |p| is(p, COMPLETED, "True")).await;
    assert!(seen["metadata"]["labels"].get(MANUAL).is_none());
    settled(&home).await;
    assert_eq!(home.runs(), ["setup", "main", "setup"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_resources_runs_each_request_again_once() {
    let (home, offer) = offered(renders(), &[pipeline("main")], |_| {}).await;
    for name in ["a", "b", "c"] {
        home.apply(&request(KIND, name, "1")).await.unwrap();
        home.until(&requests(&home), name, |r| is(r, COMPLETED, "True")).await;
    }
    let promises = home.of(&offer);
    for round in 2..=3 {
        home.label(&promises, "cache", "kratix.io/reconcile-resources", json!("true")).await;
        ran(&home, 3 * round).await;
        for name in ["a", "b", "c"] {
            home.until(&requests(&home), name, |r| is(r, COMPLETED, "True")).await;
        }
        let seen = json!(promises.get("cache").await.unwrap());
        assert!(seen["metadata"]["labels"].get("kratix.io/reconcile-resources").is_none());
    }
    home.replace_controllers(home.healthy(), Options::default()).await;
    settled(&home).await;
    assert_eq!(home.runs().len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platforms_interval_holds_where_nobody_says_otherwise() {
    let options = Options { interval: 2 * HOUR, ..Options::default() };
    let own = |offer: &mut Value| {
        offer["spec"]["workflows"]["promise"] = json!({ "configure": [pipeline("setup")] });
    };
    let (home, offer) = offered_with(renders(), &[pipeline("main")], own, options).await;
    completed(&home, "1").await;
    home.clock.skip(HOUR);
    settled(&home).await;
    assert_eq!(home.runs().len(), 2);
    home.clock.skip(HOUR);
    ran(&home, 4).await;
    home.until(&home.of(&offer), "cache", |p| is(p, COMPLETED, "True")).await;
    home.until(&requests(&home), "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(home.runs().iter().filter(|run| *run == "setup").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_annotation_on_the_promise_goes_before_its_field_and_holds_for_its_requests() {
    let field = |offer: &mut Value| {
        offer["spec"]["workflows"]["config"] = json!({ "reconciliationInterval": "5h" });
        annotated(offer, Some("1h"));
    };
    let (home, mut offer) = offered(renders(), &[pipeline("main")], field).await;
    completed(&home, "1").await;
    home.clock.skip(HOUR);
    ran(&home, 2).await;
    home.until(&requests(&home), "a", |r| is(r, COMPLETED, "True")).await;
    // Without it the field holds again.
    annotated(&mut offer, None);
    offer["metadata"].as_object_mut().unwrap().remove("annotations");
    home.apply(&offer).await.unwrap();
    let revisions = home.kind("platform.kratix.io/v1alpha1", "PromiseRevision", None);
    let name = "cache-5a7f3";
    let key = "kratix.io/reconciliation-interval";
    home.until(&revisions, name, |r| r["metadata"]["annotations"].get(key).is_none()).await;
    settled(&home).await;
    home.clock.skip(HOUR);
    settled(&home).await;
    assert_eq!(home.runs().len(), 2);
    home.clock.skip(4 * HOUR);
    ran(&home, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interval_that_is_shortened_holds_from_then_on() {
    let (home, mut offer) = offered(renders(), &[pipeline("main")], |_| {}).await;
    completed(&home, "1").await;
    // On the Promise, for all its requests.
    annotated(&mut offer, Some("1h"));
    home.apply(&offer).await.unwrap();
    let revisions = home.kind("platform.kratix.io/v1alpha1", "PromiseRevision", None);
    let (name, key) = ("cache-5a7f3", "kratix.io/reconciliation-interval");
    home.until(&revisions, name, |r| r["metadata"]["annotations"][key] == "1h").await;
    home.clock.skip(HOUR);
    ran(&home, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_of_a_released_promise_has_an_interval_of_its_own() {
    let released = |offer: &mut Value| {
        offer["metadata"]["labels"] = json!({ "kratix.io/promise-release-name": "elsewhere" });
    };
    let (home, _) = offered(renders(), &[pipeline("main")], released).await;
    completed(&home, "1").await;
    let revisions = home.kind("platform.kratix.io/v1alpha1", "PromiseRevision", None);
    let (name, key) = ("cache-5a7f3", "kratix.io/reconciliation-interval");
    let patch = json!({ "metadata": { "annotations": { key: "5m" } } });
    let patch = kube::api::Patch::Merge(patch);
    revisions.patch(name, &Default::default(), &patch).await.unwrap();
    home.clock.skip(HOUR / 12);
    ran(&home, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_runs_again_once_in_each_interval() {
    let mended = Switch::default();
    let good = mended.clone();
    let play: Play = Arc::new(move |pipeline, object| match good.is_on() {
        true => Ok(rendered(pipeline, object)),
        false => Err("BackoffLimitExceeded: no".to_owned()),
    });
    let (home, _) = offered(play, &[pipeline("main")], |_| {}).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    for runs in 1..=3 {
        ran(&home, runs).await;
        home.until(&requests(&home), "a", failed).await;
        settled(&home).await;
        assert_eq!(home.runs().len(), runs, "once in an interval");
        home.clock.skip(10 * HOUR);
    }
    ran(&home, 4).await;
    home.until(&requests(&home), "a", failed).await;
    mended.on();
    home.clock.skip(10 * HOUR);
    let seen = home.until(&requests(&home), "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(seen["status"]["message"], "Resource requested");
    assert_eq!(seen["status"]["workflowsFailed"], 0);
    assert_eq!(home.runs().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_stays_failed_where_the_platform_says_so() {
    let options = Options { reconcile_after_failure: false, ..Options::default() };
    let play: Play = Arc::new(|_, _| Err("BackoffLimitExceeded: no".to_owned()));
    let (home, _) = offered_with(play, &[pipeline("main")], |_| {}, options).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    home.until(&requests(&home), "a", failed).await;
    home.clock.skip(20 * HOUR);
    settled(&home).await;
    home.replace_controllers(
        home.healthy(),
        Options { reconcile_after_failure: false, ..Options::default() },
    )
    .await;
    settled(&home).await;
    assert_eq!(home.runs().len(), 1);
    home.label(&requests(&home), "a", MANUAL, json!("true")).await;
    ran(&home, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_request_starts_nothing_lets_its_job_end_and_runs_from_the_start_when_released() {
    let released = Switch::default();
    let pipelines = [pipeline("first"), pipeline("second")];
    let (home, _) = offered(held_by(&released), &pipelines, |_| {}).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    ran(&home, 1).await;
    let api = requests(&home);
    home.label(&api, "a", PAUSED, json!("true")).await;
    home.until(&api, "a", |r| condition(r, "Reconciled") == "Unknown/PausedReconciliation: Paused")
        .await;
    released.on();
    let ended = eventually(|| async {
        let all = jobs(&home, "default").await;
        (all[0].data["status"]["succeeded"] == 1).then_some(())
    });
    ended.await.expect("the Job that ran when it was paused ends");
    settled(&home).await;
    assert_eq!(home.runs(), ["first"]);
    let told = events(&home, "default", "a").await;
    let paused = |event: &&(String, String)| event.0 == "PausedReconciliation";
    assert_eq!(told.iter().filter(paused).count(), 1, "{told:?}");
    home.label(&api, "a", PAUSED, Value::Null).await;
    home.until(&api, "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(home.runs(), ["first", "first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releasing_a_promise_wakes_its_requests_with_what_was_changed_meanwhile() {
    let (home, offer) = offered(renders(), &[pipeline("main")], |_| {}).await;
    completed(&home, "1").await;
    home.apply(&request(KIND, "b", "1")).await.unwrap();
    home.until(&requests(&home), "b", |r| is(r, COMPLETED, "True")).await;
    let promises = home.of(&offer);
    home.label(&promises, "cache", PAUSED, json!("true")).await;
    let seen = home
        .until(&promises, "cache", |p| {
            condition(p, "Available") == "False/PausedReconciliation: Paused"
        })
        .await;
    assert_eq!(condition(&seen, "Reconciled"), "Unknown/PausedReconciliation: Paused");
    home.until(&requests(&home), "a", |r| is(r, "Reconciled", "Unknown/Paused")).await;
    // Changes, new requests and deletions are taken.
    home.apply(&request(KIND, "a", "2")).await.unwrap();
    home.apply(&request(KIND, "new", "1")).await.unwrap();
    home.until(&requests(&home), "new", |r| is(r, "Reconciled", "Unknown/Paused")).await;
    requests(&home).delete("b", &Default::default()).await.unwrap();
    home.until_gone(&requests(&home), "b").await;
    assert_eq!(home.runs().len(), 2);
    home.label(&promises, "cache", PAUSED, Value::Null).await;
    home.until(&promises, "cache", |p| is(p, "Available", "True")).await;
    for name in ["a", "new"] {
        let done = |r: &Value| {
            is(r, COMPLETED, "True")
                && !is(r, "Reconciled", "Unknown/Paused")
                && r["status"]["observedGeneration"] == r["metadata"]["generation"]
        };
        home.until(&requests(&home), name, done).await;
    }
    assert_eq!(home.runs().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_promise_can_be_deleted_with_its_requests() {
    let (home, offer) = offered(renders(), &[pipeline("main")], |_| {}).await;
    completed(&home, "1").await;
    let promises = home.of(&offer);
    home.label(&promises, "cache", PAUSED, json!("true")).await;
    home.until(&promises, "cache", |p| is(p, "Available", "False/Paused")).await;
    promises.delete("cache", &Default::default()).await.unwrap();
    home.until_gone(&promises, "cache").await;
    assert!(works(&home, "default").await.is_empty());
}
