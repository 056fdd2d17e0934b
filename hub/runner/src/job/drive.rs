//! Drives one Job from its first pod to its end; one task for each Job that is not finished.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::{Pod, PodStatus},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::watch;

use super::{Step, Tally};
use crate::{
    node::{Node, suffix},
    pod::{
        self,
        run::{Budget, IMAGE_NOT_RUNNABLE, Stop},
        status::PodEnd,
    },
    runner::RunningPods,
    slots::Slot,
};

/// Why a pod failed whose own container did.
const CONTAINER_FAILED: &str = "ContainerFailed";
/// Why a pod was lost that a former hub ran; it does not count against `backoffLimit`, as a
/// disruption of a node does not where a Job says so.
const HUB_RESTARTED: &str = "HubRestarted";
/// The wait after the API refused a write; it doubles, up to [`API_WAIT_MAX`].
const API_WAIT: Duration = Duration::from_millis(200);
const API_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Driver {
    pub(crate) node: Arc<Node>,
    pub(crate) job: watch::Receiver<Job>,
    pub(crate) running: RunningPods,
    /// The status last written: nobody else writes it, and the watch may be behind.
    pub(crate) written: Option<JobStatus>,
}

impl Driver {
    /// Drives the Job until it is finished, or gone.
    pub(crate) async fn drive(mut self) {
        let mut wait = API_WAIT;
        let mut tally = None;
        loop {
            match self.advance(&mut tally).await {
                Ok(true) => wait = API_WAIT,
                Ok(false) => return,
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(error) => {
                    let job = self.job.borrow().name_any();
                    tracing::warn!(job, %error, "a Job cannot go on; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(API_WAIT_MAX);
                }
            }
        }
    }

    /// Takes one step; false when there is nothing more to do.
    async fn advance(&mut self, tally: &mut Option<Tally>) -> kube::Result<bool> {
        let mut job = self.job.borrow_and_update().clone();
        if let Some(written) = &self.written {
            job.status = Some(written.clone());
        }
        let now = Timestamp::now();
        let backoff = self.node.config.restart_backoff;
        let counted = match tally {
            Some(tally) => tally,
            None if super::is_settled(&job) => &mut Tally::default(),
            None => tally.insert(self.take_stock(&job).await?),
        };
        match super::next_step(&job, counted, backoff, now) {
            Step::LeaveAlone | Step::Finished => Ok(false),
            Step::Suspended => {
                if !super::is_suspended(&job) {
                    self.write(&job, super::suspended(&job, counted, now)).await?;
                }
                Ok(self.job.changed().await.is_ok())
            }
            Step::RunPod { after } => {
                if !after.is_zero() && self.changed_within(after).await {
                    return Ok(true);
                }
                // Before the pod is made: what waits costs nothing but its Job.
                if let Some(slot) = self.slot(&job).await {
                    self.run_pod(&job, counted, slot).await?;
                }
                Ok(self.job.has_changed().is_ok())
            }
            Step::Complete => {
                self.write(&job, super::complete(&job, counted, now)).await?;
                self.node.events.normal(&job, "Completed", "Job completed");
                Ok(true)
            }
            Step::Fail { reason, message } => {
                let status = super::failed(&job, counted, (&reason, &message), now);
                self.write(&job, status).await?;
                self.node.events.warn(&job, &reason, &message);
                Ok(true)
            }
        }
    }

    /// Waits for a place, but not longer than until the Job changes: it may not be wanted any more.
    async fn slot(&mut self, job: &Job) -> Option<Slot> {
        let label = self.node.config.share_label.as_ref();
        let share = label.and_then(|label| job.labels().get(label)).cloned();
        let share = share.or_else(|| job.namespace()).unwrap_or_default();
        let node = self.node.clone();
        tokio::select! {
            biased;
            slot = node.slots.take(&share) => Some(slot),
            _ = self.job.changed() => None,
        }
    }

    /// Waits, but not longer than until the Job changes.
    async fn changed_within(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => false,
            _ = self.job.changed() => true,
        }
    }

    /// Counts the pods that a former hub left; those that it did not finish are lost.
    async fn take_stock(&self, job: &Job) -> kube::Result<Tally> {
        // The start is written before the first pod is made.
        if job.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            return Ok(Tally::default());
        }
        let pods = self.pods(job);
        let label = format!("batch.kubernetes.io/job-name={}", job.name_any());
        let mut tally = Tally::default();
        for pod in pods.list(&ListParams::default().labels(&label)).await? {
            let ours = pod.owner_references().iter().any(|o| Some(&o.uid) == job.uid().as_ref());
            let status = pod.status.clone().unwrap_or_default();
            match status.phase.as_deref() {
                _ if !ours => {}
                Some("Succeeded") => tally.succeeded += 1,
                Some("Failed") if status.reason.as_deref() == Some(HUB_RESTARTED) => {}
                Some("Failed") => {
                    tally.restarts += restarts(&status);
                    tally.count(status.reason.zip(status.message));
                }
                _ => self.give_up(&pods, &pod).await?,
            }
        }
        let before = job.status.as_ref().and_then(|status| status.failed).unwrap_or(0);
        tally.failed = tally.failed.max(before);
        Ok(tally)
    }

    async fn give_up(&self, pods: &Api<Pod>, lost: &Pod) -> kube::Result<()> {
        let mut status = lost.status.clone().unwrap_or_default();
        let message = "the hub was restarted while the pod ran; its processes were ended";
        let end = PodEnd::Failed {
            reason: Some(HUB_RESTARTED.to_owned()),
            message: Some(message.to_owned()),
        };
        let now = Timestamp::now();
        pod::status::ended(&mut status, &end, now);
        let kind = "DisruptionTarget";
        pod::status::set_condition(&mut status, kind, true, Some(HUB_RESTARTED), now);
        for entry in status
            .init_container_statuses
            .iter_mut()
            .flatten()
            .chain(status.container_statuses.iter_mut().flatten())
        {
            if let Some(running) = entry.state.as_ref().and_then(|state| state.running.clone()) {
                let started = running.started_at.map_or(now, |time| time.0);
                let said = Some(message.to_owned());
                entry.state = Some(pod::status::terminated(137, "Error", said, (started, now)));
            }
        }
        let patch = Patch::Merge(json!({"status": status}));
        pods.patch_status(&lost.name_any(), &PatchParams::default(), &patch).await.map(drop)
    }

    async fn run_pod(&mut self, job: &Job, tally: &mut Tally, slot: Slot) -> kube::Result<()> {
        let status = super::active(job, tally, Timestamp::now());
        let mut started = job.clone();
        started.status = Some(status.clone());
        self.write(job, status).await?;
        let pod = pod::build(job, &suffix());
        let pod = self.pods(job).create(&PostParams::default(), &pod).await?;
        let text = format!("Created pod: {}", pod.name_any());
        self.node.events.normal(job, "SuccessfulCreate", &text);

        let stop = Stop::default();
        let uid = pod.uid().unwrap_or_default();
        self.running.insert(&uid, stop.clone());
        let end = self.attend(&started, (&pod, slot), &stop, tally).await;
        let deleted = self.running.remove(&uid);
        match end {
            PodEnd::Succeeded => tally.succeeded += 1,
            // Somebody took the pod away: there is another for it, as with any controller.
            PodEnd::Failed { .. } if deleted => {
                let gone = DeleteParams::default().grace_period(0);
                let _ = self.pods(job).delete(&pod.name_any(), &gone).await;
            }
            PodEnd::Failed { reason, message } => {
                let ended = self.pods(job).get_opt(&pod.name_any()).await?;
                tally.restarts += ended.and_then(|pod| pod.status).as_ref().map_or(0, restarts);
                let reason = reason.unwrap_or_else(|| CONTAINER_FAILED.to_owned());
                tally.count(message.map(|message| (reason, message)));
                if tally.by_deadline() {
                    tally.last_failure = Some(super::deadline_exceeded());
                    tally.hopeless = super::deadline(&started).is_some();
                }
            }
        }
        Ok(())
    }

    /// Runs the pod while the Job wants it.
    async fn attend(
        &mut self,
        job: &Job,
        (pod, slot): (&Pod, Slot),
        stop: &Stop,
        tally: &Tally,
    ) -> PodEnd {
        let node = self.node.clone();
        let running = pod::run::run(&node, (pod, slot), stop, self.budget(job, pod, tally));
        tokio::pin!(running);
        loop {
            tokio::select! {
                end = &mut running => return end,
                changed = self.job.changed(), if !stop.token.is_cancelled() => {
                    let gone = changed.is_err();
                    let job = self.job.borrow_and_update();
                    let suspended = job.spec.as_ref().and_then(|s| s.suspend) == Some(true);
                    if gone || job.metadata.deletion_timestamp.is_some() {
                        stop.because("JobDeleted", "the Job was deleted".to_owned());
                    } else if suspended {
                        drop(job);
                        self.running.delete(&pod.uid().unwrap_or_default(), "JobSuspended");
                    }
                }
            }
        }
    }

    fn budget(&self, job: &Job, pod: &Pod, tally: &Tally) -> Budget {
        let spec = pod.spec.clone().unwrap_or_default();
        let of_pod = spec.active_deadline_seconds.map(|s| Duration::from_secs(s.max(0) as u64));
        let of_job = super::deadline(job)
            .map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let named = [of_pod, of_job].into_iter().flatten().min();
        let on_failure = spec.restart_policy.as_deref() == Some("OnFailure");
        let left = super::backoff_limit(job) - tally.failed - tally.restarts;
        Budget {
            deadline: named.unwrap_or(self.node.config.pod_deadline),
            restarts: if on_failure { left } else { 0 },
        }
    }

    async fn write(&mut self, job: &Job, written: JobStatus) -> kube::Result<()> {
        let mut status = serde_json::to_value(&written).map_err(kube::Error::SerdeError)?;
        // A merge keeps what is not named; a suspended Job has no start.
        if status.get("startTime").is_none() {
            status["startTime"] = serde_json::Value::Null;
        }
        let patch = Patch::Merge(json!({"status": status}));
        self.jobs(job).patch_status(&job.name_any(), &PatchParams::default(), &patch).await?;
        self.written = Some(written);
        Ok(())
    }

    fn jobs(&self, job: &Job) -> Api<Job> {
        Api::namespaced(self.node.client.clone(), &job.namespace().unwrap_or_default())
    }

    fn pods(&self, job: &Job) -> Api<Pod> {
        Api::namespaced(self.node.client.clone(), &job.namespace().unwrap_or_default())
    }
}

/// How often a pod's containers were started again.
fn restarts(status: &PodStatus) -> i32 {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).map(|one| one.restart_count).sum()
}

impl Tally {
    fn count(&mut self, why: Option<(String, String)>) {
        self.failed += 1;
        self.hopeless |= why.as_ref().is_some_and(|(reason, _)| reason == IMAGE_NOT_RUNNABLE);
        self.last_failure = why;
    }

    fn by_deadline(&self) -> bool {
        self.last_failure.as_ref().is_some_and(|(reason, _)| reason == "DeadlineExceeded")
    }
}

/// Jobs by uid, with the way to tell their drivers of a change.
pub(crate) type Driven = BTreeMap<String, watch::Sender<Job>>;
