//! The workflow engine: from the Jobs seen and the status recorded, what is to be done next?
//!
//! Pipelines run strictly one after another. A run is named by the hash of its inputs and a number;
//! when either changes, everything starts again at the first pipeline, once a Job that still runs
//! has ended. Progress is recorded in status by hash, so that Jobs may be deleted without a rerun.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use muster_api::{labels, promise::PipelineStatus};
use muster_core::Waiting;

use super::{
    job::{ATTEMPT_LABEL, RUN_LABEL},
    trouble::Trouble,
};

/// The reason by which the runner says that an image cannot be run on its host.
pub const IMAGE_NOT_RUNNABLE: &str = "ImageNotRunnable";

/// Phases of a pipeline, as recorded in status.
pub mod phase {
    /// Not begun.
    pub const PENDING: &str = "Pending";
    /// Its Job runs.
    pub const RUNNING: &str = "Running";
    /// Its Job ended well.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Its Job failed, or its result was refused.
    pub const FAILED: &str = "Failed";
    /// It asked to wait.
    pub const SUSPENDED: &str = "Suspended";
}

/// What tells one run of a workflow from the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// The hash of all inputs.
    pub hash: String,
    /// Raised when everything runs again with the same inputs.
    pub number: i64,
}

/// A Job as far as the engine cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// Its pipeline.
    pub pipeline: String,
    /// The run that it is for.
    pub run: Run,
    /// Which try of its pipeline.
    pub attempt: i64,
    /// When it was created, to the second.
    pub created: Option<Timestamp>,
    /// How it is doing.
    pub state: JobState,
    /// What went wrong with it so far, where its pods were looked at.
    pub trouble: Option<Trouble>,
}

/// How a Job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Not ended.
    Running,
    /// Ended well.
    Succeeded,
    /// Given up.
    Failed {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// Stopped by the hub, for good.
    Stopped,
}

/// All that the engine looks at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The names of the pipelines, in order.
    pub pipelines: &'a [&'a str],
    /// The run that is wanted.
    pub run: &'a Run,
    /// The Jobs of this object and action.
    pub jobs: &'a [JobSeen],
    /// What status says of the pipelines.
    pub recorded: &'a [PipelineStatus],
    /// Whether the object has the label `kratix.io/workflow-suspended`.
    pub suspended: bool,
    /// The time.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: every pipeline has succeeded.
    Complete,
    /// Create the Job of this pipeline.
    Start {
        /// Which pipeline.
        index: usize,
        /// Which try, from 1.
        attempt: i64,
    },
    /// Wait for a Job of this run.
    Running {
        /// Which pipeline.
        index: usize,
    },
    /// Wait for a Job of an earlier run.
    Await {
        /// The Job.
        job: String,
        /// Its result was refused: it would only try the same again.
        is_refused: bool,
    },
    /// Wait for a person, or a time.
    Suspended {
        /// Which pipeline.
        index: usize,
        /// When it is tried again by itself.
        until: Option<Timestamp>,
    },
    /// Wait for what earlier pipelines put out.
    Held {
        /// Which pipeline.
        index: usize,
        /// What it waits for.
        waiting: Waiting,
    },
    /// The API refuses what the pipeline needs to begin; it is tried again.
    Refused {
        /// Which pipeline.
        index: usize,
        /// What was to be done, and the API's words.
        cause: String,
    },
    /// Nothing until the inputs change or someone asks.
    Failed {
        /// Which pipeline.
        index: usize,
        /// `ImageNotRunnable`, or empty.
        reason: String,
        /// Why.
        message: String,
    },
}

/// What to do next, and what status is to say of each pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What to do next.
    pub step: Step,
    /// One entry for each pipeline.
    pub pipelines: Vec<PipelineStatus>,
}

impl Progress {
    /// Its pipeline could not begin after all.
    pub fn refused(mut self, index: usize, cause: &str, now: Timestamp) -> Self {
        self.unbegun(index, cause.to_owned(), now);
        self.step = Step::Refused { index, cause: cause.to_owned() };
        self
    }

    /// Its pipeline may not begin yet.
    pub fn held(mut self, index: usize, waiting: Waiting, now: Timestamp) -> Self {
        self.unbegun(index, waiting.message(), now);
        self.step = Step::Held { index, waiting };
        self
    }

    /// Which try it is stays: the Job of the one before would else speak for it.
    fn unbegun(&mut self, index: usize, message: String, now: Timestamp) {
        let entry = &mut self.pipelines[index];
        entry.message = Some(message);
        move_to(entry, phase::PENDING, now);
    }
}

/// Decides.
pub fn next(seen: &Seen<'_>) -> Progress {
    let mut pipelines = Vec::with_capacity(seen.pipelines.len());
    let mut step = Step::Complete;
    for (index, name) in seen.pipelines.iter().enumerate() {
        let entry = entry(seen, name);
        if step != Step::Complete {
            pipelines.push(pending(entry, seen));
            continue;
        }
        let (own, entry) = judge(seen, index, entry);
        pipelines.push(entry);
        if let Some(own) = own {
            step = own;
        }
    }
    Progress { step, pipelines }
}

/// The Jobs that are no longer kept: all but the newest `kept_max` ended ones of each pipeline. The
/// last one of the present run always stays: status may not speak of it yet.
pub fn surplus<'a>(jobs: &'a [JobSeen], run: &Run, kept_max: usize) -> Vec<&'a str> {
    let order = |job: &'a JobSeen| (&job.pipeline, job.run == *run, &job.created, job.attempt);
    let mut ended: Vec<_> = jobs.iter().filter(|job| job.state != JobState::Running).collect();
    ended.sort_by(|a, b| order(b).cmp(&order(a)));
    let of_one = ended.chunk_by(|a, b| a.pipeline == b.pipeline);
    let gone = of_one.flat_map(|jobs| jobs.iter().skip(kept_max.max(1)));
    gone.map(|job| job.name.as_str()).collect()
}

impl JobSeen {
    /// What the engine needs of a Job.
    pub fn of(job: &Job) -> Self {
        let label = |key: &str| {
            let labels = job.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
        };
        let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            pipeline: label(labels::PIPELINE_NAME),
            run: Run { hash: label(labels::HASH), number: label(RUN_LABEL).parse().unwrap_or(0) },
            attempt: label(ATTEMPT_LABEL).parse().unwrap_or(1),
            created,
            state: state(job),
            trouble: None,
            name: job.metadata.name.clone().unwrap_or_default(),
        }
    }
}

fn state(job: &Job) -> JobState {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in conditions.filter(|condition| condition.status == "True") {
        match condition.type_.as_str() {
            "Complete" | "SuccessCriteriaMet" => return JobState::Succeeded,
            "Failed" => {
                return JobState::Failed {
                    reason: condition.reason.clone().unwrap_or_default(),
                    message: condition.message.clone().unwrap_or_default(),
                };
            }
            _ => {}
        }
    }
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
    if suspended { JobState::Stopped } else { JobState::Running }
}

/// What status says of a pipeline in this run; a fresh entry where it speaks of another.
fn entry(seen: &Seen<'_>, name: &str) -> PipelineStatus {
    let recorded = seen.recorded.iter().find(|entry| entry.name == name);
    match recorded {
        Some(entry) if entry.hash.as_deref() == Some(&seen.run.hash) => entry.clone(),
        _ => PipelineStatus {
            name: name.to_owned(),
            phase: phase::PENDING.to_owned(),
            last_transition_time: recorded.and_then(|entry| entry.last_transition_time.clone()),
            hash: None,
            ..PipelineStatus::default()
        },
    }
}

/// What follows for one pipeline, all before it having succeeded; `None`: it has succeeded, too.
fn judge(
    seen: &Seen<'_>,
    index: usize,
    mut entry: PipelineStatus,
) -> (Option<Step>, PipelineStatus) {
    let told = entry.tries;
    let name = seen.pipelines[index];
    let of_run = seen.jobs.iter().filter(|job| job.pipeline == name && job.run == *seen.run);
    // A Job before the one that is spoken of says nothing any more; that one was removed.
    let job = of_run
        .max_by_key(|job| job.attempt)
        .filter(|job| told.is_none_or(|told| job.attempt >= told));
    let Some(job) = job else { return without_job(seen, index, entry) };
    let is_told = told.is_none_or(|told| job.attempt == told);
    if is_told && entry.phase == phase::SUSPENDED && job.state != JobState::Running {
        return suspended(seen, index, job.attempt, entry);
    }
    if is_told && entry.phase == phase::FAILED && job.state != JobState::Succeeded {
        return (Some(failed(index, &job.state, &entry)), entry);
    }
    let set = |entry: &mut PipelineStatus, to: &str| {
        entry.hash = Some(seen.run.hash.clone());
        entry.tries = Some(job.attempt);
        move_to(entry, to, seen.now);
    };
    match &job.state {
        JobState::Succeeded => {
            entry.message = None;
            entry.attempts = None;
            entry.next_retry_at = None;
            set(&mut entry, phase::SUCCEEDED);
            (None, entry)
        }
        JobState::Running if is_told && entry.phase == phase::SUSPENDED => {
            (Some(Step::Running { index }), entry)
        }
        JobState::Running => {
            entry.message = job.trouble.as_ref().map(Trouble::so_far).or(entry.message);
            entry.next_retry_at = None;
            set(&mut entry, phase::RUNNING);
            (Some(Step::Running { index }), entry)
        }
        state @ JobState::Failed { .. } => {
            entry.message = Some(why_given_up(state, job.trouble.as_ref(), entry.message.take()));
            set(&mut entry, phase::FAILED);
            (Some(failed(index, state, &entry)), entry)
        }
        JobState::Stopped => start(seen, index, job.attempt + 1, entry),
    }
}

/// As [`judge`], where there is no Job (any more) that could say how it went.
fn without_job(
    seen: &Seen<'_>,
    index: usize,
    entry: PipelineStatus,
) -> (Option<Step>, PipelineStatus) {
    let tries = entry.tries.unwrap_or(1);
    match entry.phase.as_str() {
        phase::SUCCEEDED => (None, entry),
        phase::FAILED => (Some(failed(index, &JobState::Stopped, &entry)), entry),
        phase::SUSPENDED => suspended(seen, index, tries, entry),
        _ => start(seen, index, tries, entry),
    }
}

/// It waits until its label is taken or its time has come, and is then tried again.
fn suspended(
    seen: &Seen<'_>,
    index: usize,
    tries: i64,
    entry: PipelineStatus,
) -> (Option<Step>, PipelineStatus) {
    let until = entry.next_retry_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
    let is_due = until.is_some_and(|until| until <= seen.now);
    if seen.suspended && !is_due {
        return (Some(Step::Suspended { index, until }), entry);
    }
    start(seen, index, tries + 1, entry)
}

fn failed(index: usize, state: &JobState, entry: &PipelineStatus) -> Step {
    let reason = match state {
        JobState::Failed { reason, .. } if reason == IMAGE_NOT_RUNNABLE => reason.clone(),
        _ => String::new(),
    };
    Step::Failed { index, reason, message: entry.message.clone().unwrap_or_default() }
}

fn start(
    seen: &Seen<'_>,
    index: usize,
    attempt: i64,
    mut entry: PipelineStatus,
) -> (Option<Step>, PipelineStatus) {
    if let Some(job) = seen.jobs.iter().find(|job| job.state == JobState::Running) {
        let is_refused = seen.recorded.iter().any(|entry| has_failed(entry, job));
        // One that is to go on in this run keeps what it has said.
        let entry = if entry.hash.is_some() { entry } else { pending(entry, seen) };
        return (Some(Step::Await { job: job.name.clone(), is_refused }), entry);
    }
    entry.hash = Some(seen.run.hash.clone());
    entry.tries = Some(attempt);
    entry.message = None;
    entry.next_retry_at = None;
    move_to(&mut entry, phase::RUNNING, seen.now);
    (Some(Step::Start { index, attempt }), entry)
}

/// Whether what is recorded of a pipeline is that this Job, though it has not ended, has failed.
fn has_failed(entry: &PipelineStatus, job: &JobSeen) -> bool {
    entry.phase == phase::FAILED
        && entry.name == job.pipeline
        && entry.hash.as_ref() == Some(&job.run.hash)
        && entry.tries == Some(job.attempt)
}

/// A pipeline whose turn has not come keeps nothing of an earlier run.
fn pending(mut entry: PipelineStatus, seen: &Seen<'_>) -> PipelineStatus {
    if entry.phase == phase::SUCCEEDED {
        return entry;
    }
    entry.message = None;
    entry.hash = None;
    entry.next_retry_at = None;
    entry.attempts = None;
    entry.tries = None;
    move_to(&mut entry, phase::PENDING, seen.now);
    entry
}

fn move_to(entry: &mut PipelineStatus, to: &str, now: Timestamp) {
    if entry.phase != to || entry.last_transition_time.is_none() {
        entry.phase = to.to_owned();
        entry.last_transition_time = Some(crate::request::seconds(now));
    }
}

/// What is told of a Job that was given up: what its pods say, now or before they went, and else
/// the Job's own words.
fn why_given_up(state: &JobState, trouble: Option<&Trouble>, before: Option<String>) -> String {
    let JobState::Failed { reason, message } = state else { return String::new() };
    let told = trouble.map(Trouble::in_the_end).or(before);
    match (reason.as_str(), told) {
        (IMAGE_NOT_RUNNABLE, _) | (_, None) => message.clone(),
        ("DeadlineExceeded", Some(told)) => format!("{message}; {told}"),
        (_, Some(told)) => told,
    }
}

#[cfg(test)]
mod tests;
