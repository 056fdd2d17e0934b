//! A reconcile that changes nothing writes nothing: controllers that find everything as it should be
//! look at all of it, and leave it alone.

#[path = "offers/home.rs"]
mod home;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use home::{Home, condition, eventually, files, pipeline, promise, request};
use http::{Method, Request};
use kube::{Client, client::Body};
use muster_plan::options::Options;
use serde_json::json;
use tower::ServiceBuilder;

/// How many requests there are.
const MANY: usize = 20;

/// What the controllers asked: who, how, and of what.
type Calls = Arc<Mutex<Vec<(String, Method, String)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_write_nothing_while_nothing_changes() {
    let home = Home::open(Arc::new(|_, _| Ok(files(&[("output/a.yaml", "a: 1\n")])))).await;
    let mut offer = promise("cache", "Cache", &[pipeline("render")]);
    offer["spec"]["dependencies"] = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "caches" } },
    ]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |it| condition(it, "Available").starts_with("True"))
        .await;
    let names: Vec<_> = (0..MANY).map(|n| format!("cache-{n}")).collect();
    for name in &names {
        home.apply(&request("Cache", name, "1")).await.unwrap();
    }
    let requests = home.of(&request("Cache", "any", "1"));
    for name in &names {
        let told = |it: &_| condition(it, "WorksSucceeded").starts_with("Unknown/WorksPending");
        home.until(&requests, name, told).await;
    }

    let calls = Calls::default();
    let (service, made) = (home.services(), Arc::clone(&calls));
    let client_for = Arc::new(move |name: &str| {
        let (who, made) = (name.to_owned(), Arc::clone(&made));
        let noted = move |asked: Request<Body>| {
            let call = (who.clone(), asked.method().clone(), asked.uri().path().to_owned());
            made.lock().unwrap().push(call);
            asked
        };
        let service = ServiceBuilder::new().map_request(noted).service(service(name));
        Client::new(service, "default")
    });
    home.replace_controllers(client_for, Options::default()).await;

    // Each is looked at, and then nobody asks for anything any more.
    let looked = |name: &String| {
        let of = format!("/caches/{name}");
        calls
            .lock()
            .unwrap()
            .iter()
            .any(|(_, how, path)| *how == Method::GET && path.ends_with(&of))
    };
    eventually(|| async { names.iter().all(looked).then_some(()) }).await.expect("all are seen");
    eventually(|| async {
        let before = calls.lock().unwrap().len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (calls.lock().unwrap().len() == before).then_some(())
    })
    .await
    .expect("they come to rest");
    let calls = calls.lock().unwrap();
    let writes = calls.iter().filter(|(_, how, _)| *how != Method::GET);
    // Each start takes a new epoch, which shows that writes are seen here.
    let (epoch, writes): (Vec<_>, Vec<_>) = writes.partition(|(who, ..)| who == "assign");
    assert!(!epoch.is_empty(), "no epoch was taken");
    assert!(writes.is_empty(), "written at rest: {writes:#?}");
}
