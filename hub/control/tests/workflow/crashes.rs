//! The hub dies at each of its writes, and another takes over on the same store: every pipeline of
//! every run has its effect exactly once.
//!
//! The write is made, and its answer lost: what another hub finds is thus everything that there ever
//! is between two writes, such as a Job of which status does not speak yet.
//!
//! What dies is all that the hub does through the API: its controllers and the door for results. The
//! pipelines' containers live on, as they do on a cluster, and hand over to whoever is there.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use http::{Method, Request};
use kube::{Client, client::Body};
use muster_control::ClientFor;
use tokio::sync::Notify;
use tower::{Service as _, service_fn};

use super::{home::*, *};

/// The controllers at whose writes the hub dies.
const MORTAL: [&str; 3] = ["promise", "request", "results"];
/// More writes than any of the stories takes: where it has not died by then, it never will.
const WRITES_MAX: usize = 400;

/// The death of a hub at its `at`th write.
struct Fate {
    at: usize,
    writes: AtomicUsize,
    dead: AtomicBool,
    died: Notify,
}

#[derive(Debug, thiserror::Error)]
#[error("the hub is dead")]
struct Dead;

impl Fate {
    fn new(at: usize) -> Arc<Self> {
        let (writes, dead, died) = (AtomicUsize::new(0), AtomicBool::new(false), Notify::new());
        Arc::new(Self { at, writes, dead, died })
    }

    /// Clients of controllers that have this fate.
    fn clients(self: &Arc<Self>, home: &Home) -> ClientFor {
        let services = home.services();
        let fate = Arc::clone(self);
        Arc::new(move |name| {
            let (service, fate) = (services(name), Arc::clone(&fate));
            let mortal = MORTAL.contains(&name);
            let service = service_fn(move |request: Request<Body>| {
                let (mut service, fate) = (service.clone(), Arc::clone(&fate));
                async move {
                    let counts = mortal && is_write(&request);
                    let is_last =
                        counts && fate.writes.fetch_add(1, Ordering::SeqCst) + 1 == fate.at;
                    if fate.is_dead() {
                        return Err(Dead);
                    }
                    let what = format!("{} {}", request.method(), request.uri().path());
                    let Ok(response) = service.call(request).await;
                    if is_last {
                        println!("the hub dies after write {}: {what}", fate.at);
                        fate.die();
                    }
                    if fate.is_dead() { Err(Dead) } else { Ok(response) }
                }
            });
            Client::new(service, "default")
        })
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// Events are told at best, and change nothing.
fn is_write(request: &Request<Body>) -> bool {
    request.method() != Method::GET && !request.uri().path().contains("/events")
}

/// Lives through a story once for each of its writes. Says how many there are.
async fn at_each_write(home: &Home, story: impl AsyncFn(&Home)) -> usize {
    for at in 1..WRITES_MAX {
        let fate = Fate::new(at);
        home.replace_controllers(fate.clients(home), Options::default()).await;
        let mut told = pin!(story(home));
        tokio::select! {
            () = &mut told => return at - 1,
            () = fate.died.notified() => {}
        }
        home.replace_controllers(home.healthy(), Options::default()).await;
        told.await;
    }
    panic!("a story of {WRITES_MAX} writes");
}

/// The pipelines of both stories, and what they have done. Of the second size, the second pipeline
/// asks to wait once.
fn recorded(ledger: &Ledger) -> Play {
    let ledger = ledger.clone();
    Arc::new(move |pipeline, object| {
        let size = object["spec"]["size"].as_str().unwrap_or("-");
        let line = format!("{pipeline} {size}");
        let is_first = !ledger.lines().contains(&line);
        ledger.enter(line.clone());
        if line == "second 2" && is_first {
            return Ok(files(&[("metadata/workflow-control.yaml", "suspend: true\n")]));
        }
        Ok(rendered(pipeline, object))
    })
}

/// A request is made, changed, held up, released, run again and deleted.
async fn life_of_a_request(home: &Home, ledger: &Ledger) {
    ledger.forget();
    let api = requests(home);
    completed(home, "1").await;
    home.apply(&request(KIND, "a", "2")).await.unwrap();
    let suspended = |r: &Value| {
        is(r, "Reconciled", "Unknown/WorkflowSuspended")
            && r["metadata"]["labels"][SUSPENDED] == "true"
    };
    home.until(&api, "a", suspended).await;
    home.label(&api, "a", SUSPENDED, Value::Null).await;
    let complete = |r: &Value| {
        is(r, COMPLETED, "True")
            && r["status"]["observedGeneration"] == 2
            && r["metadata"]["labels"].get(MANUAL).is_none()
    };
    home.until(&api, "a", complete).await;
    home.label(&api, "a", MANUAL, json!("true")).await;
    let seen = home.until(&api, "a", |r| complete(r) && ledger.lines().len() >= 7).await;

    assert_eq!(phases(&seen), ["Succeeded", "Succeeded"]);
    assert_eq!(seen["status"]["workflowsSucceeded"], 2);
    assert_eq!(seen["status"]["message"], "Resource requested");
    assert!(seen["metadata"]["labels"].get(SUSPENDED).is_none());
    let all = home.kind("platform.kratix.io/v1alpha1", "Work", Some("default"));
    let made = all.list(&ListParams::default()).await.unwrap().items;
    let generations: Vec<_> = made.iter().map(|work| work.metadata.generation).collect();
    assert_eq!(generations, [Some(2), Some(2)], "made once, and changed once");
    assert_eq!(jobs(home, "default").await.len(), 7);
    let bindings = home.kind("platform.kratix.io/v1alpha1", "ResourceBinding", Some("default"));
    assert_eq!(bindings.list(&ListParams::default()).await.unwrap().items.len(), 1);

    api.delete("a", &Default::default()).await.unwrap();
    home.until_gone(&api, "a").await;
    let runs =
        ["first 1", "second 1", "first 2", "second 2", "second 2", "first 2", "second 2", "undo 2"];
    assert_eq!(ledger.lines(), runs);
    let left = all.list(&ListParams::default()).await.unwrap().items.len()
        + bindings.list(&ListParams::default()).await.unwrap().items.len()
        + jobs(home, "default").await.len();
    assert_eq!(left, 0, "something is left of the request");
}

/// A Promise is installed, changed, run again and deleted.
async fn life_of_a_promise(home: &Home, ledger: &Ledger) {
    ledger.forget();
    let mut offer = promise("vault", "Vault", &[]);
    offer["spec"]["workflows"]["promise"] =
        json!({ "configure": [pipeline("setup")], "delete": [pipeline("uninstall")] });
    let api = home.of(&offer);
    let available = |generation: i64| {
        move |p: &Value| {
            is(p, "Available", "True")
                && is(p, COMPLETED, "True")
                && p["status"]["observedGeneration"] == generation
                && p["metadata"]["labels"].get(MANUAL).is_none()
        }
    };
    home.apply(&offer).await.unwrap();
    home.until(&api, "vault", available(1)).await;
    offer["spec"]["workflows"]["promise"]["configure"] =
        json!([pipeline("setup"), pipeline("more")]);
    home.apply(&offer).await.unwrap();
    home.until(&api, "vault", available(2)).await;
    home.label(&api, "vault", MANUAL, json!("true")).await;
    let runs = ["setup -", "setup -", "more -", "setup -", "more -", "uninstall -"];
    home.until(&api, "vault", |p| available(2)(p) && ledger.lines().len() >= 5).await;
    let found = ListParams::default().labels("kratix.io/promise-name=vault");
    let works = home.kind("platform.kratix.io/v1alpha1", "Work", Some("kratix-platform-system"));
    assert_eq!(works.list(&found).await.unwrap().items.len(), 2);
    api.delete("vault", &Default::default()).await.unwrap();
    home.until_gone(&api, "vault").await;
    assert_eq!(ledger.lines(), runs);
    let definitions = home.kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    assert!(definitions.get_opt("vaults.ex.io").await.unwrap().is_none());
    assert!(works.list(&found).await.unwrap().items.is_empty());
}

/// The first pipeline puts out a Part of the request's size, for the platform.
fn with_parts(ledger: &Ledger) -> Play {
    let ledger = ledger.clone();
    Arc::new(move |pipeline, object| {
        let size = object["spec"]["size"].as_str().unwrap_or("-");
        ledger.enter(format!("{pipeline} {size}"));
        if pipeline != "first" {
            return Ok(files(&[]));
        }
        let part = request("Part", "a-part", size).to_string();
        let selectors = "- matchLabels: {environment: platform}\n";
        Ok(files(&[
            ("output/part.json", &part),
            ("metadata/destination-selectors.yaml", selectors),
        ]))
    })
}

/// A request with a child is made, changed and deleted, and the child with it.
async fn life_of_a_family(home: &Home, ledger: &Ledger) {
    ledger.forget();
    let parts = home.of(&request("Part", "", ""));
    let done = |r: &Value| is(r, "Reconciled", "True");
    completed(home, "1").await;
    home.until(&requests(home), "a", done).await;
    let made = json!(parts.get("a-part").await.unwrap());
    completed(home, "2").await;
    let parent = home.until(&requests(home), "a", done).await;
    let part = json!(parts.get("a-part").await.unwrap());
    assert_eq!(part["metadata"]["uid"], made["metadata"]["uid"], "made once");
    assert_eq!(part["metadata"]["generation"], 2, "changed once");
    assert_eq!(part["spec"]["size"], "2");
    let owners = part["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0]["uid"], parent["metadata"]["uid"]);
    let recorded = parent["status"]["children"].as_array().unwrap();
    assert_eq!((recorded.len(), &recorded[0]["uid"]), (1, &part["metadata"]["uid"]));
    requests(home).delete("a", &Default::default()).await.unwrap();
    home.until_gone(&requests(home), "a").await;
    let runs = ["first 1", "main 1", "second 1", "first 2", "main 2", "second 2"];
    assert_eq!(ledger.lines(), runs);
    let all = home.kind("platform.kratix.io/v1alpha1", "Work", Some("default"));
    let left = parts.list(&ListParams::default()).await.unwrap().items.len()
        + all.list(&ListParams::default()).await.unwrap().items.len()
        + jobs(home, "default").await.len();
    assert_eq!(left, 0, "something is left of the family");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_whose_hub_dies_at_any_write_is_made_once() {
    let ledger = Ledger::default();
    let pipelines = [pipeline("first"), pipeline("second")];
    let (home, _) = offered(with_parts(&ledger), &pipelines, |_| {}).await;
    let part = promise("part", "Part", &[pipeline("main")]);
    home.apply(&part).await.unwrap();
    home.until(&home.of(&part), "part", |promise| is(promise, "Available", "True")).await;
    let deaths = at_each_write(&home, async |home| life_of_a_family(home, &ledger).await).await;
    println!("the hub died at each of {deaths} writes");
    assert!(deaths > 30, "it died {deaths} times: the test has tried too little");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_hub_dies_at_any_write_runs_each_pipeline_once() {
    let ledger = Ledger::default();
    let undo = |offer: &mut Value| {
        offer["spec"]["workflows"]["resource"]["delete"] = json!([pipeline("undo")]);
    };
    let pipelines = [pipeline("first"), pipeline("second")];
    let (home, _) = offered(recorded(&ledger), &pipelines, undo).await;
    let deaths = at_each_write(&home, async |home| life_of_a_request(home, &ledger).await).await;
    println!("the hub died at each of {deaths} writes");
    assert!(deaths > 20, "it died {deaths} times: the test has tried too little");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_whose_hub_dies_at_any_write_runs_each_pipeline_once() {
    let ledger = Ledger::default();
    let home = Home::open(recorded(&ledger)).await;
    let deaths = at_each_write(&home, async |home| life_of_a_promise(home, &ledger).await).await;
    println!("the hub died at each of {deaths} writes");
    assert!(deaths > 20, "it died {deaths} times: the test has tried too little");
}
