//! A hub's API and controllers in this process, and a hand that plays the pipelines: for each Job it
//! makes the pod, hands over what the test says through the results door, and sets the Job's status.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use muster_apiserver::{
    AdmissionRequest, Admit, ApiServer, ApiService, Config, HeldTo, Named, Operation, Status,
    UserInfo,
};
use muster_control::{
    Admission, AdmissionView, ClientFor, Control, ControlConfig, RequestView, ResultCall, Results,
    account_name,
};
use muster_core::FileSet;
use muster_daemon::Clock;
use muster_plan::options::Options;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come. Never measured, only given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the pipeline of this name puts out, given its object; `Err`: its container fails, or, with
/// [`HOLD`], runs on.
pub(crate) type Play = Arc<dyn Fn(&str, &Value) -> Result<FileSet, String> + Send + Sync>;

/// Played: the container has not ended yet. It is asked again until it has, or its Job was stopped.
pub(crate) const HOLD: &str = "hold";

pub(crate) struct Home {
    dir: tempfile::TempDir,
    /// The last handle: with it the API server's own controllers end.
    api: ApiServer,
    pub(crate) client: Client,
    pub(crate) runs: Arc<Mutex<Vec<String>>>,
    results: Arc<Mutex<Arc<Results>>>,
    controllers: Mutex<Option<Controllers>>,
    shutdown: CancellationToken,
    /// The controllers' time.
    pub(crate) clock: Clock,
}

struct Rules(Arc<Admission>);

impl Admit for Rules {
    fn wants(&self, group: &str, resource: &str) -> bool {
        Admission::wants(group, resource)
    }

    fn admit<'a>(
        &'a self,
        request: &'a AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Status>> {
        Box::pin(async move {
            let operation = match request.operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
            };
            let view = AdmissionView {
                operation,
                user: &request.user.name,
                groups: &request.user.groups,
                group: &request.group,
                kind: &request.kind,
                resource: &request.resource,
                subresource: &request.subresource,
                object: request.object.as_ref(),
                old: request.old_object.as_ref(),
                dry_run: request.dry_run,
            };
            self.0.review(view).await.map_err(|refusal| Status::forbidden(refusal.message))
        })
    }

    fn governs(&self, annotations: &BTreeMap<String, String>) -> bool {
        Admission::governs(annotations)
    }

    fn schema<'a>(&'a self, object: &'a Named) -> BoxFuture<'a, Result<Option<HeldTo>, Status>> {
        let Named { definition, version, namespace, name } = object;
        let view = RequestView { definition, version, namespace, name };
        Box::pin(async move {
            let held = self.0.request_schema(view).await;
            let held = held.map_err(|refusal| Status::forbidden(refusal.message))?;
            Ok(held.map(|held| HeldTo { key: held.mark, schema: held.schema }))
        })
    }
}

impl Home {
    pub(crate) async fn open(play: Play) -> Home {
        Self::open_with(play, Options::default()).await
    }

    pub(crate) async fn open_with(play: Play, options: Options) -> Home {
        let dir = tempfile::tempdir().unwrap();
        let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
        let client = Client::new(api.service(UserInfo::admin()), "default");
        for object in muster_control::manifests() {
            create(&client, &object).await.unwrap();
        }
        let (clients, clock) = (api.clone(), Clock::default());
        let control = Control::build(ControlConfig {
            client_for: Arc::new(move |name| {
                Client::new(clients.service(controller(name)), "default")
            }),
            stores_dir: dir.path().join("stores"),
            clock: clock.clone(),
            options,
        });
        api.admit(Arc::new(Rules(control.admission())));
        let shutdown = CancellationToken::new();
        let runs = Arc::default();
        let results = Arc::new(Mutex::new(control.results()));
        let hand = Hand {
            client: client.clone(),
            results: Arc::clone(&results),
            play,
            runs: Arc::clone(&runs),
        };
        let controllers = Mutex::new(Some(Controllers::of(control)));
        tokio::spawn(hand.work(shutdown.clone()));
        Home { dir, api, client, runs, results, controllers, shutdown, clock }
    }

    /// Ends the controllers and puts others, with clients that `client_for` makes, in their place;
    /// the API and the pipelines' containers stay.
    pub(crate) async fn replace_controllers(&self, client_for: ClientFor, options: Options) {
        let old = self.controllers.lock().unwrap().take();
        if let Some(Controllers { shutdown, ended }) = old {
            shutdown.cancel();
            ended.await.unwrap();
        }
        let stores_dir = self.dir.path().join("stores");
        let config = ControlConfig { client_for, stores_dir, clock: self.clock.clone(), options };
        let control = Control::build(config);
        *self.results.lock().unwrap() = control.results();
        *self.controllers.lock().unwrap() = Some(Controllers::of(control));
    }

    /// Makes the clients of controllers that nothing happens to.
    pub(crate) fn healthy(&self) -> ClientFor {
        let api = self.api.clone();
        Arc::new(move |name| Client::new(api.service(controller(name)), "default"))
    }

    /// The API as each controller is served.
    pub(crate) fn services(&self) -> impl Fn(&str) -> ApiService + Send + Sync + use<> {
        let api = self.api.clone();
        move |name| api.service(controller(name))
    }

    /// Sets a label, or takes it away.
    pub(crate) async fn label(&self, api: &Api<DynamicObject>, name: &str, key: &str, to: Value) {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { key: to } } }));
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        self.of(object).patch(name, &params, &Patch::Apply(object)).await
    }

    pub(crate) fn of(&self, object: &Value) -> Api<DynamicObject> {
        let kind = object["kind"].as_str().unwrap();
        let namespace = object["metadata"]["namespace"].as_str();
        self.kind(object["apiVersion"].as_str().unwrap(), kind, namespace)
    }

    /// As [`Home::of`], as somebody else.
    pub(crate) fn of_as(&self, user: UserInfo, object: &Value) -> Api<DynamicObject> {
        let client = Client::new(self.api.service(user), "default");
        let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let namespace = object["metadata"]["namespace"].as_str();
        api_of(&client, version.unwrap(), kind.unwrap(), namespace)
    }

    pub(crate) fn kind(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        api_of(&self.client, api_version, kind, namespace)
    }

    /// Waits until an object is as it must be; fails with what it is instead.
    pub(crate) async fn until(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = json!(api.get_opt(name).await.unwrap());
            if so(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "{name} is still {seen:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until_gone(&self, api: &Api<DynamicObject>, name: &str) {
        self.until(api, name, Value::is_null).await;
    }

    pub(crate) fn runs(&self) -> Vec<String> {
        self.runs.lock().unwrap().clone()
    }
}

/// Controllers that run.
struct Controllers {
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
}

impl Controllers {
    fn of(control: Control) -> Self {
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(control.run(shutdown.clone()));
        Self { shutdown, ended }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(controllers) = self.controllers.lock().unwrap().take() {
            controllers.shutdown.cancel();
        }
        self.shutdown.cancel();
    }
}

/// Asks again until there is an answer; gives up after [`PATIENCE`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    mut ask: impl FnMut() -> F,
) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// The message of a condition, as `STATUS/REASON: MESSAGE`.
pub(crate) fn condition(object: &Value, kind: &str) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    let text = |key: &str| found.map_or("", |found| found[key].as_str().unwrap_or_default());
    format!("{}/{}: {}", text("status"), text("reason"), text("message"))
}

pub(crate) fn files(files: &[(&str, &str)]) -> FileSet {
    let mut set = FileSet::new();
    for (path, text) in files {
        set.insert(path, text.as_bytes().to_vec()).unwrap();
    }
    set
}

fn controller(name: &str) -> UserInfo {
    UserInfo::service_account("kratix-platform-system", &account_name(name))
}

fn api_of(
    client: &Client,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn create(client: &Client, object: &Value) -> kube::Result<()> {
    let namespace = object["metadata"]["namespace"].as_str();
    let (version, kind) =
        (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let api = api_of(client, version, kind, namespace);
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// Plays the pipelines.
struct Hand {
    client: Client,
    results: Arc<Mutex<Arc<Results>>>,
    play: Play,
    runs: Arc<Mutex<Vec<String>>>,
}

impl Hand {
    async fn work(self, shutdown: CancellationToken) {
        let jobs: Api<Job> = Api::all(self.client.clone());
        let seen = watcher(jobs, watcher::Config::default()).default_backoff().applied_objects();
        let mut seen = Box::pin(seen.take_until(shutdown.cancelled_owned()));
        let this = Arc::new(self);
        let mut done = std::collections::BTreeSet::new();
        while let Some(Ok(job)) = seen.next().await {
            let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
            if !suspended && done.insert(job.uid()) {
                let this = Arc::clone(&this);
                tokio::spawn(async move { this.run(job).await });
            }
        }
    }

    async fn run(&self, job: Job) {
        let pipeline = job.labels()["kratix.io/pipeline-name"].clone();
        self.runs.lock().unwrap().push(pipeline.clone());
        let annotation =
            |key: &str| job.annotations()[&format!("kratix.io/job-resource-{key}")].clone();
        let namespace = annotation("namespace");
        let objects = api_of(
            &self.client,
            &annotation("api-version"),
            &annotation("kind"),
            (!namespace.is_empty()).then_some(namespace.as_str()),
        );
        let (jobs, name) = (
            Api::<Job>::namespaced(self.client.clone(), &job.namespace().unwrap()),
            job.name_any(),
        );
        let object = json!(objects.get(&annotation("name")).await.unwrap());
        let outcome = loop {
            match (self.play)(&pipeline, &object) {
                Ok(files) => break self.hand_over(&job, &files).await,
                Err(cause) if cause == HOLD => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let held = jobs.get_opt(&name).await.unwrap();
                    if held.is_none_or(|job| job.spec.unwrap().suspend == Some(true)) {
                        return;
                    }
                }
                Err(cause) => break Err(cause),
            }
        };
        let condition = match outcome {
            Ok(()) => json!({ "type": "Complete", "status": "True" }),
            Err(cause) if cause.starts_with("refused: ") => return,
            // The container failed, and the Job tries again.
            Err(cause) if cause.starts_with("exit ") => {
                self.make_failing_pod(&job, cause.trim_start_matches("exit ")).await;
                return;
            }
            Err(cause) => {
                let (reason, message) =
                    cause.split_once(": ").unwrap_or(("BackoffLimitExceeded", &cause));
                json!({ "type": "Failed", "status": "True", "reason": reason, "message": message })
            }
        };
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut status = json!({ "startTime": now, "completionTime": now });
        if condition["type"] == "Complete" {
            let met = json!({ "type": "SuccessCriteriaMet", "status": "True" });
            status["conditions"] = json!([met, condition]);
            status["succeeded"] = json!(1);
        } else {
            let met = json!({ "type": "FailureTarget", "status": "True" });
            status = json!({ "startTime": now, "failed": 1, "conditions": [met, condition] });
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let patched = jobs.patch_status(&name, &PatchParams::default(), &patch).await;
        if let Err(error) = patched {
            eprintln!("the hand could not end Job {name}: {error}");
        }
    }

    /// A pod whose first container ended twice, with this code and these words (`CODE: WORDS`).
    async fn make_failing_pod(&self, job: &Job, how: &str) {
        let (code, words) = how.split_once(": ").unwrap();
        let pod = self.make_pod(job).await.unwrap();
        let ended = json!({ "terminated": {
            "exitCode": code.parse::<i32>().unwrap(), "reason": "Error", "message": words,
        } });
        let status = json!({ "phase": "Pending", "initContainerStatuses": [{
            "name": "render", "image": "", "imageID": "", "ready": false,
            "restartCount": 1, "state": ended,
        }] });
        let pods = api_of(&self.client, "v1", "Pod", job.namespace().as_deref());
        let patch = Patch::Merge(json!({ "status": status }));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }

    async fn make_pod(&self, job: &Job) -> kube::Result<DynamicObject> {
        let (namespace, name) = (job.namespace().unwrap(), job.name_any());
        let mut labels = job.labels().clone();
        labels.insert("job-name".to_owned(), name.clone());
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{name}-hand"), "namespace": namespace, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": name,
                    "uid": job.uid(), "controller": true,
                }],
            },
            "spec": job.spec.as_ref().unwrap().template.spec,
        });
        let pods = api_of(&self.client, "v1", "Pod", Some(&namespace));
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await
    }

    async fn hand_over(&self, job: &Job, files: &FileSet) -> Result<(), String> {
        let (namespace, name) = (job.namespace().unwrap(), job.name_any());
        let pod = self.make_pod(job).await.map_err(|error| error.to_string())?;
        let configure = job.labels()["kratix.io/workflow-action"] == "configure";
        for part in ["output", "status"].into_iter().filter(|part| configure || *part == "status") {
            let call = ResultCall {
                pod_name: pod.name_any(),
                pod_uid: pod.uid().unwrap(),
                namespace: namespace.clone(),
                job: name.clone(),
                part: part.to_owned(),
                body: Bytes::from(zstd::bulk::compress(&files.encode(), 3).unwrap()),
            };
            // A hub that is away is asked again: the container that hands over is started again.
            let end = Instant::now() + PATIENCE;
            loop {
                let results = Arc::clone(&self.results.lock().unwrap());
                match results.handle(call.clone()).await {
                    Ok(()) => break,
                    Err(refusal) if refusal.code == 503 && Instant::now() < end => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(refusal) => return Err(format!("refused: {}", refusal.message)),
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline",
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "render", "image": "example.org/render:1" }] },
    })
}

pub(crate) fn promise(name: &str, kind: &str, resource: &[Value]) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let schema = json!({ "type": "object", "properties": { "spec": {
        "type": "object", "properties": { "size": { "type": "string" } },
    } } });
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Promise",
        "metadata": { "name": name },
        "spec": {
            "api": {
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": format!("{plural}.ex.io") },
                "spec": {
                    "group": "ex.io", "scope": "Namespaced",
                    "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                    "versions": [{
                        "name": "v1", "served": true, "storage": true,
                        "schema": { "openAPIV3Schema": schema },
                    }],
                },
            },
            "workflows": { "resource": { "configure": resource } },
        },
    })
}

pub(crate) fn request(kind: &str, name: &str, size: &str) -> Value {
    json!({
        "apiVersion": "ex.io/v1", "kind": kind,
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "size": size },
    })
}

/// The Works in a namespace, by pipeline.
pub(crate) async fn works(home: &Home, namespace: &str) -> BTreeMap<String, Value> {
    let api = home.kind("platform.kratix.io/v1alpha1", "Work", Some(namespace));
    let listed = api.list(&kube::api::ListParams::default()).await.unwrap();
    let pipeline = |work: &DynamicObject| {
        work.labels().get("kratix.io/pipeline-name").cloned().unwrap_or_default()
    };
    listed.items.into_iter().map(|work| (pipeline(&work), json!(work))).collect()
}
