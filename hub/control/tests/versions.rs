//! Revisions, bindings and releases of Promises, and records of health, against the embedded API.

#[path = "offers/home.rs"]
mod home;

use std::sync::Arc;

use home::{Home, Play, condition, eventually, files, pipeline, promise, request, works};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

const KRATIX: &str = "platform.kratix.io/v1alpha1";

/// Pipelines that write the request's size; one named `broken` fails.
fn renders() -> Play {
    Arc::new(|pipeline, object| {
        let size = object["spec"]["size"].as_str().unwrap_or_default();
        match pipeline {
            "broken" => Err("BackoffLimitExceeded: it broke".to_owned()),
            name => Ok(files(&[(&format!("output/{name}.yaml"), &format!("size: {size}\n"))])),
        }
    })
}

/// The Promise `cache` at a version, with one pipeline.
fn version(version: &str, step: &str) -> Value {
    let mut promise = promise("cache", "Cache", &[pipeline(step)]);
    promise["metadata"]["labels"] = json!({ "kratix.io/promise-version": version });
    promise
}

/// As [`version`], with these fields of the request's spec, all text but for what is said.
fn with_fields(mut promise: Value, properties: Value, required: Value) -> Value {
    let schema = "/spec/api/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    *promise.pointer_mut(schema).unwrap() =
        json!({ "type": "object", "properties": properties, "required": required });
    promise
}

fn at(promise_version: &str) -> impl Fn(&Value) -> bool {
    move |request| {
        request["status"]["promiseVersion"] == promise_version
            && condition(request, "ConfigureWorkflowCompleted").starts_with("True")
            && !condition(request, "Reconciled").contains("WorkflowPending")
    }
}

async fn available(home: &Home, offer: &Value) {
    home.apply(offer).await.unwrap();
    let version = offer["metadata"]["labels"]["kratix.io/promise-version"].clone();
    home.until(&home.of(offer), "cache", |promise| {
        condition(promise, "Available").starts_with("True")
            && promise["status"]["version"] == version
            && promise["status"]["observedGeneration"] == promise["metadata"]["generation"]
    })
    .await;
}

fn revisions(home: &Home) -> Api<DynamicObject> {
    home.kind(KRATIX, "PromiseRevision", None)
}

fn bindings(home: &Home) -> Api<DynamicObject> {
    home.kind(KRATIX, "ResourceBinding", Some("default"))
}

async fn binding_of(home: &Home, request: &str) -> Value {
    let found = eventually(|| async {
        let selector = format!("kratix.io/resource-name={request}");
        let params = ListParams::default().labels(&selector);
        bindings(home).list(&params).await.unwrap().items.into_iter().next()
    });
    json!(found.await.expect("there is a binding"))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

async fn bind(home: &Home, request: &str, version: &str) {
    let binding = binding_of(home, request).await;
    let patch = Patch::Merge(json!({ "spec": { "version": version } }));
    bindings(home).patch(name(&binding), &PatchParams::default(), &patch).await.unwrap();
}

/// What a refused write was answered.
fn told<T>(answer: kube::Result<T>) -> String {
    match answer {
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let through"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floating_request_follows_and_a_pinned_one_stays() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    let requests = home.of(&request("Cache", "a", "1"));
    for name in ["floating", "pinned"] {
        home.apply(&request("Cache", name, "1")).await.unwrap();
        home.until(&requests, name, at("v1.0.0")).await;
    }
    bind(&home, "pinned", "v1.0.0").await;
    home.until(&requests, "pinned", |r| r["status"]["resourceBindingVersion"] == "v1.0.0").await;
    assert_eq!(home.runs(), ["one", "one"], "to pin a request to what it has runs nothing");

    available(&home, &version("v2.0.0", "two")).await;
    home.until(&requests, "floating", at("v2.0.0")).await;
    let pinned = json!(requests.get("pinned").await.unwrap());
    assert_eq!(pinned["status"]["promiseVersion"], "v1.0.0");
    assert_eq!(home.runs(), ["one", "one", "two"], "a pinned request does not run again");
    let applied = |binding: &Value| binding["status"]["lastAppliedVersion"] == "v2.0.0";
    let floating = binding_of(&home, "floating").await;
    let floating = home.until(&bindings(&home), name(&floating), applied).await;
    assert_eq!(
        condition(&floating, "UpgradeSucceeded"),
        "True/UpgradeComplete: Resource is at version v2.0.0"
    );
    let binding = binding_of(&home, "pinned").await;
    assert_eq!(binding["status"], json!({ "lastAppliedVersion": "v1.0.0" }));

    // Forth, back and forth again: each move runs the pipelines of its version.
    bind(&home, "pinned", "v2.0.0").await;
    home.until(&requests, "pinned", at("v2.0.0")).await;
    bind(&home, "pinned", "v1.0.0").await;
    home.until(&requests, "pinned", at("v1.0.0")).await;
    bind(&home, "pinned", "latest").await;
    home.until(&requests, "pinned", at("v2.0.0")).await;
    assert_eq!(home.runs(), ["one", "one", "two", "two", "one", "two"]);
    let pruned = eventually(|| async {
        let made = works(&home, "default").await;
        (made.keys().collect::<Vec<_>>() == ["two"]).then_some(())
    });
    pruned.await.expect("the Works of other versions go");
}

/// A label is no part of the spec, so that nothing but the version tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_differs_in_its_name_alone_is_followed() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", at("v1.0.0")).await;
    available(&home, &version("v2.0.0", "one")).await;
    home.until(&requests, "a", at("v2.0.0")).await;
    let applied = |binding: &Value| binding["status"]["lastAppliedVersion"] == "v2.0.0";
    home.until(&bindings(&home), name(&binding_of(&home, "a").await), applied).await;
    assert_eq!(home.runs(), ["one", "one"]);
}

/// Says how new requests are bound, and waits until the hub follows it.
async fn configure(home: &Home, strategy: &str, times: usize) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kratix", "namespace": "kratix-platform-system" },
        "data": { "config": format!("resourceBindingVersionStrategy: {strategy}\n") },
    });
    home.apply(&map).await.unwrap();
    let events = home.kind("events.k8s.io/v1", "Event", Some("kratix-platform-system"));
    let followed = eventually(|| async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let applied = all.iter().filter(|it| it.data["reason"] == "ConfigurationApplied");
        (applied.count() == times).then_some(())
    });
    followed.await.expect("the configuration is followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_platform_pins_a_new_request_stays_until_it_is_moved() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    let requests = home.of(&request("Cache", "a", "1"));
    let create = async |name: &str, at_version: &str| {
        home.apply(&request("Cache", name, "1")).await.unwrap();
        home.until(&requests, name, at(at_version)).await;
    };
    let bound = async |name: &str| binding_of(&home, name).await["spec"]["version"].clone();
    create("earlier", "v1.0.0").await;
    configure(&home, "pinned", 1).await;
    create("first", "v1.0.0").await;
    assert_eq!(bound("first").await, "v1.0.0");
    let recorded = |r: &Value| r["status"]["resourceBindingVersion"] == "v1.0.0";
    home.until(&requests, "first", recorded).await;
    assert_eq!(bound("earlier").await, "latest", "what is bound already stays so");

    // Another version: who floats follows, who is pinned does not even run, the next is pinned to it.
    available(&home, &version("v2.0.0", "two")).await;
    home.until(&requests, "earlier", at("v2.0.0")).await;
    create("second", "v2.0.0").await;
    assert_eq!(bound("second").await, "v2.0.0");
    let first = json!(requests.get("first").await.unwrap());
    assert_eq!(first["status"]["promiseVersion"], "v1.0.0");
    assert_eq!(home.runs(), ["one", "one", "two", "two"]);

    // A binding that is lost is made again as it was, not at the present version.
    let lost = binding_of(&home, "first").await;
    bindings(&home).delete(name(&lost), &DeleteParams::default()).await.unwrap();
    let uid = |binding: &Value| binding["metadata"]["uid"].clone();
    let all = bindings(&home);
    let restored = home.until(&all, name(&lost), |b| !b.is_null() && uid(b) != uid(&lost)).await;
    assert_eq!(restored["spec"]["version"], "v1.0.0");

    // It moves when it is asked to.
    bind(&home, "first", "v2.0.0").await;
    home.until(&requests, "first", at("v2.0.0")).await;
    let moved = |b: &Value| condition(b, "UpgradeSucceeded").starts_with("True/UpgradeComplete");
    home.until(&bindings(&home), name(&lost), moved).await;
    assert_eq!(home.runs(), ["one", "one", "two", "two", "two"]);

    // Floating again: what is pinned stays so.
    configure(&home, "floating", 2).await;
    create("third", "v2.0.0").await;
    assert_eq!(bound("third").await, "latest");
    assert_eq!(bound("second").await, "v2.0.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_revision_is_marked_and_the_rest_is_not() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    available(&home, &version("v2.0.0", "two")).await;
    let latest = |of: &Value| {
        (of["metadata"]["labels"]["kratix.io/latest-revision"].clone(), of["status"].clone())
    };
    let old = json!(revisions(&home).get("cache-2888c").await.unwrap());
    assert_eq!(latest(&old), (Value::Null, json!({})));
    let new = json!(revisions(&home).get("cache-081a7").await.unwrap());
    assert_eq!(latest(&new), (json!("true"), json!({ "latest": true })));
    assert_eq!(new["metadata"]["finalizers"], json!(["kratix.io/resource-request-cleanup"]));
    assert_eq!(new["metadata"]["ownerReferences"][0]["name"], "cache");

    // The same again writes nothing; another spec under its version is the version from then on.
    available(&home, &version("v2.0.0", "two")).await;
    let same = json!(revisions(&home).get("cache-081a7").await.unwrap());
    assert_eq!(same["metadata"]["resourceVersion"], new["metadata"]["resourceVersion"]);
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", at("v2.0.0")).await;
    available(&home, &version("v2.0.0", "other")).await;
    eventually(|| async { (home.runs() == ["two", "other"]).then_some(()) }).await.unwrap();

    let refused = told(revisions(&home).delete("cache-081a7", &DeleteParams::default()).await);
    assert!(refused.ends_with("can not delete the latest PromiseRevision"), "{refused}");
    for patch in [
        json!({ "spec": { "version": "v9" } }),
        json!({ "spec": { "promiseRef": { "name": "other" } } }),
        json!({ "spec": { "promiseSpec": { "workflows": null } } }),
    ] {
        let params = PatchParams::default();
        let patched = revisions(&home).patch("cache-2888c", &params, &Patch::Merge(patch)).await;
        let refused = told(patched);
        assert!(refused.contains("field is immutable"), "{refused}");
    }
    let promises = home.of(&version("v2.0.0", "other"));
    promises.delete("cache", &DeleteParams::default()).await.unwrap();
    home.until_gone(&promises, "cache").await;
    assert!(revisions(&home).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_in_use_stays_and_others_may_go() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", at("v1.0.0")).await;
    bind(&home, "a", "v1.0.0").await;
    available(&home, &version("v2.0.0", "two")).await;
    let delete = || async {
        revisions(&home).delete("cache-2888c", &DeleteParams::default()).await.map(drop)
    };
    let refused = told(delete().await);
    assert!(
        refused.contains(
            "can not delete PromiseRevision cache-2888c: requests are bound to version v1.0.0 of \
             promise cache (1: default/a): set spec.version of their ResourceBindings to another \
             version, or delete them"
        ),
        "{refused}"
    );
    bind(&home, "a", "latest").await;
    home.until(&requests, "a", at("v2.0.0")).await;
    delete().await.unwrap();
    home.until_gone(&revisions(&home), "cache-2888c").await;
    assert!(requests.get_opt("a").await.unwrap().is_some(), "a request goes with no revision");

    // To a version of which nothing is kept no request moves, and it says so.
    bind(&home, "a", "v1.0.0").await;
    let seen = home.until(&requests, "a", |r| condition(r, "Reconciled").contains("NotFound"));
    let seen = seen.await;
    assert!(
        condition(&seen, "Reconciled").starts_with(
            "Unknown/PromiseRevisionNotFound: promise cache has no revision of version v1.0.0"
        ),
        "{seen:#}"
    );
    bind(&home, "a", "v2.0.0").await;
    home.until(&requests, "a", |r| !condition(r, "Reconciled").contains("NotFound")).await;
    assert_eq!(home.runs(), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_revisions_go_when_nobody_needs_them() {
    let home = Home::open(renders()).await;
    available(&home, &version("v0", "one")).await;
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", at("v0")).await;
    bind(&home, "a", "v0").await;
    let mut other = promise("other", "Other", &[]);
    other["spec"]["requiredPromises"] = json!([{ "name": "cache", "version": "v1" }]);
    home.apply(&other).await.unwrap();
    for number in 1..10 {
        available(&home, &version(&format!("v{number}"), "one")).await;
    }
    let kept = eventually(|| async {
        let params = ListParams::default().labels("kratix.io/promise-name=cache");
        let all = revisions(&home).list(&params).await.unwrap().items;
        let versions = all.iter().map(|it| it.data["spec"]["version"].as_str().unwrap().to_owned());
        let mut versions: Vec<_> = versions.collect();
        versions.sort();
        // Bound, required, five to go back to, the latest.
        (versions == ["v0", "v1", "v4", "v5", "v6", "v7", "v8", "v9"]).then_some(())
    });
    kept.await.expect("what is not needed goes, and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_failed_is_tried_again_only_when_asked() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", at("v1.0.0")).await;
    available(&home, &version("v2.0.0", "broken")).await;
    let binding = name(&binding_of(&home, "a").await).to_owned();
    let failed = |b: &Value| b["status"]["failedVersion"] == "v2.0.0";
    let seen = home.until(&bindings(&home), &binding, failed).await;
    let upgrade = condition(&seen, "UpgradeSucceeded");
    assert!(
        upgrade.starts_with("False/UpgradeFailed: A Configure Pipeline has failed: broken"),
        "{upgrade}"
    );
    assert_eq!(seen["status"]["lastAppliedVersion"], "v1.0.0");
    assert_eq!(works(&home, "default").await.keys().collect::<Vec<_>>(), ["one"]);
    let ran = home.runs().len();

    // The interval passes: no new try.
    home.clock.skip(std::time::Duration::from_secs(11 * 3600));
    home.apply(&request("Cache", "b", "1")).await.unwrap();
    home.until(&requests, "b", |r| condition(r, "Reconciled").starts_with("False")).await;
    let after: Vec<_> = home.runs().into_iter().skip(ran).collect();
    assert_eq!(after, ["broken"], "only the new request ran");

    // Somebody asks, on the binding; the label is taken.
    let label = json!({ "metadata": { "labels": { "kratix.io/manual-reconciliation": "true" } } });
    let params = PatchParams::default();
    bindings(&home).patch(&binding, &params, &Patch::Merge(label)).await.unwrap();
    eventually(|| async { (home.runs().len() == ran + 2).then_some(()) }).await.expect("a try");
    let seen = home.until(&bindings(&home), &binding, failed).await;
    assert!(seen["metadata"]["labels"].get("kratix.io/manual-reconciliation").is_none());

    // Back to what worked, which runs again; then forth to what has been repaired.
    bind(&home, "a", "v1.0.0").await;
    let cleared = |b: &Value| b["status"].get("failedVersion").is_none();
    home.until(&bindings(&home), &binding, cleared).await;
    home.until(&requests, "a", |r| condition(r, "ConfigureWorkflowCompleted").starts_with("True"))
        .await;
    available(&home, &version("v2.0.0", "two")).await;
    bind(&home, "a", "latest").await;
    home.until(&requests, "a", at("v2.0.0")).await;
    let done = |b: &Value| condition(b, "UpgradeSucceeded").starts_with("True/UpgradeComplete");
    home.until(&bindings(&home), &binding, done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_is_adopted_restored_and_follows_the_labels() {
    let home = Home::open(renders()).await;
    available(&home, &version("v1.0.0", "one")).await;
    available(&home, &version("v2.0.0", "two")).await;
    let binding = |name: &str, request: &str| {
        json!({
            "apiVersion": KRATIX, "kind": "ResourceBinding",
            "metadata": { "name": name, "namespace": "default", "labels": {
                "kratix.io/promise-name": "cache", "kratix.io/resource-name": request,
            } },
            "spec": {
                "version": "v1.0.0", "promiseRef": { "name": "cache" },
                "resourceRef": { "name": request, "namespace": "default", "generation": 1 },
            },
        })
    };
    home.apply(&binding("mine", "a")).await.unwrap();
    let mut wanted = request("Cache", "a", "1");
    wanted["metadata"]["labels"] = json!({ "team": "blue", "kratix.io/workflow-suspended": "no" });
    home.apply(&wanted).await.unwrap();
    let requests = home.of(&wanted);
    home.until(&requests, "a", at("v1.0.0")).await;
    let labels = |b: &Value| b["metadata"]["labels"].clone();
    let own = json!({ "kratix.io/promise-name": "cache", "kratix.io/resource-name": "a" });
    let blue = home.until(&bindings(&home), "mine", |b| labels(b)["team"] == "blue").await;
    assert!(labels(&blue).get("kratix.io/workflow-suspended").is_none(), "{blue:#}");
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    home.until(&bindings(&home), "mine", |b| labels(b) == own).await;

    bindings(&home).delete("mine", &DeleteParams::default()).await.unwrap();
    let restored = binding_of(&home, "a").await;
    assert_eq!(restored["spec"]["version"], "v1.0.0", "it is as the lost one was");
    assert_eq!(home.runs(), ["one"]);

    home.apply(&binding("second", "a")).await.unwrap();
    let seen = home.until(&requests, "a", |r| condition(r, "Reconciled").contains("Several"));
    let seen = seen.await;
    let said = condition(&seen, "Reconciled");
    assert!(said.starts_with("Unknown/SeveralResourceBindings: 2 ResourceBindings"), "{said}");
    assert!(said.contains("second"), "{said}");
    bindings(&home).delete("second", &DeleteParams::default()).await.unwrap();
    home.until(&requests, "a", |r| !condition(r, "Reconciled").contains("Several")).await;

    requests.delete("a", &DeleteParams::default()).await.unwrap();
    home.until_gone(&requests, "a").await;
    assert!(bindings(&home).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_held_to_the_schema_of_its_own_version() {
    let home = Home::open(renders()).await;
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "integer" }));
    let v1 = with_fields(version("v1.0.0", "one"), json!({ "size": text }), json!(["size"]));
    let v2 = with_fields(
        version("v2.0.0", "two"),
        json!({ "size": { "type": "string", "maxLength": 2 }, "copies": number }),
        json!(["copies"]),
    );
    available(&home, &v1).await;
    let requests = home.of(&request("Cache", "a", "1"));
    for name in ["old", "floating"] {
        home.apply(&request("Cache", name, "large")).await.unwrap();
        home.until(&requests, name, at("v1.0.0")).await;
    }
    bind(&home, "old", "v1.0.0").await;
    available(&home, &v2).await;

    // The floating one does not fit; it stays what it was, and says why.
    let seen = home.until(&requests, "floating", |r| condition(r, "Reconciled").contains("Fit"));
    let said = condition(&seen.await, "Reconciled");
    assert!(
        said.starts_with(
            "False/RequestDoesNotFit: the request is not as version v2.0.0 of its promise asks, \
             and stays as it is: Cache.ex.io \"floating\" is invalid: "
        ) && said.contains("spec.copies: Required value"),
        "{said}"
    );
    let binding = binding_of(&home, "floating").await;
    let failed = |b: &Value| b["status"]["failedVersion"] == "v2.0.0";
    home.until(&bindings(&home), name(&binding), failed).await;
    assert_eq!(home.runs(), ["one", "one"]);

    // The pinned one is checked, defaulted and pruned by its own version, in the API's own words.
    home.apply(&request("Cache", "old", "larger")).await.unwrap();
    home.until(&requests, "old", |r| r["status"]["observedGeneration"] == 2).await;
    let kept = json!(requests.get("old").await.unwrap());
    assert_eq!(kept["spec"], json!({ "size": "larger" }));
    let mut wrong = request("Cache", "old", "1");
    wrong["spec"]["size"] = json!(3);
    let refused = told(home.apply(&wrong).await);
    assert!(refused.contains("expected string"), "{refused}");
    let missing = json!({ "spec": { "size": null } });
    let params = PatchParams::default();
    let refused = told(requests.patch("old", &params, &Patch::Merge(missing)).await);
    assert_eq!(refused, "Cache.ex.io \"old\" is invalid: spec.size: Required value");
    // The others are held to the live one.
    let new: DynamicObject = serde_json::from_value(request("Cache", "new", "large")).unwrap();
    let refused = told(requests.create(&PostParams::default(), &new).await);
    assert!(refused.contains("spec.copies: Required value"), "{refused}");

    // Corrected, the floating one moves by itself.
    let mut fitting = request("Cache", "floating", "1");
    fitting["spec"]["copies"] = json!(2);
    home.apply(&fitting).await.unwrap();
    home.until(&requests, "floating", at("v2.0.0")).await;
}
