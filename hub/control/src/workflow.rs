//! Runs a workflow: what `plan/workflow/engine` decides becomes Jobs.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ObjectReference, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::{DynamicObject, Status},
};
use muster_api::{
    Pipeline,
    conditions::{self, kind},
    destination::DestinationSelector,
    labels,
};
use muster_plan::{
    children::{self, Family},
    request::Draft,
    workflow::{
        Action, Scope, Subject, access,
        engine::{self, JobSeen, JobState, Progress, Run, Seen, Step},
        job::Turn,
        record, rerun,
        trouble::Trouble,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    events::Events,
    jobs::{self, Jobs},
    objects::{self, Failed, is_conflict, is_marked},
    options::Chosen,
    shelf::ObjectKey,
};

/// Runs workflows.
#[derive(Clone)]
pub(crate) struct Workflow {
    client: Client,
    events: Events,
    options: Chosen,
    jobs: Arc<Jobs>,
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

impl<'a> Wanted<'a> {
    /// The names of the pipelines.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.pipelines.iter().map(|pipeline| pipeline.metadata.name.as_str()).collect()
    }

    /// Whether there is a pipeline at all.
    pub(crate) fn runs_anything(&self) -> bool {
        !self.pipelines.is_empty()
    }

    fn run(&self) -> Run {
        record::run(self.status(), self.hash)
    }

    fn status(&self) -> &Value {
        &self.object.data["status"]
    }

    fn reference(&self) -> ObjectReference {
        reference(self.subject, self.object)
    }
}

/// What is to be done next of a workflow, and by what that was decided.
pub(crate) struct Outlook {
    seen: Vec<JobSeen>,
    run: Run,
    progress: Progress,
}

impl Outlook {
    /// Lets a pipeline begin only when the children of those before it are reconciled.
    pub(crate) fn after(mut self, family: &Family, wanted: &Wanted<'_>, now: Timestamp) -> Self {
        self.progress = children::hold(self.progress, family, wanted.pipelines, now);
        self
    }
}

/// An action, as events begin.
fn title(action: Action) -> &'static str {
    match action {
        Action::Configure => "Configure",
        Action::Delete => "Delete",
    }
}

fn conditions_of(status: &Value) -> Vec<Condition> {
    let held = status.get("conditions").cloned().unwrap_or_default();
    serde_json::from_value(held).unwrap_or_default()
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
    pub(crate) fn new(client: Client, events: Events, options: Chosen, jobs: Arc<Jobs>) -> Self {
        Self { client, events, options, jobs }
    }

    /// Takes the workflow as far as it goes now; what it came to goes into status by the caller.
    pub(crate) async fn advance(
        &self,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Progress, Failed> {
        let outlook = self.look(wanted, now).await?;
        self.act(wanted, outlook, now).await
    }

    /// What is to be done next, with nothing done.
    pub(crate) async fn look(
        &self,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Outlook, Failed> {
        let jobs = self.jobs(wanted.subject, Some(wanted.action));
        let run = wanted.run();
        let mut seen: Vec<_> = jobs.iter().map(|job| JobSeen::of(job)).collect();
        for job in seen.iter_mut().filter(|job| job.run == run) {
            job.trouble = self.trouble(wanted.subject, job).await?;
        }
        let names = wanted.names();
        let progress = engine::next(&Seen {
            pipelines: &names,
            run: &run,
            jobs: &seen,
            recorded: &record::read(wanted.status(), wanted.action),
            suspended: is_marked(&wanted.object.metadata, labels::WORKFLOW_SUSPENDED),
            now,
        });
        Ok(Outlook { seen, run, progress })
    }

    /// Does it.
    pub(crate) async fn act(
        &self,
        wanted: &Wanted<'_>,
        outlook: Outlook,
        now: Timestamp,
    ) -> Result<Progress, Failed> {
        let Outlook { seen, run, mut progress } = outlook;
        match progress.step {
            Step::Start { index, attempt } => {
                if let Err(failed) = self.start(wanted, &run, (index, attempt)).await {
                    let cause = failed.refusal().ok_or(failed)?;
                    progress = progress.refused(index, &cause, now);
                    self.tell_refused(wanted, index, &progress).await;
                }
            }
            Step::Failed { index, .. } => self.fail(wanted, &seen, index, &progress).await?,
            Step::Suspended { index, .. } => self.tell_suspended(wanted, index, &progress).await,
            Step::Await { ref job, is_refused: true } => self.stop(wanted.subject, job).await?,
            _ => {}
        }
        let api = self.jobs_api(wanted.subject);
        for name in engine::surplus(&seen, &run, self.options.now().jobs_kept) {
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
        let jobs = self.jobs(wanted.subject, Some(wanted.action));
        for job in
            jobs.iter().map(|job| JobSeen::of(job)).filter(|job| job.state == JobState::Running)
        {
            self.stop(wanted.subject, &job.name).await?;
        }
        let generation = wanted.object.metadata.generation.unwrap_or_default();
        let mut draft = Draft::new(wanted.status(), generation, now);
        draft.restarted(wanted.action);
        objects::write_status(api, wanted.object, &draft.finish()).await?;
        let asked = rerun::ONE_SHOT.into_iter().chain([labels::WORKFLOW_SUSPENDED]);
        let held = wanted.object.metadata.labels.as_ref();
        let gone: Map<String, Value> = asked
            .filter(|label| held.is_some_and(|held| held.contains_key(*label)))
            .map(|label| (label.to_owned(), Value::Null))
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
    pub(crate) fn jobs(&self, subject: &Subject, action: Option<Action>) -> Vec<Arc<Job>> {
        let mut found = subject.labels();
        if let Some(action) = action {
            found.insert(labels::WORKFLOW_ACTION.to_owned(), action.as_str().to_owned());
        }
        let namespace = Some(subject.job_namespace.as_str());
        let mut jobs = self.jobs.with(&found);
        jobs.retain(|job| job.metadata.namespace.as_deref() == namespace);
        jobs
    }

    /// Deletes the Jobs of an object, and their pods with them.
    pub(crate) async fn delete_jobs(&self, subject: &Subject) -> Result<(), Failed> {
        let api = self.jobs_api(subject);
        for job in self.jobs(subject, None) {
            objects::delete(&api, job.metadata.name.as_deref().unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Whether a Job of a Promise or of its requests with these labels runs in any namespace.
    pub(crate) fn runs(&self, promise: &str, found: &BTreeMap<String, String>) -> bool {
        let jobs = self.jobs.of_promise(promise, found);
        jobs.iter().any(|job| JobSeen::of(job).state == JobState::Running)
    }

    async fn start(
        &self,
        wanted: &Wanted<'_>,
        run: &Run,
        (index, attempt): (usize, i64),
    ) -> Result<(), Failed> {
        let Wanted { subject, action, pipelines, selectors, .. } = *wanted;
        self.see_whether_current(wanted).await?;
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
            Ok(made) => self.jobs.saw(made),
            Err(error) if is_conflict(&error) => return Ok(()),
            Err(error) => return Err(Failed::to(format!("create Job {name}"))(error)),
        }
        let note =
            format!("{} Pipeline started: {}", title(action), pipelines[index].metadata.name);
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
        let told = conditions_of(wanted.status());
        let (kind, reason) = match wanted.action {
            Action::Configure => (kind::CONFIGURE_WORKFLOW_COMPLETED, "ConfigureWorkflowFailed"),
            Action::Delete => (kind::DELETE_WORKFLOW_COMPLETED, "DeleteWorkflowFailed"),
        };
        let is_news = conditions::find(&told, kind).is_none_or(|held| {
            held.status != "False" || matches!(held.reason.as_str(), "PipelinesInProgress")
        });
        if is_news {
            let (scope, action) = (wanted.subject.scope.as_str(), wanted.action.as_str());
            let why = entry.message.as_deref().unwrap_or("its Job says nothing of why");
            let note = format!("A {scope}/{action} Pipeline has failed: {pipeline}: {why}");
            self.events.warning(&wanted.reference(), reason, &note).await;
        }
        Ok(())
    }

    /// A pipeline waits: says so once.
    async fn tell_suspended(&self, wanted: &Wanted<'_>, index: usize, progress: &Progress) {
        let (kind, reason) = match wanted.action {
            Action::Configure => (kind::RECONCILED, "WorkflowSuspended"),
            Action::Delete => (kind::DELETE_WORKFLOW_COMPLETED, "DeleteWorkflowSuspended"),
        };
        let told = conditions_of(wanted.status());
        if conditions::find(&told, kind).is_some_and(|held| held.reason == reason) {
            return;
        }
        let (about, entry) = (wanted.reference(), &progress.pipelines[index]);
        let mut note = format!("{} Pipeline suspended: {}", title(wanted.action), entry.name);
        if let Some(said) = &entry.message {
            note.push_str(": ");
            note.push_str(said);
        }
        self.events.normal(&about, "PipelineSuspended", &note).await;
        let what = match wanted.subject.scope {
            Scope::Promise => "promise",
            Scope::Resource => "resource request",
        };
        let note = format!(
            "'{}' label set to 'true' for {what}; skipping reconciliation",
            labels::WORKFLOW_SUSPENDED
        );
        self.events.warning(&about, "WorkflowSuspended", &note).await;
    }

    /// The API refuses what a pipeline needs to begin: says so once.
    async fn tell_refused(&self, wanted: &Wanted<'_>, index: usize, progress: &Progress) {
        let entry = &progress.pipelines[index];
        let recorded = record::read(wanted.status(), wanted.action);
        let told = recorded.iter().any(|held| {
            held.name == entry.name && held.message == entry.message && held.phase == entry.phase
        });
        if !told {
            let why = entry.message.as_deref().unwrap_or_default();
            let note = format!("Pipeline {} cannot begin: {why}", entry.name);
            self.events.warning(&wanted.reference(), "PipelineRefused", &note).await;
        }
    }

    /// What went wrong with a Job so far. Of one that was given up this is asked once, of the API:
    /// the watch of pods may be behind.
    async fn trouble(&self, subject: &Subject, job: &JobSeen) -> Result<Option<Trouble>, Failed> {
        let namespace = &subject.job_namespace;
        match job.state {
            JobState::Running => Ok(self.jobs.trouble(&ObjectKey::new(namespace, &job.name))),
            JobState::Failed { .. } => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                let of_job = [(jobs::JOB_NAME.to_owned(), job.name.clone())].into();
                Ok(Trouble::of(&objects::with_labels(&pods, &of_job).await?))
            }
            JobState::Succeeded | JobState::Stopped => Ok(None),
        }
    }

    /// A Job that is seen to have ended may have told the object more than the copy says that all
    /// was decided from, such as that it waits: nothing begins by an older copy.
    async fn see_whether_current(&self, wanted: &Wanted<'_>) -> Result<(), Failed> {
        let name = &wanted.subject.name;
        let failed = || Failed::to(format!("begin a pipeline of {name}"));
        let live = self.object_api(wanted).get_opt(name).await.map_err(failed())?;
        let version = live.and_then(|live| live.metadata.resource_version);
        if version == wanted.object.metadata.resource_version {
            return Ok(());
        }
        let changed = Status::failure("it was changed meanwhile", "Conflict").with_code(409);
        Err(failed()(kube::Error::Api(changed.boxed())))
    }

    fn object_api(&self, wanted: &Wanted<'_>) -> Api<DynamicObject> {
        let Subject { kind, plural, namespace, .. } = wanted.subject;
        let api_version = wanted.subject.api_version();
        let kind = (kind.as_str(), plural.as_str());
        objects::dynamic_plural(&self.client, &api_version, kind, namespace.as_deref())
    }

    async fn release(&self, wanted: &Wanted<'_>) -> Result<(), Failed> {
        let (api, name) = (self.object_api(wanted), &wanted.subject.name);
        let patch = json!({ "metadata": { "labels": { labels::WORKFLOW_SUSPENDED: null } } });
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Failed::to(format!("resume {name}")))
    }

    async fn stop(&self, subject: &Subject, job: &str) -> Result<(), Failed> {
        let patch = json!({ "spec": { "suspend": true } });
        let params = PatchParams::default();
        let stopped = self.jobs_api(subject).patch(job, &params, &Patch::Merge(patch)).await;
        self.jobs.saw(stopped.map_err(Failed::to(format!("stop Job {job}")))?);
        Ok(())
    }

    fn jobs_api(&self, subject: &Subject) -> Api<Job> {
        Api::namespaced(self.client.clone(), &subject.job_namespace)
    }
}
