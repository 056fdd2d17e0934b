//! Runs a workflow: what `plan/workflow/engine` decides becomes Jobs.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ObjectReference, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use muster_api::{Pipeline, destination::DestinationSelector, labels};
use muster_plan::{
    request,
    workflow::{
        Action, Subject, access,
        engine::{self, JobSeen, JobState, Progress, Run, Seen, Step},
        job::Turn,
        trouble::Trouble,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    events::Events,
    objects::{self, Failed, is_conflict, is_marked},
    options::Chosen,
};

/// The label by which a Job's pods are found, in every version of Kubernetes.
const JOB_NAME_LABEL: &str = "job-name";

/// Runs workflows.
#[derive(Clone)]
pub(crate) struct Workflow {
    client: Client,
    events: Events,
    options: Chosen,
}

/// A workflow of one object.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The object as it is.
    pub(crate) object: &'a DynamicObject,
    /// What runs for it.
    pub(crate) subject: &'a Subject,
    /// Configure or delete.
    pub(crate) action: Action,
    /// The pipelines, in order.
    pub(crate) pipelines: &'a [Pipeline],
    /// The hash of all inputs.
    pub(crate) hash: &'a str,
    /// The Promise's selectors.
    pub(crate) selectors: &'a [DestinationSelector],
}

impl Wanted<'_> {
    /// The names of the pipelines.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.pipelines.iter().map(|pipeline| pipeline.metadata.name.as_str()).collect()
    }

    fn run(&self) -> Run {
        request::run(&self.object.data["status"], self.hash)
    }

    fn reference(&self) -> ObjectReference {
        reference(self.subject, self.object)
    }
}

/// How events refer to an object.
pub(crate) fn reference(subject: &Subject, object: &DynamicObject) -> ObjectReference {
    ObjectReference {
        api_version: Some(subject.api_version()),
        kind: Some(subject.kind.clone()),
        name: Some(subject.name.clone()),
        namespace: subject.namespace.clone(),
        uid: object.metadata.uid.clone(),
        resource_version: object.metadata.resource_version.clone(),
        field_path: None,
    }
}

impl Workflow {
    pub(crate) fn new(client: Client, events: Events, options: Chosen) -> Self {
        Self { client, events, options }
    }

    /// Takes the workflow as far as it goes now; what it came to goes into status by the caller.
    pub(crate) async fn advance(
        &self,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Progress, Failed> {
        let jobs = self.jobs(wanted.subject, Some(wanted.action)).await?;
        let run = wanted.run();
        let mut seen: Vec<_> = jobs.iter().map(JobSeen::of).collect();
        for job in seen.iter_mut().filter(|job| job.run == run) {
            if matches!(job.state, JobState::Running | JobState::Failed { .. }) {
                job.trouble = self.trouble(wanted.subject, &job.name).await?;
            }
        }
        let names = wanted.names();
        let progress = engine::next(&Seen {
            pipelines: &names,
            run: &run,
            jobs: &seen,
            recorded: &request::recorded(&wanted.object.data["status"]),
            suspended: is_marked(&wanted.object.metadata, labels::WORKFLOW_SUSPENDED),
            now,
        });
        match &progress.step {
            Step::Start { index, attempt } => {
                self.start(wanted, &run, (*index, *attempt)).await?;
            }
            Step::Failed { index, .. } => {
                self.fail(wanted, &seen, *index, &progress).await?;
            }
            Step::Complete | Step::Running { .. } | Step::Await { .. } | Step::Suspended { .. } => {
            }
        }
        let api = self.jobs_api(wanted.subject);
        for name in engine::surplus(&seen, self.options.now().jobs_kept) {
            objects::delete(&api, name).await?;
        }
        Ok(progress)
    }

    /// Stops what runs and writes a status from which everything starts again; the labels that
    /// asked for it go last, before any Job is created.
    pub(crate) async fn restart(
        &self,
        api: &Api<DynamicObject>,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let jobs = self.jobs(wanted.subject, Some(wanted.action)).await?;
        for job in jobs.iter().map(JobSeen::of).filter(|job| job.state == JobState::Running) {
            self.stop(wanted.subject, &job.name).await?;
        }
        let status = &wanted.object.data["status"];
        let generation = wanted.object.metadata.generation.unwrap_or_default();
        let mut draft =
            request::Draft::new(&request::restarted(status, &wanted.run()), generation, now);
        draft.restarted();
        objects::write_status(api, wanted.object, &draft.finish()).await?;
        let asked =
            [labels::MANUAL_RECONCILIATION, labels::RUN_FROM_START, labels::WORKFLOW_SUSPENDED];
        let held = wanted.object.metadata.labels.as_ref();
        let gone: Map<String, Value> = asked
            .iter()
            .filter(|label| held.is_some_and(|held| held.contains_key(**label)))
            .map(|label| ((*label).to_owned(), Value::Null))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let name = wanted.object.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({ "metadata": { "labels": gone } });
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Failed::to(format!("take the one-shot labels of {name}")))
    }

    /// The Jobs of an object.
    pub(crate) async fn jobs(
        &self,
        subject: &Subject,
        action: Option<Action>,
    ) -> Result<Vec<Job>, Failed> {
        let mut found = subject.labels();
        if let Some(action) = action {
            found.insert(labels::WORKFLOW_ACTION.to_owned(), action.as_str().to_owned());
        }
        objects::with_labels(&self.jobs_api(subject), &found).await
    }

    /// Deletes the Jobs of an object, and their pods with them.
    pub(crate) async fn delete_jobs(&self, subject: &Subject) -> Result<(), Failed> {
        let api = self.jobs_api(subject);
        for job in self.jobs(subject, None).await? {
            objects::delete(&api, job.metadata.name.as_deref().unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Whether a Job with these labels runs in any namespace.
    pub(crate) async fn runs(&self, found: &BTreeMap<String, String>) -> Result<bool, Failed> {
        let api: Api<Job> = Api::all(self.client.clone());
        let jobs = objects::with_labels(&api, found).await?;
        Ok(jobs.iter().any(|job| JobSeen::of(job).state == JobState::Running))
    }

    async fn start(
        &self,
        wanted: &Wanted<'_>,
        run: &Run,
        (index, attempt): (usize, i64),
    ) -> Result<(), Failed> {
        let Wanted { subject, action, pipelines, selectors, .. } = *wanted;
        if is_marked(&wanted.object.metadata, labels::WORKFLOW_SUSPENDED) {
            self.release(wanted).await?;
        }
        for object in access::objects(subject, action, &pipelines[index], selectors) {
            objects::ensure(&self.client, &object).await?;
        }
        let options = &self.options.now();
        let turn = Turn { subject, action, pipelines, run, index, attempt, options };
        let name = turn.job_name();
        let job = turn
            .job()
            .map_err(kube::Error::SerdeError)
            .map_err(Failed::to(format!("write Job {name}")))?;
        match self.jobs_api(subject).create(&PostParams::default(), &job).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => return Ok(()),
            Err(error) => return Err(Failed::to(format!("create Job {name}"))(error)),
        }
        let note = match action {
            Action::Configure => {
                format!("Configure Pipeline started: {}", pipelines[index].metadata.name)
            }
            Action::Delete => "Delete Pipeline started".to_owned(),
        };
        self.events.normal(&wanted.reference(), "PipelineStarted", &note).await;
        Ok(())
    }

    /// A pipeline failed: says so once, and stops a Job that would only try the same again.
    async fn fail(
        &self,
        wanted: &Wanted<'_>,
        seen: &[JobSeen],
        index: usize,
        progress: &Progress,
    ) -> Result<(), Failed> {
        let entry = &progress.pipelines[index];
        let pipeline = &entry.name;
        let of_pipeline = seen.iter().filter(|job| job.pipeline == *pipeline);
        for job in of_pipeline.filter(|job| job.state == JobState::Running) {
            self.stop(wanted.subject, &job.name).await?;
        }
        let recorded = request::recorded(&wanted.object.data["status"]);
        if recorded.contains(entry) {
            return Ok(());
        }
        let (scope, action) = (wanted.subject.scope.as_str(), wanted.action.as_str());
        let why = entry.message.as_deref().unwrap_or("its Job says nothing of why");
        let note = format!("A {scope}/{action} Pipeline has failed: {pipeline}: {why}");
        self.events.warning(&wanted.reference(), "ConfigureWorkflowFailed", &note).await;
        Ok(())
    }

    /// What went wrong with a Job so far.
    async fn trouble(&self, subject: &Subject, job: &str) -> Result<Option<Trouble>, Failed> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &subject.job_namespace);
        let of_job = [(JOB_NAME_LABEL.to_owned(), job.to_owned())].into();
        Ok(Trouble::of(&objects::with_labels(&pods, &of_job).await?))
    }

    async fn release(&self, wanted: &Wanted<'_>) -> Result<(), Failed> {
        let Subject { kind, name, namespace, .. } = wanted.subject;
        let api = objects::dynamic(
            &self.client,
            &wanted.subject.api_version(),
            kind,
            namespace.as_deref(),
        );
        let patch = json!({ "metadata": { "labels": { labels::WORKFLOW_SUSPENDED: null } } });
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Failed::to(format!("resume {name}")))
    }

    async fn stop(&self, subject: &Subject, job: &str) -> Result<(), Failed> {
        let patch = json!({ "spec": { "suspend": true } });
        let params = PatchParams::default();
        let stopped = self.jobs_api(subject).patch(job, &params, &Patch::Merge(patch)).await;
        stopped.map(drop).map_err(Failed::to(format!("stop Job {job}")))
    }

    fn jobs_api(&self, subject: &Subject) -> Api<Job> {
        Api::namespaced(self.client.clone(), &subject.job_namespace)
    }
}
