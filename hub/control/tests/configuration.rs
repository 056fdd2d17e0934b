//! The platform's configuration against the embedded API, in a time that the test moves on.

#[path = "offers/home.rs"]
mod home;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use home::{Home, condition, eventually, files, pipeline, promise, request};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use muster_control::{Control, ControlConfig, account_name};
use muster_daemon::Clock;
use muster_plan::options::Options;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// A hub whose pipelines tell for whom they ran, and fail for what is `bad`.
async fn open() -> (Home, Arc<Mutex<Vec<String>>>) {
    let ran: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = ran.clone();
    let home = Home::open(Arc::new(move |_, object| {
        told.lock().unwrap().push(object["metadata"]["name"].as_str().unwrap().to_owned());
        match object["spec"]["size"].as_str() {
            Some("bad") => Err("BackoffLimitExceeded: it cannot".to_owned()),
            _ => Ok(files(&[("output/a.yaml", "a: 1\n")])),
        }
    }))
    .await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    let available = |it: &Value| condition(it, "Available").starts_with("True");
    home.until(&home.of(&offer), "cache", available).await;
    (home, ran)
}

fn map(config: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kratix", "namespace": "kratix-platform-system" },
        "data": { "config": config },
    })
}

fn times(ran: &Mutex<Vec<String>>, name: &str) -> usize {
    ran.lock().unwrap().iter().filter(|ran| *ran == name).count()
}

/// Writes a configuration, and waits until it holds: until new Jobs have its backoff limit.
async fn configure(home: &Home, limit: i64, config: &str) {
    let config = format!(
        "{config}\nworkflows: {{reconcileAfterFailure: {}, jobOptions: {{defaultBackoffLimit: {limit}}}}}",
        limit % 2 == 0
    );
    home.apply(&map(&config)).await.unwrap();
    let jobs = home.kind("batch/v1", "Job", Some("default"));
    let mut tried = 0;
    eventually(|| {
        tried += 1;
        let (name, jobs) = (format!("probe-{limit}-{tried}"), jobs.clone());
        async move {
            finish(home, &name, "fine", "True").await;
            let selector = format!("kratix.io/resource-name={name}");
            let listed = jobs.list(&ListParams::default().labels(&selector)).await.unwrap();
            (listed.items[0].data["spec"]["backoffLimit"] == limit).then_some(())
        }
    })
    .await
    .expect("the configuration holds");
}

/// Makes a request, and waits until its pipeline has ended so.
async fn finish(home: &Home, name: &str, size: &str, so: &str) -> Value {
    let wanted = request("Cache", name, size);
    home.apply(&wanted).await.unwrap();
    let ended = |it: &Value| condition(it, "ConfigureWorkflowCompleted").starts_with(so);
    home.until(&home.of(&wanted), name, ended).await
}

async fn runs(ran: &Mutex<Vec<String>>, name: &str, wanted: usize) {
    let so = || async { (times(ran, name) == wanted).then_some(()) };
    assert!(eventually(so).await.is_some(), "{name} ran {} times", times(ran, name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_says_how_often_all_runs_again_and_whether_what_failed_does() {
    let (home, ran) = open().await;
    configure(&home, 3, "reconciliationInterval: 1h").await;
    finish(&home, "good", "fine", "True").await;
    finish(&home, "lame", "bad", "False/ConfigureWorkflowFailed").await;

    // An hour later what succeeded runs again, and what failed does not.
    home.clock.skip(HOUR);
    runs(&ran, "good", 2).await;
    finish(&home, "late", "fine", "True").await;
    assert_eq!(times(&ran, "lame"), 1);

    // Until the operator says that it shall.
    configure(&home, 4, "reconciliationInterval: 1h").await;
    runs(&ran, "lame", 2).await;

    // A longer interval holds for those, too, that ran before.
    configure(&home, 6, "reconciliationInterval: 5h").await;
    let before = times(&ran, "good");
    home.clock.skip(HOUR * 2);
    finish(&home, "later", "fine", "True").await;
    assert_eq!(times(&ran, "good"), before);
    home.clock.skip(HOUR * 3);
    runs(&ran, "good", before + 1).await;
}

/// Written by an older hub, or past its rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_got_in_wrong_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
    let client = Client::new(api.service(UserInfo::admin()), "default");
    for object in muster_control::manifests() {
        make(&client, &object).await;
    }
    make(&client, &map("numberOfJobsToKeep: none\n")).await;
    let users = api.clone();
    let control = Control::build(ControlConfig {
        client_for: Arc::new(move |name| {
            let user = UserInfo::service_account("kratix-platform-system", &account_name(name));
            Client::new(users.service(user), "default")
        }),
        stores_dir: dir.path().join("stores"),
        clock: Clock::default(),
        options: Options::default(),
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(control.run(shutdown.clone()));
    let events: Api<Event> = Api::namespaced(client, "kratix-platform-system");
    let told = eventually(|| async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.into_iter().find(|event| event.reason.as_deref() == Some("ConfigurationInvalid"))
    })
    .await
    .expect("it is told");
    assert_eq!(told.regarding.unwrap().name.as_deref(), Some("kratix"));
    let note = told.note.unwrap();
    assert!(note.starts_with("What held before holds on: data[config]: "), "{note}");
    shutdown.cancel();
    running.await.unwrap();
}

async fn make(client: &Client, object: &Value) {
    let (group, version) = {
        let text = object["apiVersion"].as_str().unwrap();
        text.split_once('/').unwrap_or(("", text))
    };
    let gvk = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
    let resource = ApiResource::from_gvk(&gvk);
    let all = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::<DynamicObject>::all_with(client.clone(), &resource),
    };
    let object = serde_json::from_value(object.clone()).unwrap();
    all.create(&PostParams::default(), &object).await.unwrap();
}
