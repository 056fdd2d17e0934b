//! Requests that are made of requests, against the embedded API.

#[path = "offers/home.rs"]
mod home;

use std::{sync::Arc, time::Duration};

use home::{Home, Play, condition, eventually, files, pipeline, promise, request, works};
use http::{Method, Request};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
    core::DynamicObject,
};
use muster_control::ClientFor;
use muster_plan::options::Options;
use serde_json::{Value, json};
use tower::{Service as _, service_fn};

const PLATFORM: &str = "- matchLabels: {environment: platform}\n";

/// The pipelines of these tests. `bring` puts out a Database of the size of its App, and of other
/// things what its size asks for; `main`, the Database's, writes a file that no Destination takes
/// if it is to be slow, and fails if it is to be bad.
fn plays() -> Play {
    Arc::new(|pipeline, object| {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (name, size) = (text("/metadata/name"), text("/spec/size"));
        let database = |more: &str| {
            format!(
                "apiVersion: ex.io/v1\nkind: Database\nmetadata: {{name: {name}-db{more}}}\n\
                 spec: {{size: \"{size}\"}}\n"
            )
        };
        let for_platform = |text: &str| {
            let selectors = ("metadata/destination-selectors.yaml", PLATFORM);
            Ok(files(&[("output/requests.yaml", text), selectors]))
        };
        match (pipeline, size) {
            ("bring", "none") => Ok(files(&[])),
            ("bring", "tier") => Ok(files(&[
                ("output/requests.yaml", &database("")),
                ("metadata/destination-selectors.yaml", "- matchLabels: {tier: hub}\n"),
            ])),
            ("bring", "elsewhere") => for_platform(&database(", namespace: other")),
            ("bring", "itself") => for_platform(&format!(
                "apiVersion: ex.io/v1\nkind: App\nmetadata: {{name: {name}}}\nspec: {{}}\n"
            )),
            ("bring", "endless") => for_platform(&format!(
                "apiVersion: ex.io/v1\nkind: App\nmetadata: {{name: {name}x}}\n\
                 spec: {{size: endless}}\n"
            )),
            ("bring", "bare") => for_platform(&database("").replace("{size: \"bare\"}", "{}")),
            ("bring", _) => for_platform(&database("")),
            ("finish", "twice") => for_platform(&database("")),
            ("prepare", _) => for_platform(
                "apiVersion: ex.io/v1\nkind: Database\nmetadata: {name: shared, namespace: other}\n",
            ),
            ("main", "slow") => Ok(files(&[("output/a.yaml", "a: 1\n")])),
            ("main", "bad") => Err("BackoffLimitExceeded: it broke".to_owned()),
            _ => Ok(files(&[])),
        }
    })
}

fn is(object: &Value, kind: &str, text: &str) -> bool {
    condition(object, kind).starts_with(text)
}

/// A hub that offers Apps, whose pipelines are `bring` and `finish`, and Databases.
async fn offering() -> Home {
    offering_with(Options::default()).await
}

async fn offering_with(options: Options) -> Home {
    let home = Home::open_with(plays(), options).await;
    for offer in [
        promise("database", "Database", &[pipeline("main")]),
        promise("app", "App", &[pipeline("bring"), pipeline("finish")]),
    ] {
        home.apply(&offer).await.unwrap();
        let name = offer["metadata"]["name"].as_str().unwrap();
        home.until(&home.of(&offer), name, |p| is(p, "Available", "True")).await;
    }
    home
}

fn apps(home: &Home) -> Api<DynamicObject> {
    home.of(&request("App", "", ""))
}

fn databases(home: &Home) -> Api<DynamicObject> {
    home.of(&request("Database", "", ""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pipeline_puts_out_for_the_platform_is_made_followed_and_removed() {
    let home = offering().await;
    home.apply(&request("App", "shop", "1")).await.unwrap();
    let (apps, databases) = (apps(&home), databases(&home));
    let shop = home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    // The next pipeline began when what the first one asked for was there.
    assert_eq!(home.runs(), ["bring", "main", "finish"]);
    assert_eq!(shop["status"]["children"][0]["phase"], "Ready");
    let made = json!(databases.get("shop-db").await.unwrap());
    assert_eq!(made["spec"]["size"], "1");
    let owner = &made["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["uid"], &owner["kind"]), (&shop["metadata"]["uid"], &json!("App")));
    let labels = &made["metadata"]["labels"];
    assert_eq!(labels["kratix.io/parent-promise-name"], "app");
    assert_eq!(labels["kratix.io/parent-resource-name"], "shop");
    assert_eq!(labels["kratix.io/parent-resource-namespace"], "default");
    // It is no file of any destination's.
    let work = &works(&home, "default").await["bring"];
    assert_eq!(work["spec"]["workloadGroups"], json!([]));

    // Its change arrives, and is waited for.
    home.apply(&request("App", "shop", "2")).await.unwrap();
    let seen = home.until(&databases, "shop-db", |db| db["spec"]["size"] == "2").await;
    assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
    home.until(&apps, "shop", |app| {
        is(app, "Reconciled", "True") && app["status"]["observedGeneration"] == 2
    })
    .await;

    // What is put out no longer goes from it.
    home.apply(&request("App", "shop", "bare")).await.unwrap();
    home.until(&databases, "shop-db", |db| db["spec"] == json!({})).await;
    home.apply(&request("App", "shop", "2")).await.unwrap();
    home.until(&databases, "shop-db", |db| db["spec"]["size"] == "2").await;

    // What others change of it is put back, and what they delete is made again.
    let patch = Patch::Merge(json!({ "spec": { "size": "9" } }));
    databases.patch("shop-db", &PatchParams::default(), &patch).await.unwrap();
    home.until(&databases, "shop-db", |db| db["spec"]["size"] == "2").await;
    // So are the marks by which it is known.
    let bare = json!({ "labels": null, "annotations": null, "ownerReferences": null });
    let patch = Patch::Merge(json!({ "metadata": bare, "spec": { "size": "9" } }));
    databases.patch("shop-db", &PatchParams::default(), &patch).await.unwrap();
    let marks = |db: &Value| {
        let metadata = &db["metadata"];
        (metadata["ownerReferences"].clone(), metadata["labels"].clone())
    };
    home.until(&databases, "shop-db", |db| marks(db) == marks(&made) && db["spec"]["size"] == "2")
        .await;
    databases.delete("shop-db", &DeleteParams::default()).await.unwrap();
    home.until(&databases, "shop-db", |db| {
        !db.is_null() && db["metadata"]["uid"] != made["metadata"]["uid"]
    })
    .await;

    // No longer put out, it goes.
    home.apply(&request("App", "shop", "none")).await.unwrap();
    home.until_gone(&databases, "shop-db").await;
    let shop = home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    home.until(&apps, "shop", |app| app["status"]["children"].is_null()).await;
    assert_eq!(shop["status"]["message"], "Resource requested");

    // It goes with its parent, and before it.
    home.apply(&request("App", "shop", "3")).await.unwrap();
    home.until(&databases, "shop-db", |db| db["spec"]["size"] == "3").await;
    apps.delete("shop", &DeleteParams::default()).await.unwrap();
    home.until_gone(&apps, "shop").await;
    assert!(databases.get_opt("shop-db").await.unwrap().is_none());
    // A pipeline that ran may have handed over last of all, and that was taken back.
    let gone = eventually(|| async { works(&home, "default").await.is_empty().then_some(()) });
    assert!(gone.await.is_some(), "{:#?}", works(&home, "default").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_says_which_child_it_waits_for_and_why() {
    let home = offering().await;
    let apps = apps(&home);
    home.apply(&request("App", "shop", "slow")).await.unwrap();
    let waits = "Unknown/ChildNotReady: waiting for Database shop-db: no destination matches";
    let seen = home.until(&apps, "shop", |app| is(app, "Reconciled", waits)).await;
    let completed = condition(&seen, "ConfigureWorkflowCompleted");
    assert!(
        completed.contains("Pipelines are still in progress: waiting for Database"),
        "{seen:#}"
    );
    assert!(!home.runs().contains(&"finish".to_owned()), "{:?}", home.runs());

    home.apply(&request("App", "shop", "bad")).await.unwrap();
    let failed = "False/ChildFailed: Database shop-db failed: A Configure Pipeline has failed";
    home.until(&apps, "shop", |app| is(app, "Reconciled", failed)).await;
    assert!(!home.runs().contains(&"finish".to_owned()), "{:?}", home.runs());

    home.apply(&request("App", "shop", "good")).await.unwrap();
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    assert_eq!(home.runs().last().unwrap(), "finish");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_whose_author_wants_it_so_begins_before_the_children_are_ready() {
    let home = offering().await;
    let mut finish = pipeline("finish");
    finish["metadata"]["annotations"] = json!({ "fleet.muster.dev/wait-for-children": "false" });
    let offer = promise("app", "App", &[pipeline("bring"), finish]);
    home.apply(&offer).await.unwrap();
    let generation = |promise: &Value| {
        promise["status"]["observedGeneration"] == promise["metadata"]["generation"]
    };
    home.until(&home.of(&offer), "app", generation).await;
    home.apply(&request("App", "shop", "slow")).await.unwrap();
    let seen =
        home.until(&apps(&home), "shop", |app| is(app, "ConfigureWorkflowCompleted", "True")).await;
    // All pipelines are through; it is not done before its child is.
    assert!(!is(&seen, "Reconciled", "True"), "{seen:#}");
    home.until(&apps(&home), "shop", |app| is(app, "Reconciled", "Unknown/ChildNotReady")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_somebody_elses_is_told_and_left_alone() {
    let home = offering().await;
    let (apps, databases) = (apps(&home), databases(&home));
    home.apply(&request("Database", "shop-db", "mine")).await.unwrap();
    home.until(&databases, "shop-db", |db| is(db, "Reconciled", "True")).await;
    home.apply(&request("App", "shop", "1")).await.unwrap();
    let seen = home.until(&apps, "shop", |app| is(app, "Reconciled", "False")).await;
    assert_eq!(
        condition(&seen, "Reconciled"),
        "False/ChildRefused: Database shop-db cannot be made: a Database of that name exists in \
         default and is somebody else's: choose another name, or delete it"
    );
    // Neither changed, nor taken along.
    let mine = json!(databases.get("shop-db").await.unwrap());
    assert_eq!(mine["spec"]["size"], "mine");
    assert!(mine["metadata"]["ownerReferences"].is_null(), "{mine:#}");
    apps.delete("shop", &DeleteParams::default()).await.unwrap();
    home.until_gone(&apps, "shop").await;
    assert!(databases.get_opt("shop-db").await.unwrap().is_some());

    // When it is out of the way, the child is made without anybody's asking.
    home.apply(&request("App", "shop", "1")).await.unwrap();
    home.until(&apps, "shop", |app| is(app, "Reconciled", "False/ChildRefused")).await;
    databases.delete("shop-db", &DeleteParams::default()).await.unwrap();
    home.until_gone(&databases, "shop-db").await;
    home.clock.skip(Duration::from_secs(10));
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
}

/// Clients of healthy controllers, but that somebody makes a Database of a name just before the hub
/// does.
fn overtaken(home: &Home) -> ClientFor {
    let (services, rival) = (home.services(), databases(home));
    Arc::new(move |name| {
        let (service, rival) = (services(name), rival.clone());
        Client::new(
            service_fn(move |request: Request<Body>| {
                let (mut service, rival) = (service.clone(), rival.clone());
                async move {
                    let writes =
                        request.method() == Method::POST || request.method() == Method::PATCH;
                    if writes && request.uri().path().contains("/databases") {
                        let mine = request_of_rival();
                        let made = rival.create(&PostParams::default(), &mine).await;
                        println!("the rival: {:?}", made.map(|_| ()).map_err(|e| e.to_string()));
                    }
                    service.call(request).await
                }
            }),
            "default",
        )
    })
}

fn request_of_rival() -> DynamicObject {
    serde_json::from_value(request("Database", "shop-db", "mine")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_makes_at_the_last_moment_is_not_taken_over() {
    let home = offering().await;
    home.replace_controllers(overtaken(&home), Options::default()).await;
    home.apply(&request("App", "shop", "1")).await.unwrap();
    home.until(&apps(&home), "shop", |app| is(app, "Reconciled", "False/ChildRefused")).await;
    let mine = json!(databases(&home).get("shop-db").await.unwrap());
    assert_eq!(mine["spec"]["size"], "mine");
    assert!(mine["metadata"]["ownerReferences"].is_null(), "{mine:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_child_of_two_pipelines_is_refused_and_stays_as_it_is() {
    let home = offering().await;
    home.apply(&request("App", "shop", "twice")).await.unwrap();
    let seen =
        home.until(&apps(&home), "shop", |app| is(app, "Reconciled", "False/ChildRefused")).await;
    let said = condition(&seen, "Reconciled");
    assert!(said.contains("pipelines bring and finish both put it out"), "{said}");
    assert!(databases(&home).get_opt("shop-db").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_parent_is_paused_its_children_are_left_alone() {
    let home = offering().await;
    let (apps, databases) = (apps(&home), databases(&home));
    home.apply(&request("App", "shop", "1")).await.unwrap();
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    home.label(&apps, "shop", "kratix.io/paused", json!("true")).await;
    home.until(&apps, "shop", |app| is(app, "Reconciled", "Unknown/PausedReconciliation")).await;
    databases.delete("shop-db", &DeleteParams::default()).await.unwrap();
    home.until_gone(&databases, "shop-db").await;
    // What comes after it in its queue is done, and it was left out.
    home.apply(&request("App", "other", "1")).await.unwrap();
    home.until(&apps, "other", |app| is(app, "Reconciled", "True")).await;
    assert!(databases.get_opt("shop-db").await.unwrap().is_none());
    home.label(&apps, "shop", "kratix.io/paused", Value::Null).await;
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    assert!(databases.get_opt("shop-db").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_whose_promise_goes_comes_back_with_it() {
    let home = offering().await;
    let apps = apps(&home);
    home.apply(&request("App", "shop", "1")).await.unwrap();
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    let offer = promise("database", "Database", &[pipeline("main")]);
    let promises = home.of(&offer);
    promises.delete("database", &DeleteParams::default()).await.unwrap();
    home.until_gone(&promises, "database").await;
    let waits = "waiting for Database shop-db: promise database is not installed";
    let said = home.until(&apps, "shop", |app| condition(app, "Reconciled").contains(waits)).await;
    assert!(is(&said, "Reconciled", "Unknown/ChildNotReady"), "{said:#}");
    home.apply(&offer).await.unwrap();
    home.until(&promises, "database", |p| is(p, "Available", "True")).await;
    home.clock.skip(Duration::from_secs(10));
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_is_one_parents_and_no_work_written_by_hand_reaches_elsewhere() {
    let home = offering().await;
    let apps = apps(&home);
    home.apply(&request("App", "shop", "1")).await.unwrap();
    home.until(&apps, "shop", |app| is(app, "Reconciled", "True")).await;
    let all = home.kind("platform.kratix.io/v1alpha1", "Work", Some("default"));
    let work = works(&home, "default").await["bring"].clone();
    let name = work["metadata"]["name"].as_str().unwrap();
    let reach = |key: &str, to: &str| {
        let mut children = work["spec"]["children"].clone();
        children[0]["manifest"]["metadata"][key] = json!(to);
        Patch::Merge(json!({ "spec": { "children": children } }))
    };
    all.patch(name, &PatchParams::default(), &reach("namespace", "kube-system")).await.unwrap();
    let words = "metadata.namespace: \"kube-system\" is not the namespace";
    home.until(&apps, "shop", |app| condition(app, "Reconciled").contains(words)).await;
    let elsewhere = home.kind("ex.io/v1", "Database", Some("kube-system"));
    assert!(elsewhere.get_opt("shop-db").await.unwrap().is_none());
    // Nor does it take another's.
    home.apply(&request("App", "other", "1")).await.unwrap();
    home.until(&apps, "other", |app| is(app, "Reconciled", "True")).await;
    all.patch(name, &PatchParams::default(), &reach("name", "other-db")).await.unwrap();
    let words = "a Database of that name exists in default and is App other's";
    home.until(&apps, "shop", |app| condition(app, "Reconciled").contains(words)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_gets_no_more_than_the_promise_gives() {
    let home = offering().await;
    let other = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "other" },
    });
    home.apply(&other).await.unwrap();
    let apps = apps(&home);
    for (size, words) in [
        ("elsewhere", "Database shop-db: metadata.namespace: \"other\" is not the namespace"),
        ("itself", "App shop is the request that puts it out: a request cannot be made of itself"),
    ] {
        home.apply(&request("App", "shop", size)).await.unwrap();
        let seen =
            home.until(&apps, "shop", |app| condition(app, "Reconciled").contains(words)).await;
        assert!(is(&seen, "Reconciled", "False/ConfigureWorkflowFailed"), "{seen:#}");
    }
    let elsewhere = home.kind("ex.io/v1", "Database", Some("other"));
    assert!(elsewhere.get_opt("shop-db").await.unwrap().is_none());

    // A request of requests of requests ends somewhere.
    home.apply(&request("App", "a", "endless")).await.unwrap();
    let last = format!("a{}", "x".repeat(8));
    let seen = home
        .until(&apps, &last, |app| is(app, "Reconciled", "False/ConfigureWorkflowFailed"))
        .await;
    assert!(condition(&seen, "Reconciled").contains("no more than 8 generations"), "{seen:#}");
    home.until(&apps, "a", |app| is(app, "Reconciled", "False/ChildFailed")).await;
    apps.delete("a", &DeleteParams::default()).await.unwrap();
    home.until_gone(&apps, "a").await;
    home.until_gone(&apps, &last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promises_own_pipeline_may_put_requests_anywhere() {
    let home = offering().await;
    let other = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "other" },
    });
    home.apply(&other).await.unwrap();
    let mut suite = promise("suite", "Suite", &[]);
    suite["spec"]["workflows"]["promise"] = json!({ "configure": [pipeline("prepare")] });
    home.apply(&suite).await.unwrap();
    let (suites, elsewhere) = (home.of(&suite), home.kind("ex.io/v1", "Database", Some("other")));
    home.until(&elsewhere, "shared", |db| is(db, "Reconciled", "True")).await;
    let seen = home.until(&suites, "suite", |p| is(p, "Reconciled", "True")).await;
    assert_eq!(seen["status"]["children"][0]["phase"], "Ready");
    let made = json!(elsewhere.get("shared").await.unwrap());
    assert_eq!(made["metadata"]["labels"]["kratix.io/parent-promise-name"], "suite");
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "Promise");
    suites.delete("suite", &DeleteParams::default()).await.unwrap();
    home.until_gone(&suites, "suite").await;
    assert!(elsewhere.get_opt("shared").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_destination_is_the_platform_requests_go_there_as_files() {
    let home = offering().await;
    let labels = json!({ "environment": "platform" });
    for object in [
        json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "GitStateStore",
            "metadata": { "name": "store" },
            "spec": {
                "url": "https://127.0.0.1:9/x.git", "branch": "main",
                "secretRef": { "name": "none", "namespace": "default" },
            },
        }),
        json!({
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Destination",
            "metadata": { "name": "hub", "labels": labels },
            "spec": { "path": "hub", "stateStoreRef": { "kind": "GitStateStore", "name": "store" } },
        }),
    ] {
        home.apply(&object).await.unwrap();
    }
    home.apply(&request("App", "shop", "1")).await.unwrap();
    let placed = eventually(|| async {
        let works = works(&home, "default").await;
        let groups = works.get("bring")?["spec"]["workloadGroups"].as_array()?.len();
        (groups == 1).then_some(works)
    });
    let works = placed.await.expect("the request is a file");
    assert!(works["bring"]["spec"]["children"].is_null(), "{works:#?}");
    home.until(&apps(&home), "shop", |app| is(app, "ConfigureWorkflowCompleted", "True")).await;
    assert_eq!(home.runs(), ["bring", "finish"], "nothing is waited for");
    assert!(databases(&home).get_opt("shop-db").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platform_has_the_labels_that_its_team_gives_it() {
    let platform = [("tier".to_owned(), "hub".to_owned())].into();
    let home = offering_with(Options { platform, ..Options::default() }).await;
    home.apply(&request("App", "shop", "tier")).await.unwrap();
    home.until(&databases(&home), "shop-db", |db| is(db, "Reconciled", "True")).await;
    // The custom among Promises is a label like others then.
    home.apply(&request("App", "other", "1")).await.unwrap();
    let waits = "no destination matches";
    home.until(&apps(&home), "other", |app| condition(app, "Reconciled").contains(waits)).await;
    assert!(databases(&home).get_opt("other-db").await.unwrap().is_none());
}
