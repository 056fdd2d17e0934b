//! What is to be done about a Job: pure, from the Job and the tally of its pods to the next step.

pub(crate) mod drive;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{config::RESTART_BACKOFF_MAX, pod::support::unsupported};

/// Kubernetes' default of `backoffLimit`.
const BACKOFF_LIMIT: i32 = 6;
/// `managedBy` of Jobs that are the Job controller's, whose part this is.
const JOB_CONTROLLER: &str = "kubernetes.io/job-controller";

/// How a Job's pods have fared so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: i32,
    pub(crate) failed: i32,
    /// How often containers of the failed ones were started again; with `OnFailure` these are tries
    /// that count against `backoffLimit`, as in Kubernetes.
    pub(crate) restarts: i32,
    /// Why the last one failed.
    pub(crate) last_failure: Option<(String, String)>,
    /// Whether trying again cannot help.
    pub(crate) hopeless: bool,
}

/// The next step of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Somebody else's, or on its way out.
    LeaveAlone,
    /// It is over; the API removes it when its time has come.
    Finished,
    /// It is not to run now.
    Suspended,
    /// Run a pod after this wait.
    RunPod { after: Duration },
    /// It has succeeded.
    Complete,
    /// It has failed for good.
    Fail { reason: String, message: String },
}

/// Decides the next step.
pub(crate) fn next_step(
    job: &Job,
    tally: &Tally,
    restart_backoff: Duration,
    now: Timestamp,
) -> Step {
    let spec = job.spec.clone().unwrap_or_default();
    let foreign = spec.managed_by.as_deref().is_some_and(|name| name != JOB_CONTROLLER);
    if foreign || job.metadata.deletion_timestamp.is_some() {
        return Step::LeaveAlone;
    }
    if is_over(job) {
        return Step::Finished;
    }
    if let Some(message) = unsupported(job) {
        return Step::Fail { reason: "Unsupported".to_owned(), message };
    }
    if tally.succeeded > 0 {
        return Step::Complete;
    }
    if let (true, Some((reason, message))) = (tally.hopeless, &tally.last_failure) {
        return Step::Fail { reason: reason.clone(), message: message.clone() };
    }
    if deadline(job).is_some_and(|deadline| deadline <= now) {
        let (reason, message) = deadline_exceeded();
        return Step::Fail { reason, message };
    }
    if tally.failed + tally.restarts > backoff_limit(job) {
        let mut message = "Job has reached the specified backoff limit".to_owned();
        if let Some((reason, cause)) = &tally.last_failure {
            message.push_str(&format!("; the last pod failed: {reason}: {cause}"));
        }
        return Step::Fail { reason: "BackoffLimitExceeded".to_owned(), message };
    }
    if spec.suspend == Some(true) {
        return Step::Suspended;
    }
    Step::RunPod { after: backoff(tally.failed, restart_backoff) }
}

/// Whether the Job needs no look at its pods: it is over, somebody else's, or on its way out.
pub(crate) fn is_settled(job: &Job) -> bool {
    let nothing = next_step(job, &Tally::default(), Duration::ZERO, Timestamp::UNIX_EPOCH);
    matches!(nothing, Step::LeaveAlone | Step::Finished)
}

/// The wait before a pod that follows so many failed ones.
fn backoff(failed: i32, first: Duration) -> Duration {
    match u32::try_from(failed - 1) {
        Err(_) => Duration::ZERO,
        Ok(doublings) => {
            first.saturating_mul(2u32.saturating_pow(doublings)).min(RESTART_BACKOFF_MAX)
        }
    }
}

pub(crate) fn backoff_limit(job: &Job) -> i32 {
    job.spec.as_ref().and_then(|spec| spec.backoff_limit).unwrap_or(BACKOFF_LIMIT)
}

/// Reason and message of a Job that ran out of time, in Kubernetes' words.
pub(crate) fn deadline_exceeded() -> (String, String) {
    let message = "Job was active longer than specified deadline";
    ("DeadlineExceeded".to_owned(), message.to_owned())
}

/// When the Job's time is over.
pub(crate) fn deadline(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.active_deadline_seconds?;
    let start = job.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether the Job completed or failed.
pub(crate) fn is_over(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| &status.conditions).flatten();
    let is_end = |kind: &str| kind == "Complete" || kind == "Failed";
    conditions.into_iter().any(|condition| is_end(&condition.type_) && condition.status == "True")
}

/// The status of a Job with a pod running, or about to.
pub(crate) fn active(job: &Job, tally: &Tally, now: Timestamp) -> JobStatus {
    let mut status = counted(job, tally);
    status.start_time.get_or_insert(Time(now));
    status.active = Some(1);
    if is_suspended(job) {
        set_condition(&mut status, "Suspended", "False", ("JobResumed", "Job resumed"), now);
        status.start_time = Some(Time(now));
    }
    status
}

/// The status of a suspended Job.
pub(crate) fn suspended(job: &Job, tally: &Tally, now: Timestamp) -> JobStatus {
    let mut status = counted(job, tally);
    status.start_time = None;
    set_condition(&mut status, "Suspended", "True", ("JobSuspended", "Job suspended"), now);
    status
}

/// The status of a Job that has succeeded (Kubernetes 1.32: two conditions).
pub(crate) fn complete(job: &Job, tally: &Tally, now: Timestamp) -> JobStatus {
    let mut status = counted(job, tally);
    status.completion_time = Some(Time(now));
    let why = ("CompletionsReached", "Reached expected number of succeeded pods");
    set_condition(&mut status, "SuccessCriteriaMet", "True", why, now);
    set_condition(&mut status, "Complete", "True", why, now);
    status
}

/// The status of a Job that has failed (Kubernetes 1.32: two conditions).
pub(crate) fn failed(job: &Job, tally: &Tally, why: (&str, &str), now: Timestamp) -> JobStatus {
    let mut status = counted(job, tally);
    set_condition(&mut status, "FailureTarget", "True", why, now);
    set_condition(&mut status, "Failed", "True", why, now);
    status
}

/// Whether the Job says that it is suspended.
pub(crate) fn is_suspended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Suspended" && c.status == "True")
}

fn counted(job: &Job, tally: &Tally) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    status.active = Some(0);
    status.ready = Some(0);
    status.terminating = Some(0);
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
    status.succeeded = (tally.succeeded > 0).then_some(tally.succeeded);
    status.failed = (tally.failed > 0).then_some(tally.failed);
    status
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
mod tests;
