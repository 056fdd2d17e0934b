//! The workflow engine, from the API to the Jobs and back: each behaviour as one scenario. Hours pass
//! at once.

#[path = "workflow/crashes.rs"]
mod crashes;
#[path = "workflow/deletion.rs"]
mod deletion;
#[path = "offers/home.rs"]
mod home;
#[path = "workflow/order.rs"]
mod order;
#[path = "workflow/rerun.rs"]
mod rerun;
#[path = "workflow/wait.rs"]
mod wait;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use home::{Home, Play, condition, eventually, files, promise, request};
use kube::{Api, api::ListParams, core::DynamicObject};
use muster_core::FileSet;
use muster_plan::options::Options;
use serde_json::{Value, json};

/// The kind of the requests.
const KIND: &str = "Cache";
const COMPLETED: &str = "ConfigureWorkflowCompleted";
const SUSPENDED: &str = "kratix.io/workflow-suspended";
const MANUAL: &str = "kratix.io/manual-reconciliation";
const PAUSED: &str = "kratix.io/paused";

/// Whether a condition begins so: `STATUS/REASON: MESSAGE`.
fn is(object: &Value, kind: &str, text: &str) -> bool {
    condition(object, kind).starts_with(text)
}

/// A home with the Promise `cache` installed: these pipelines run for its requests, and what `change`
/// makes of it.
async fn offered(play: Play, pipelines: &[Value], change: impl Fn(&mut Value)) -> (Home, Value) {
    offered_with(play, pipelines, change, Options::default()).await
}

async fn offered_with(
    play: Play,
    pipelines: &[Value],
    change: impl Fn(&mut Value),
    options: Options,
) -> (Home, Value) {
    let home = Home::open_with(play, options).await;
    let mut offer = promise("cache", KIND, pipelines);
    change(&mut offer);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    (home, offer)
}

/// The API of the requests in `default`.
fn requests(home: &Home) -> Api<DynamicObject> {
    home.of(&request(KIND, "a", "1"))
}

/// Creates or changes the request `a`, and waits until its workflow is complete for it.
async fn completed(home: &Home, size: &str) -> Value {
    let applied = home.apply(&request(KIND, "a", size)).await.unwrap();
    let generation = json!(applied.metadata.generation);
    home.until(&requests(home), "a", |request| {
        request["status"]["observedGeneration"] == generation && is(request, COMPLETED, "True")
    })
    .await
}

/// Waits until so many pipelines have been run.
async fn ran(home: &Home, count: usize) {
    let reached = eventually(|| async { (home.runs().len() == count).then_some(()) }).await;
    assert!(reached.is_some(), "{:?}", home.runs());
}

/// Lets what was triggered before be looked at: a request that is paused comes and goes.
async fn settled(home: &Home) {
    let mut other = request(KIND, "settled", "1");
    other["metadata"]["labels"] = json!({ PAUSED: "true" });
    let api = home.of(&other);
    home.apply(&other).await.unwrap();
    home.until(&api, "settled", |it| is(it, "Reconciled", "Unknown/PausedReconciliation")).await;
    api.delete("settled", &Default::default()).await.unwrap();
    home.until_gone(&api, "settled").await;
}

/// The Jobs in a namespace, the oldest first; those of one second by name.
async fn jobs(home: &Home, namespace: &str) -> Vec<DynamicObject> {
    let api = home.kind("batch/v1", "Job", Some(namespace));
    api.list(&ListParams::default()).await.unwrap().items
}

/// The reasons and notes of the events about an object.
async fn events(home: &Home, namespace: &str, name: &str) -> Vec<(String, String)> {
    let api = home.kind("events.k8s.io/v1", "Event", Some(namespace));
    let listed = api.list(&ListParams::default()).await.unwrap().items;
    let about = listed.iter().filter(|event| event.data["regarding"]["name"] == name);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    about.map(|event| (text(&event.data["reason"]), text(&event.data["note"]))).collect()
}

/// What status says of the pipelines, in the layout without actions.
fn phases(object: &Value) -> Vec<&str> {
    let entries = object.pointer("/status/kratix/workflows/pipelines").and_then(Value::as_array);
    entries.into_iter().flatten().map(|entry| entry["phase"].as_str().unwrap()).collect()
}

/// A file that names the pipeline and the request's size.
fn rendered(pipeline: &str, object: &Value) -> FileSet {
    let size = object["spec"]["size"].as_str().unwrap_or_default();
    files(&[(&format!("output/{pipeline}.yaml"), &format!("size: {size}\n"))])
}

/// Every pipeline puts out a file with its name and the request's size.
fn renders() -> Play {
    Arc::new(|pipeline, object| Ok(rendered(pipeline, object)))
}

/// A switch that a test turns while pipelines run.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn on(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn off(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What pipelines have seen, in order.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<String>>>);

impl Ledger {
    fn enter(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
