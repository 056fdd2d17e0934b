//! Runs one pod from its first volume to its last container: what a kubelet does.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{BoxFuture, join_all, try_join},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::{OnceCell, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    env::ReferenceError,
    launch,
    status::{self, PodEnd},
    volumes::{self, References},
};
use crate::{
    config::{POD_API_PORT, RESTART_BACKOFF_MAX},
    executor::{OpenPod, run_adapter},
    launch::{ContainerLaunch, Exit, LaunchError, PodLaunch},
    logs::LogOptions,
    node::Node,
    slots::Slot,
};

/// The reason of a pod whose image cannot be run here; its Job fails with the same reason at once.
pub(crate) const IMAGE_NOT_RUNNABLE: &str = "ImageNotRunnable";
/// How often the size of a pod's volumes is looked at.
const STORAGE_CHECK: Duration = Duration::from_secs(1);
/// What the volumes of a pod may hold if its containers name no limit.
const STORAGE_BYTES: u64 = 1 << 30;
/// The first wait for an object that a pod refers to and that is not there yet; it doubles.
const REFERENCE_WAIT: Duration = Duration::from_millis(500);
/// How much of a failed container's log its status repeats (the kubelet's 2048 bytes, 80 lines).
const MESSAGE_BYTES: usize = 2048;
const MESSAGE_LINES: usize = 80;

/// Ends a pod early, and says why. The first reason counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) token: CancellationToken,
    why: Arc<OnceLock<(String, String)>>,
}

impl Stop {
    pub(crate) fn because(&self, reason: &str, message: String) {
        let _ = self.why.set((reason.to_owned(), message));
        self.token.cancel();
    }

    fn end(&self) -> PodEnd {
        let (reason, message) = self.why.get().cloned().unzip();
        PodEnd::Failed { reason, message }
    }
}

/// How long a pod may run, and how often its containers may fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) deadline: Duration,
    /// Failures of its containers that are followed by another try; none unless `OnFailure`.
    pub(crate) restarts: i32,
}

/// Runs `pod` to its end. Whatever happens, nothing of it is left running.
pub(crate) async fn run(
    node: &Node,
    (pod, slot): (&Pod, Slot),
    stop: &Stop,
    budget: Budget,
) -> PodEnd {
    let uid = pod.uid().unwrap_or_default();
    let dir = node.config.data_dir.join("pods").join(&uid);
    let publisher = Publisher::start(node.client.clone(), pod);
    let attempt = Attempt {
        node,
        pod,
        stop,
        publisher: &publisher,
        restarts_left: Mutex::new(budget.restarts),
        deadline: budget.deadline,
        volumes_dir: dir.join("volumes"),
    };
    let end = attempt.within_limits().await;
    // Nothing of it runs any more: the next may begin while this one's end is written.
    drop(slot);
    publisher.update(|status| status::ended(status, &end, Timestamp::now()));
    let ((), removed) = tokio::join!(publisher.finish(), node.executor.remove_dir(&dir));
    if let Err(error) = removed {
        tracing::warn!(pod = pod.name_any(), %error, "a pod's directory stays behind");
    }
    end
}

struct Attempt<'a> {
    node: &'a Node,
    pod: &'a Pod,
    stop: &'a Stop,
    publisher: &'a Publisher,
    restarts_left: Mutex<i32>,
    deadline: Duration,
    volumes_dir: PathBuf,
}

/// What a pod's containers share while it runs.
struct Shared {
    launch: PodLaunch,
    /// Made while the first containers run, if they are the hub's own and need none.
    open: OnceCell<OpenPod>,
    volumes: BTreeMap<String, PathBuf>,
    references: References,
    base_env: BTreeMap<String, String>,
}

impl Attempt<'_> {
    /// Runs within time and space.
    async fn within_limits(&self) -> PodEnd {
        let running = async {
            let ended = self.containers().await;
            if self.stop.token.is_cancelled() { self.stop.end() } else { ended }
        };
        tokio::select! {
            end = running => end,
            never = self.watch_limits() => match never {},
        }
    }

    async fn watch_limits(&self) -> Infallible {
        let deadline = tokio::time::sleep(self.deadline);
        tokio::pin!(deadline);
        let limit = storage_limit(self.pod);
        loop {
            tokio::select! {
                () = &mut deadline => {
                    let message = "Pod was active on the node longer than the specified deadline";
                    self.stop.because("DeadlineExceeded", message.to_owned());
                    return std::future::pending().await;
                }
                () = tokio::time::sleep(STORAGE_CHECK) => {}
            }
            let dir = self.volumes_dir.clone();
            let used = tokio::task::spawn_blocking(move || bytes_below(&dir)).await.unwrap_or(0);
            if used > limit {
                self.stop.because(
                    "Evicted",
                    format!(
                        "Pod ephemeral local storage usage exceeds the total limit of containers \
                     {limit} bytes: its volumes hold {used} bytes"
                    ),
                );
            }
        }
    }

    async fn containers(&self) -> PodEnd {
        let Some(spec) = self.pod.spec.as_ref() else { return self.stop.end() };
        let shared = match self.share(spec).await {
            Ok(shared) => shared,
            Err(end) => return end,
        };
        let opening = self.open(&shared).map_err(|error| {
            let reason = Some("CreatePodSandboxError".to_owned());
            PodEnd::Failed { reason, message: Some(error.to_string()) }
        });
        let initializing = async {
            for container in spec.init_containers.iter().flatten() {
                self.until_success(spec, container, &shared).await?;
            }
            Ok(())
        };
        if let Err(end) = try_join(opening, initializing).await {
            return end;
        }
        self.publisher.change(|status| status::initialized(status, Timestamp::now()));
        let all = spec.containers.iter().map(|c| self.until_success(spec, c, &shared));
        let ends = join_all(all).await;
        ends.into_iter().find_map(Result::err).unwrap_or(PodEnd::Succeeded)
    }

    async fn share(&self, spec: &PodSpec) -> Result<Shared, PodEnd> {
        let namespace = self.pod.namespace().unwrap_or_default();
        let references = References {
            client: self.node.client.clone(),
            namespace: namespace.clone(),
            ca_pem: self.node.config.api.ca_pem.clone(),
            deadline: i64::try_from(self.deadline.as_secs()).unwrap_or(i64::MAX / 2),
        };
        let volumes = self
            .when_there("ContainerCreating", spec, || {
                volumes::make(self.pod, &self.volumes_dir, &references).boxed()
            })
            .await?;
        let name = self.pod.name_any();
        let hostname = spec.hostname.clone().unwrap_or_else(|| name.chars().take(63).collect());
        let uid = self.pod.uid().unwrap_or_default();
        let launch = PodLaunch { uid, hostname: hostname.clone() };
        let api = &self.node.config.api.address;
        let (host, port) = if self.node.config.pipeline_network {
            (api.ip().to_string(), api.port())
        } else {
            ("127.0.0.1".to_owned(), POD_API_PORT)
        };
        let base_env = [
            ("HOSTNAME", hostname),
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port.to_string()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        ];
        let base_env = base_env.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Shared { launch, open: OnceCell::new(), volumes, references, base_env })
    }

    /// What the pod's containers share; whoever comes first makes it.
    async fn open<'s>(&self, shared: &'s Shared) -> Result<&'s OpenPod, LaunchError> {
        shared.open.get_or_try_init(|| self.node.executor.open_pod(&shared.launch)).await
    }

    /// Repeats `make` until the objects it needs are there, as a kubelet does.
    async fn when_there<'f, T>(
        &self,
        reason: &str,
        spec: &PodSpec,
        make: impl Fn() -> BoxFuture<'f, Result<T, ReferenceError>>,
    ) -> Result<T, PodEnd> {
        let mut wait = REFERENCE_WAIT;
        loop {
            let error = match make().await {
                Ok(made) => return Ok(made),
                Err(error) => error.to_string(),
            };
            self.node.events.warn(self.pod, "FailedMount", &error);
            if let Some(first) = super::containers(spec).next() {
                let state = status::waiting(reason, Some(error));
                self.publisher.update(|status| status::set_state(status, &first.name, state));
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.token.cancelled() => return Err(self.stop.end()),
            }
            wait = (wait * 2).min(RESTART_BACKOFF_MAX);
        }
    }

    /// Runs a container, again and again if the pod says so.
    async fn until_success(
        &self,
        spec: &PodSpec,
        container: &Container,
        shared: &Shared,
    ) -> Result<(), PodEnd> {
        let mut launch = self
            .when_there("CreateContainerConfigError", spec, || {
                let (volumes, env) = (&shared.volumes, shared.base_env.clone());
                launch::container(self.pod, container, volumes, &shared.references, env).boxed()
            })
            .await?;
        if launch.image != self.node.config.adapter_image {
            let said = self.node.executor.describe(&launch);
            self.publisher.change(|status| status.message = Some(said));
        }
        let mut wait = self.node.config.restart_backoff;
        loop {
            let started = Timestamp::now();
            let result = self.once(&launch, shared).await;
            let Some(words) = self.record(&launch, result, started).await? else { return Ok(()) };
            if self.stop.token.is_cancelled() {
                return Err(self.stop.end());
            }
            self.take_restart(words)?;
            let message = format!("back-off {}s restarting failed container", wait.as_secs());
            let state = status::waiting("CrashLoopBackOff", Some(message));
            self.publisher.update(|status| status::set_state(status, &launch.name, state));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.token.cancelled() => return Err(self.stop.end()),
            }
            wait = (wait * 2).min(RESTART_BACKOFF_MAX);
            launch.restart += 1;
        }
    }

    /// One more try, or the end with the words of the last failure.
    fn take_restart(&self, words: String) -> Result<(), PodEnd> {
        let mut left = self.restarts_left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left <= 0 {
            return Err(PodEnd::Failed { reason: None, message: Some(words) });
        }
        *left -= 1;
        Ok(())
    }

    async fn once(&self, launch: &ContainerLaunch, shared: &Shared) -> Result<Exit, LaunchError> {
        let uid = self.pod.uid().unwrap_or_default();
        let log = self
            .node
            .logs
            .create(&uid, &launch.name, launch.restart)
            .map_err(|error| LaunchError::failed("cannot open the container's log", &error))?;
        let running = |status: &mut PodStatus| {
            status::set_state(status, &launch.name, status::running(Timestamp::now()));
        };
        let stop = &self.stop.token;
        if launch.image == self.node.config.adapter_image {
            let mut own = launch.clone();
            let labels = self.pod.labels();
            if let Some(job) = labels.get("batch.kubernetes.io/job-name") {
                own.env.insert(crate::adapter::JOB_VARIABLE.to_owned(), job.clone());
            }
            let door = self.node.config.api.door.clone();
            // It is over in a moment, which is told with what follows.
            return run_adapter(door, &own, log, stop, || self.publisher.change(running)).await;
        }
        self.open(shared).await?.run(launch, log, stop, || self.publisher.update(running)).await
    }

    /// Writes how a run ended; `None` if it ended well, else why not.
    async fn record(
        &self,
        launch: &ContainerLaunch,
        result: Result<Exit, LaunchError>,
        started: Timestamp,
    ) -> Result<Option<String>, PodEnd> {
        let times = (started, Timestamp::now());
        let (state, words) = match result {
            Ok(Exit { code: 0, .. }) => (status::terminated(0, "Completed", None, times), None),
            Ok(exit) => {
                let reason = if exit.out_of_memory { "OOMKilled" } else { "Error" };
                let said = self.last_words(launch).await;
                let words = status::words(&launch.name, exit.code, said.as_deref());
                (status::terminated(exit.code, reason, said, times), Some(words))
            }
            Err(error @ LaunchError::ImageNotRunnable { .. }) => {
                let message = error.to_string();
                self.node.events.warn(self.pod, IMAGE_NOT_RUNNABLE, &message);
                let state = status::waiting(IMAGE_NOT_RUNNABLE, Some(message.clone()));
                self.publisher.change(|status| status::set_state(status, &launch.name, state));
                let reason = Some(IMAGE_NOT_RUNNABLE.to_owned());
                return Err(PodEnd::Failed { reason, message: Some(message) });
            }
            Err(error) => {
                let message = error.to_string();
                self.node.events.warn(self.pod, "Failed", &message);
                let words = format!("container {} did not start: {message}", launch.name);
                (status::terminated(128, "StartError", Some(message), times), Some(words))
            }
        };
        self.publisher.change(|status| status::set_state(status, &launch.name, state));
        Ok(words)
    }

    async fn last_words(&self, launch: &ContainerLaunch) -> Option<String> {
        let options = LogOptions { tail_lines: Some(MESSAGE_LINES), ..LogOptions::default() };
        let uid = self.pod.uid()?;
        let mut log = Box::pin(self.node.logs.open(&uid, &launch.name, options).ok()?);
        let mut text = Vec::new();
        while let Some(Ok(chunk)) = log.next().await {
            text.extend_from_slice(&chunk);
        }
        let start = text.len().saturating_sub(MESSAGE_BYTES);
        let text = String::from_utf8_lossy(&text[start..]).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

fn storage_limit(pod: &Pod) -> u64 {
    let spec = pod.spec.as_ref();
    let limits = spec.into_iter().flat_map(super::containers).filter_map(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        launch::quantity(limits.get("ephemeral-storage")?, 1.0)
    });
    let total: u64 = limits.sum();
    if total == 0 { STORAGE_BYTES } else { total }
}

/// The size of all files below `dir`; what vanishes meanwhile does not count.
fn bytes_below(dir: &Path) -> u64 {
    let mut total = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // Of a link itself, never of what it leads to.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => total += meta.len(),
                Err(_) => {}
            }
        }
    }
    total
}

/// Writes a pod's status; several changes in quick succession become one write of the latest.
struct Publisher {
    status: watch::Sender<PodStatus>,
    task: JoinHandle<()>,
}

impl Publisher {
    fn start(client: Client, pod: &Pod) -> Self {
        let (status, changes) = watch::channel(status::pending(pod, Timestamp::now()));
        let api = Api::<Pod>::namespaced(client, &pod.namespace().unwrap_or_default());
        let task = tokio::spawn(publish(api, pod.name_any(), changes));
        Self { status, task }
    }

    /// Changes the status and has it written.
    fn update(&self, change: impl FnOnce(&mut PodStatus)) {
        self.status.send_modify(change);
    }

    /// Changes the status without a write of its own: one follows anyway.
    fn change(&self, change: impl FnOnce(&mut PodStatus)) {
        self.status.send_if_modified(|status| {
            change(status);
            false
        });
    }

    /// Waits until the last change is written.
    async fn finish(self) {
        drop(self.status);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the writer of a pod's status failed");
        }
    }
}

async fn publish(api: Api<Pod>, name: String, mut changes: watch::Receiver<PodStatus>) {
    /// Enough for the API to be restarted meanwhile; after that, the next start repairs.
    const ATTEMPTS: u32 = 5;
    while changes.changed().await.is_ok() {
        for attempt in 1..=ATTEMPTS {
            let patch = Patch::Merge(json!({"status": &*changes.borrow_and_update()}));
            match api.patch_status(&name, &PatchParams::default(), &patch).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) if attempt == ATTEMPTS => {
                    tracing::warn!(pod = name, %error, "a pod's status could not be written");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100) * attempt).await,
            }
        }
    }
}
