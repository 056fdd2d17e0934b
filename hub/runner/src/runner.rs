//! Watches Jobs and Pods and keeps one driver for each Job that is not finished.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::watch::{self, error::SendError},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::RunnerConfig,
    executor::Executor,
    job::{
        self,
        drive::{Driven, Driver},
    },
    logs::Logs,
    node::{Events, Node},
    pod::run::Stop,
    slots::Slots,
};

/// Runs the Jobs of an API on this host.
pub struct Runner {
    node: Arc<Node>,
}

/// Why the runner stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// What an earlier hub left running could not be ended; running more beside it is not safe.
    #[error("cannot end what an earlier hub left running")]
    Leftovers(#[source] crate::launch::LaunchError),
    /// A watch ended, which it never does by itself.
    #[error("the watch of {0} ended")]
    Watch(&'static str),
}

impl Runner {
    /// A runner that acts with `client`'s identity. It needs: jobs, pods (all verbs, and their
    /// status), events (create), configmaps and secrets (get), serviceaccounts/token (create).
    pub fn new(client: Client, executor: Executor, config: RunnerConfig) -> Self {
        let node = Node {
            slots: Slots::new(config.concurrent_pods.max(1)),
            logs: Logs::new(&config.data_dir),
            events: Events::new(client.clone()),
            client,
            executor,
            config,
        };
        Self { node: Arc::new(node) }
    }

    /// The logs of the containers that it runs.
    pub fn logs(&self) -> Logs {
        self.node.logs.clone()
    }

    /// Runs until `shutdown`; then every pod is ended, and counts as lost to a restart of the hub.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunnerError> {
        self.node.executor.remove_leftovers().await.map_err(RunnerError::Leftovers)?;
        self.remove_directories().await;
        let client = || self.node.client.clone();
        let jobs = watcher(Api::<Job>::all(client()), watcher::Config::default());
        let pods = watcher(Api::<Pod>::all(client()), watcher::Config::default());
        tokio::select! {
            result = self.follow(jobs.default_backoff(), pods.default_backoff()) => result,
            // Dropping the drivers drops their pods, which ends whatever runs in them.
            () = shutdown.cancelled() => Ok(()),
        }
    }

    async fn follow(
        &self,
        jobs: impl Stream<Item = watcher::Result<Event<Job>>>,
        pods: impl Stream<Item = watcher::Result<Event<Pod>>>,
    ) -> Result<(), RunnerError> {
        tokio::pin!(jobs, pods);
        let mut driven = Driven::new();
        let mut listed = Driven::new();
        let mut seen_pods = Vec::new();
        let running = RunningPods::default();
        let mut drivers = JoinSet::new();
        loop {
            tokio::select! {
                event = jobs.next() => match event.ok_or(RunnerError::Watch("Jobs"))? {
                    Ok(Event::Apply(job)) => self.job(job, &mut driven, &running, &mut drivers),
                    Ok(Event::Delete(job)) => {
                        driven.remove(&job.uid().unwrap_or_default());
                    }
                    Ok(Event::Init) => listed = std::mem::take(&mut driven),
                    Ok(Event::InitApply(job)) => {
                        let uid = job.uid().unwrap_or_default();
                        if let Some(known) = listed.remove(&uid) {
                            driven.insert(uid, known);
                        }
                        self.job(job, &mut driven, &running, &mut drivers);
                    }
                    // What the list does not have is gone.
                    Ok(Event::InitDone) => listed.clear(),
                    Err(error) => tracing::warn!(%error, "the watch of Jobs is interrupted"),
                },
                event = pods.next() => match event.ok_or(RunnerError::Watch("Pods"))? {
                    Ok(Event::Apply(pod)) => {
                        if pod.metadata.deletion_timestamp.is_some() {
                            self.end_pod(&pod, &running);
                        }
                    }
                    Ok(Event::Delete(pod)) => self.pod_is_gone(&pod.uid().unwrap_or_default(), &running),
                    Ok(Event::Init) => seen_pods.clear(),
                    Ok(Event::InitApply(pod)) => {
                        if pod.metadata.deletion_timestamp.is_some() {
                            self.end_pod(&pod, &running);
                        }
                        seen_pods.extend(pod.uid());
                    }
                    Ok(Event::InitDone) => self.forget_all_but(&seen_pods, &running),
                    Err(error) => tracing::warn!(%error, "the watch of Pods is interrupted"),
                },
                Some(over) = drivers.join_next(), if !drivers.is_empty() => match over {
                    // What is over is not kept: there may be as many as there were requests.
                    Ok(uid) if driven.get(&uid).is_some_and(watch::Sender::is_closed) => {
                        driven.remove(&uid);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "a Job's driver failed"),
                },
            }
        }
    }

    fn job(
        &self,
        mut job: Job,
        driven: &mut Driven,
        running: &RunningPods,
        drivers: &mut JoinSet<String>,
    ) {
        let uid = job.uid().unwrap_or_default();
        if let Some(changes) = driven.get(&uid) {
            match changes.send(job) {
                Ok(()) => return,
                Err(SendError(back)) => job = back,
            }
        }
        if job::is_over(&job) {
            driven.remove(&uid);
            return;
        }
        let (changes, job) = watch::channel(job);
        driven.insert(uid.clone(), changes);
        let driver =
            Driver { node: self.node.clone(), job, running: running.clone(), written: None };
        drivers.spawn(driver.drive().map(|()| uid));
    }

    /// A pod that is to go: it is ended if it runs here; the object goes when nothing of it runs.
    fn end_pod(&self, pod: &Pod, running: &RunningPods) {
        let uid = pod.uid().unwrap_or_default();
        let ours = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if running.delete(&uid, "PodDeleted") || ours != Some(crate::pod::NODE_NAME) {
            return;
        }
        let api =
            Api::<Pod>::namespaced(self.node.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let now = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: Some(uid), resource_version: None });
        tokio::spawn(async move {
            if let Err(error) = api.delete(&name, &now).await {
                tracing::debug!(pod = name, %error, "a pod that has ended could not be removed");
            }
        });
    }

    fn pod_is_gone(&self, uid: &str, running: &RunningPods) {
        running.delete(uid, "PodDeleted");
        if let Err(error) = self.node.logs.remove(uid) {
            tracing::warn!(pod = uid, %error, "a pod's logs stay behind");
        }
    }

    fn forget_all_but(&self, seen: &[String], running: &RunningPods) {
        for uid in self.node.logs.pods().unwrap_or_default() {
            // A pod that runs may be younger than the list.
            if !seen.contains(&uid) && !running.contains(&uid) {
                self.pod_is_gone(&uid, running);
            }
        }
    }

    /// Volumes of pods that a former hub ran: their processes are gone, and their tokens with them.
    async fn remove_directories(&self) {
        let root = self.node.config.data_dir.join("pods");
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            if let Err(error) = self.node.executor.remove_dir(&entry.path()).await {
                tracing::warn!(%error, "a former pod's directory stays behind");
            }
        }
    }
}

/// The pods that run now, and the way to end each.
#[derive(Clone, Default)]
pub(crate) struct RunningPods(Arc<Mutex<BTreeMap<String, (Stop, bool)>>>);

impl RunningPods {
    pub(crate) fn insert(&self, uid: &str, stop: Stop) {
        self.lock().insert(uid.to_owned(), (stop, false));
    }

    /// Forgets a pod; true if somebody deleted it while it ran.
    pub(crate) fn remove(&self, uid: &str) -> bool {
        self.lock().remove(uid).is_some_and(|(_, deleted)| deleted)
    }

    /// Ends a pod that is not wanted any more; false if it does not run.
    pub(crate) fn delete(&self, uid: &str, reason: &str) -> bool {
        let mut pods = self.lock();
        let Some((stop, deleted)) = pods.get_mut(uid) else { return false };
        *deleted = true;
        stop.because(reason, "the pod was deleted".to_owned());
        true
    }

    fn contains(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Stop, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
