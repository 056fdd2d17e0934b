//! Removes the pods of ended Jobs after the time that the platform's configuration names
//! (`workflows.jobOptions.podTTLSecondsAfterFinished`). Their Jobs, and what became of them, stay.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, Client, ResourceExt};
use muster_api::labels;
use muster_daemon::Clock;
use muster_plan::workflow::engine::{JobSeen, JobState};
use tokio_util::sync::CancellationToken;

use crate::{
    objects::{self, Failed, follow},
    options::Chosen,
    queue::{Next, queue},
    shelf::ObjectKey,
};

/// How many pods are looked at together: this is never urgent.
const AT_ONCE: usize = 4;
/// How long a Job that still tries is left alone, at least.
const JOB_WAIT_MIN: Duration = Duration::from_secs(5);
/// The label of the pods of pipelines.
const OURS: &str = "app.kubernetes.io/managed-by=Kratix";

/// Removes pods.
pub(crate) struct Pods {
    client: Client,
    options: Chosen,
    clock: Clock,
}

impl Pods {
    pub(crate) fn new(client: Client, options: Chosen, clock: Clock) -> Self {
        Self { client, options, clock }
    }

    /// Runs until `shutdown`. Pods are followed only while there is a time after which they go.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut changes = self.options.changes();
        while !shutdown.is_cancelled() {
            let (ttl, turn) = (self.options.now().pod_ttl, shutdown.child_token());
            let changed = async {
                while let Some(Ok(())) = turn.run_until_cancelled(changes.changed()).await {
                    if self.options.now().pod_ttl != ttl {
                        break;
                    }
                }
                turn.cancel();
            };
            match ttl {
                None => changed.await,
                Some(ttl) => {
                    let sweeping = self.sweep(ttl, turn.clone());
                    tokio::join!(sweeping, changed);
                }
            }
        }
    }

    async fn sweep(&self, ttl: Duration, until: CancellationToken) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let ended = |pod: &Pod| ended_at(pod).map(|_| ObjectKey::of(pod));
        let (triggers, queue) = queue("pod", &self.clock);
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let sweeper = Arc::new(Sweeper { client, clock, ttl });
        tokio::join!(
            follow(pods, Some(OURS), triggers, ended, until.clone()),
            queue.run(AT_ONCE, move |key| sweeper.clone().look_at(key), until.clone()),
        );
    }
}

struct Sweeper {
    client: Client,
    clock: Clock,
    ttl: Duration,
}

impl Sweeper {
    async fn look_at(self: Arc<Self>, key: ObjectKey) -> Result<Next, Failed> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pod = pods.get_opt(&key.name).await;
        let pod = pod.map_err(Failed::to(format!("read Pod {}", key.name)))?;
        let Some((pod, ended)) = pod.and_then(|pod| ended_at(&pod).map(|ended| (pod, ended)))
        else {
            return Ok(Next::Change);
        };
        let rested = self.clock.now().duration_since(ended);
        let left = self.ttl.saturating_sub(Duration::try_from(rested).unwrap_or_default());
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        if !self.job_has_ended(&pod, &key.namespace).await? {
            return Ok(Next::After(self.ttl.max(JOB_WAIT_MIN)));
        }
        objects::delete(&pods, &key.name).await?;
        Ok(Next::Change)
    }

    /// A Job that still tries may need its pods: it counts them.
    async fn job_has_ended(&self, pod: &Pod, namespace: &str) -> Result<bool, Failed> {
        let owner = pod.owner_references().iter().find(|owner| owner.kind == "Job");
        let Some(owner) = owner else { return Ok(false) };
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let job = jobs.get_opt(&owner.name).await;
        let job = job.map_err(Failed::to(format!("read Job {}", owner.name)))?;
        Ok(job.is_none_or(|job| JobSeen::of(&job).state != JobState::Running))
    }
}

/// When a pod of a pipeline ended; `None` while it has not.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    pod.labels().get(labels::PROMISE_NAME)?;
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let ends = all.filter_map(|container| {
        container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
    });
    ends.max().or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}
