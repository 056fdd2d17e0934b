//! A small hub: the embedded API, the runner, and a results endpoint that keeps what it is sent.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use muster_apiserver::{ApiServer, Config, Mounted, POD_NAME, UserInfo};
use muster_core::FileSet;
use muster_runner::{ApiAccess, Executor, ExecutorKind, Logs, Runner, RunnerConfig};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// What nobody should ever have to wait longer for; only a failing test does.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run_all(tests: &[Test], filter: &[String]) -> usize {
    let mut failed = 0;
    for (name, test) in tests {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let outcome = std::panic::AssertUnwindSafe(test()).catch_unwind().await;
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(outcome.is_err());
    }
    failed
}

/// What pipelines handed over: path of the request, name of the pod, files.
#[derive(Default)]
pub(crate) struct Results(pub(crate) Mutex<Vec<(String, String, FileSet)>>);

impl Mounted for Results {
    fn body_bytes_max(&self) -> usize {
        40 << 20
    }

    fn serve(
        &self,
        user: UserInfo,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response<Bytes>> {
        let body = zstd::stream::decode_all(&request.body()[..]).unwrap();
        let files = FileSet::decode(&body).unwrap();
        let pod = user.extra.get(POD_NAME).and_then(|names| names.first().cloned());
        let path = request.uri().path().to_owned();
        self.0.lock().unwrap().push((path, pod.unwrap_or_default(), files));
        async { Response::new(Bytes::new()) }.boxed()
    }
}

pub(crate) struct Rig {
    pub(crate) client: Client,
    /// The API for whoever shows a token.
    pub(crate) door: Client,
    pub(crate) logs: Logs,
    pub(crate) results: Arc<Results>,
    pub(crate) data_dir: PathBuf,
    shutdown: CancellationToken,
    runner: Option<JoinHandle<()>>,
    _server: ApiServer,
    dir: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Self::open(dir.path(), ExecutorKind::Process).await;
        rig.dir = Some(dir);
        rig
    }

    pub(crate) async fn open(dir: &Path, kind: ExecutorKind) -> Self {
        let server = ApiServer::open(Config::new(dir.join("api"))).await.unwrap();
        let results = Arc::new(Results::default());
        server.mount("/muster/results", results.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = server.clone();
        let until = shutdown.clone();
        tokio::spawn(async move { serving.serve(listener, until).await });
        let in_pods = server.clone();
        let serve_api = move |listener: std::net::TcpListener, over: CancellationToken| {
            let server = in_pods.clone();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::spawn(async move { server.serve(listener, over).await });
        };
        let door = Client::new(server.door(), "default");
        let api = ApiAccess { address, door: door.clone(), ca_pem: server.ca_pem().to_owned() };
        let exe = std::env::current_exe().unwrap();
        let mut config = RunnerConfig::new(dir.join("data"), exe, api, Arc::new(serve_api));
        config.restart_backoff = Duration::from_millis(50);
        let client = Client::new(server.service(UserInfo::admin()), "default");
        let executor = Executor::probe(kind, &config).await.unwrap();
        let data_dir = config.data_dir.clone();
        let runner = Runner::new(client.clone(), executor, config);
        let logs = runner.logs();
        let until = shutdown.clone();
        let runner = tokio::spawn(async move { runner.run(until).await.unwrap() });
        Self {
            client,
            door,
            logs,
            results,
            data_dir,
            shutdown,
            runner: Some(runner),
            _server: server,
            dir: None,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        self.runner.take().unwrap().await.unwrap();
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&Default::default(), &object).await.unwrap()
    }

    pub(crate) async fn config_map(&self, object: Value) {
        self.create::<ConfigMap>(object).await;
    }

    pub(crate) async fn service_account(&self, name: &str) {
        let api = self.api::<ServiceAccount>();
        if api.get_opt(name).await.unwrap().is_none() {
            self.create::<ServiceAccount>(serde_json::json!({"metadata": {"name": name}})).await;
        }
    }

    /// Waits until `seen` says yes of the Job.
    pub(crate) async fn job(&self, name: &str, seen: impl Fn(&Job) -> bool) -> Job {
        self.until(async || self.api::<Job>().get(name).await.ok().filter(|job| seen(job))).await
    }

    /// Waits until the Job is over; the condition that says how, and its reason and message.
    pub(crate) async fn over(&self, name: &str) -> (String, String, String) {
        let ended = |job: &Job| {
            let conditions = job.status.as_ref()?.conditions.as_ref()?;
            let end = conditions.iter().find(|c| c.type_ == "Complete" || c.type_ == "Failed")?;
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            Some((end.type_.clone(), text(&end.reason), text(&end.message)))
        };
        ended(&self.job(name, |job| ended(job).is_some()).await).unwrap()
    }

    pub(crate) async fn pods(&self, job: &str) -> Vec<Pod> {
        let label = format!("batch.kubernetes.io/job-name={job}");
        let mut pods =
            self.api::<Pod>().list(&ListParams::default().labels(&label)).await.unwrap().items;
        pods.sort_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
        pods
    }

    pub(crate) async fn pod(&self, job: &str, seen: impl Fn(&Pod) -> bool) -> Pod {
        self.until(async || self.pods(job).await.into_iter().find(|pod| seen(pod))).await
    }

    pub(crate) async fn until<T>(&self, look: impl AsyncFn() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("it never happened")
    }

    pub(crate) async fn log(&self, pod: &Pod, container: &str) -> String {
        use futures::TryStreamExt;
        let stream = self.logs.open(&pod.uid().unwrap(), container, Default::default()).unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }
}

/// This executable as a hub of its own, to be killed; prints a line when it is ready.
pub(crate) async fn serve_as_hub(dir: PathBuf) -> ExitCode {
    let kind = match std::env::var("MUSTER_TEST_EXECUTOR").as_deref() {
        Ok("podman") => ExecutorKind::Podman,
        _ => ExecutorKind::Process,
    };
    let rig = Rig::open(&dir, kind).await;
    let path = dir.join("job.json");
    if let Ok(text) = std::fs::read_to_string(path) {
        rig.service_account("default").await;
        let job = serde_json::from_str::<Value>(&text).unwrap();
        let name = job["metadata"]["name"].as_str().unwrap();
        if rig.api::<Job>().get_opt(name).await.unwrap().is_none() {
            rig.create::<Job>(job).await;
        }
    }
    println!("ready");
    std::future::pending().await
}
