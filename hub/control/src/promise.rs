//! Promises: the request API, the revision, the dependencies, the promise pipelines; and away again.

mod installed;
mod removal;
mod requirements;
mod revisions;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use muster_api::{
    Promise, Work, WorkPlacement,
    conditions::{Truth, Verdict, kind},
    labels,
};
use muster_daemon::Clock;
use muster_plan::{
    news,
    promise::{self, Offer, status},
    request::{Draft, Idle},
    rollup::{self, Rollup},
    workflow::{Action, Scope, Subject, engine::Step, rerun},
};
use serde_json::{Map, json};

use crate::{
    children::Children,
    content::ContentStore,
    events::Events,
    fleet::Observer,
    jobs::Jobs,
    objects::{self, Failed, is_leaving, is_marked},
    options::Chosen,
    owner::Owner,
    queue::{Next, Triggers},
    request::Kinds,
    work::WorkError,
    workflow::{self, Wanted, Workflow},
};

/// How many Promises are reconciled at once: they are few.
pub(crate) const AT_ONCE: usize = 4;
/// The message of a Promise whose pipelines say nothing.
const MESSAGE_DONE: &str = "Promise configured";

/// Reconciles Promises.
pub(crate) struct Promises {
    client: Client,
    events: Events,
    workflow: Workflow,
    children: Children,
    content: ContentStore,
    observer: Observer,
    kinds: Kinds,
    triggers: Triggers<String>,
    options: Chosen,
    clock: Clock,
}

/// Why a Promise could not be taken further. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromiseError {
    /// The API.
    #[error(transparent)]
    Api(#[from] Failed),
    /// Its dependencies.
    #[error("failed to write the static dependencies")]
    Dependencies(#[source] WorkError),
}

/// A Promise and all that is decided from.
struct Case {
    promise: Promise,
    object: DynamicObject,
    offer: Offer,
    subject: Subject,
    api: Api<DynamicObject>,
    now: Timestamp,
}

impl Promises {
    pub(crate) fn new(
        client: Client,
        (observer, jobs): (Observer, Arc<Jobs>),
        (kinds, triggers): (Kinds, Triggers<String>),
        options: Chosen,
        clock: Clock,
    ) -> Self {
        let events = Events::new(client.clone(), "PromiseController");
        let workflow = Workflow::new(client.clone(), events.clone(), options.clone(), jobs);
        let content = ContentStore::new(client.clone(), clock.clone());
        let children = Children::new(client.clone());
        Self {
            client,
            events,
            workflow,
            children,
            content,
            observer,
            kinds,
            triggers,
            options,
            clock,
        }
    }

    /// Looks at one Promise and does what is to be done now.
    pub(crate) async fn reconcile(self: Arc<Self>, name: String) -> Result<Next, PromiseError> {
        let Some(case) = self.case(&name).await? else {
            self.kinds.forget(&name);
            self.release_revisions(&name).await?;
            return Ok(Next::Change);
        };
        if is_leaving(&case.promise.metadata) {
            return Ok(self.remove(&case).await?);
        }
        if is_marked(&case.promise.metadata, labels::PAUSED) {
            self.pause(&case).await?;
            return Ok(Next::Change);
        }
        let case = self.prepare(case).await?;
        let revisions = self.install_revisions(&case).await?;
        let mut draft = case.draft();
        let fulfilled = self.judge_requirements(&case, &mut draft).await?;
        let established = self.install_api(&case, &revisions, &mut draft).await?;
        self.install_dependencies(&case).await.map_err(PromiseError::Dependencies)?;

        let options = self.options.now();
        let annotated = rerun::annotated(&case.object.metadata);
        let interval = rerun::interval(annotated, &case.offer.workflows, &options);
        let wanted = case.wanted(Action::Configure);
        let due = case.draft().due_at(interval, &options).filter(|_| wanted.runs_anything());
        let (metadata, status) = (&case.object.metadata, &case.object.data["status"]);
        if rerun::must_restart(metadata, status, due, case.now) {
            self.workflow.restart(&case.api, &wanted, case.now).await?;
            return Ok(Next::Change);
        }
        let outlook = self.workflow.look(&wanted, case.now).await?;
        let names = wanted.names();
        let made_of = (&self.works(&case)[..], &names[..]);
        let family = self.children.tend(&case.subject, status, made_of).await?;
        let outlook = outlook.after(&family, &wanted, case.now);
        let progress = self.workflow.act(&wanted, outlook, case.now).await?;
        let complete = progress.step == Step::Complete;
        if complete {
            self.prune(&case, &names).await?;
            if case.is_changed() {
                self.prune_access(&case).await?;
            }
        }
        let mut rollup = self.rollup(&case);
        family.fold_into(&mut rollup, case.now);
        match wanted.runs_anything() {
            true => draft.workflow(&progress, &names),
            false => draft.no_workflow(),
        }
        draft.children(&family);
        draft.standing(&rollup);
        let suspended = matches!(progress.step, Step::Suspended { .. });
        let halted = suspended || matches!(progress.step, Step::Failed { .. });
        if !fulfilled && !halted {
            draft.judge(&status::waits_for_requirements());
        }
        let held = status::available(&case.promise);
        let can = fulfilled && established && (complete || (held && !halted));
        conclude(&case, &mut draft, (can, complete && fulfilled), &rollup);
        if suspended {
            let reason = "WorkflowSuspended";
            draft.judge(&Verdict::new(kind::AVAILABLE, Truth::False, reason, "Suspended"));
        }
        if let (true, Some(api)) = (established, &case.offer.api) {
            self.kinds.follow(&case.subject.promise, api);
        }
        let due = draft.due_at(interval, &options).filter(|_| wanted.runs_anything());
        self.finish(&case, draft, can).await?;
        self.rerun_requests(&case).await?;
        let look = rerun::look_again_at(&progress.step, (rollup.wake_at, due), case.now);
        Ok(match family.is_news(status) {
            // They are recorded now.
            true => Next::After(Duration::ZERO),
            false => Next::at(look, case.now),
        })
    }

    async fn case(&self, name: &str) -> Result<Option<Case>, Failed> {
        let api = objects::dynamic(&self.client, "platform.kratix.io/v1alpha1", "Promise", None);
        let object = api.get_opt(name).await.map_err(Failed::to(format!("read Promise {name}")))?;
        let Some(object) = object else { return Ok(None) };
        let promise: Promise = serde_json::to_value(&object)
            .and_then(serde_json::from_value)
            .map_err(kube::Error::SerdeError)
            .map_err(Failed::to(format!("read Promise {name}")))?;
        let generation = promise.metadata.generation.unwrap_or_default();
        let now = self.clock.now();
        let offer = match Offer::read(name, generation, &promise.spec) {
            Ok(offer) => offer,
            Err(causes) => {
                let mut draft = Draft::new(&object.data["status"], generation, now);
                let (mut verdict, word) = status::availability(false);
                verdict.message = format!("Cannot fulfil resource requests: {}", causes.join("; "));
                draft.judge(&verdict);
                draft.set("status", json!(word));
                objects::write_status(&api, &object, &status::repeated(draft.finish())).await?;
                return Ok(None);
            }
        };
        let uid = object.uid().unwrap_or_default();
        let subject = Subject::promise(name, &uid, offer.workflows.namespace.as_deref());
        Ok(Some(Case { promise, object, offer, subject, api, now }))
    }

    async fn pause(&self, case: &Case) -> Result<(), Failed> {
        let mut draft = case.draft();
        let paused = |kind, truth| Verdict::new(kind, truth, "PausedReconciliation", "Paused");
        draft.judge(&paused(kind::AVAILABLE, Truth::False));
        draft.idle(Idle::Paused);
        draft.set("status", json!("Unavailable"));
        let status = status::repeated(draft.finish());
        if objects::write_status(&case.api, &case.object, &status).await? {
            let about = workflow::reference(&case.subject, &case.object);
            self.events.warning(&about, "PausedReconciliation", "Paused").await;
            if let Some(api) = &case.offer.api {
                self.kinds.follow(&case.subject.promise, api);
            }
            self.kinds.wake(&case.subject.promise);
        }
        Ok(())
    }

    async fn prepare(&self, mut case: Case) -> Result<Case, Failed> {
        let wanted = removal::finalizers(&case.offer);
        let held = case.object.finalizers();
        if wanted.iter().all(|own| held.iter().any(|held| held == own)) {
            return Ok(case);
        }
        let mut all: Vec<String> = held.to_vec();
        all.extend(wanted.into_iter().map(str::to_owned));
        all.sort();
        all.dedup();
        let metadata = Map::from_iter([("finalizers".to_owned(), json!(all))]);
        case.object = objects::patch_metadata(&case.api, &case.object, metadata).await?;
        Ok(case)
    }

    async fn prune(&self, case: &Case, names: &[&str]) -> Result<(), Failed> {
        let api = self.works_api(case);
        for work in self.works(case) {
            let Some(pipeline) = work.labels().get(labels::PIPELINE_NAME) else { continue };
            if !names.contains(&pipeline.as_str()) && !is_leaving(&work.metadata) {
                objects::delete(&api, &work.name_any()).await?;
            }
        }
        Ok(())
    }

    fn works(&self, case: &Case) -> Vec<Work> {
        let namespace = Some(case.subject.job_namespace.as_str());
        let mut works = self.observer.world.works_with(&case.subject.labels());
        works.retain(|work| work.metadata.namespace.as_deref() == namespace);
        works
    }

    fn placements(&self, case: &Case) -> Vec<WorkPlacement> {
        let namespace = Some(case.subject.job_namespace.as_str());
        let owner = Owner::Promise(case.subject.promise.clone());
        let mut placements = self.observer.world.placements_of(&owner);
        placements.retain(|it| it.metadata.namespace.as_deref() == namespace);
        placements
    }

    fn rollup(&self, case: &Case) -> Rollup {
        let (works, placements) = (self.works(case), self.placements(case));
        rollup::works(rollup::View {
            owner: rollup::Owner::Promise,
            works: &works,
            placements: &placements,
            sites: &self.observer.world.sites(),
            now: case.now,
        })
    }

    fn works_api(&self, case: &Case) -> Api<Work> {
        Api::namespaced(self.client.clone(), &case.subject.job_namespace)
    }

    /// Writes status; tells requests and other Promises when what they wait for changed.
    async fn finish(&self, case: &Case, draft: Draft, can: bool) -> Result<(), Failed> {
        let status = status::repeated(draft.finish());
        let old = &case.object.data["status"];
        let observed = old["observedGeneration"] != status["observedGeneration"];
        let turned = can != status::available(&case.promise);
        let upgraded = old["version"] != status["version"];
        if objects::write_status(&case.api, &case.object, &status).await? {
            let about = workflow::reference(&case.subject, &case.object);
            self.events.news(&about, &news::of_promise(old, &status)).await;
        }
        if turned || observed || upgraded {
            self.wake_dependants(&case.subject.promise).await?;
            self.kinds.wake(&case.subject.promise);
        }
        Ok(())
    }

    /// The label by which a person asks that all requests run again goes, and what each request's
    /// run is named by changes: in one write, so that each of them runs again once.
    async fn rerun_requests(&self, case: &Case) -> Result<(), Failed> {
        if !is_marked(&case.promise.metadata, labels::RECONCILE_RESOURCES) {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "labels": { labels::RECONCILE_RESOURCES: null },
            "annotations": { labels::RESOURCES_ASKED: case.object.metadata.resource_version },
        } });
        let name = &case.subject.promise;
        let patched = case.api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map_err(Failed::to(format!("take the label of Promise {name}")))?;
        self.kinds.wake(name);
        let about = workflow::reference(&case.subject, &case.object);
        let note = "Reconciling all resource requests";
        self.events.normal(&about, "ReconcilingResources", note).await;
        Ok(())
    }
}

impl Case {
    /// Whether this spec has not been seen through yet.
    fn is_changed(&self) -> bool {
        let observed = self.promise.status.as_ref().and_then(|status| status.observed_generation);
        observed != self.promise.metadata.generation
    }

    fn draft(&self) -> Draft {
        let generation = self.promise.metadata.generation.unwrap_or_default();
        Draft::new(&self.object.data["status"], generation, self.now)
    }

    fn wanted(&self, action: Action) -> Wanted<'_> {
        Wanted {
            object: &self.object,
            subject: &self.subject,
            action,
            pipelines: self.offer.workflows.of(Scope::Promise, action),
            hash: &self.offer.hash,
            selectors: &self.promise.spec.destination_selectors,
        }
    }
}

/// The end of a Promise's status: whether it is available, and whether it is done.
fn conclude(case: &Case, draft: &mut Draft, (can, done): (bool, bool), rollup: &Rollup) {
    let (verdict, word) = status::availability(can);
    draft.judge(&verdict);
    draft.set("status", json!(word));
    draft.set("version", json!(promise::labelled_version(&case.promise)));
    if can {
        draft.set("lastAvailableTime", json!(status::last_available(&case.promise, case.now)));
    }
    if let Some(api) = &case.offer.api {
        draft.set("kind", json!(api.kind));
        draft.set("apiVersion", json!(api.api_version().to_lowercase()));
    }
    if done {
        if case.wanted(Action::Configure).runs_anything() {
            draft.settle_message(Some(MESSAGE_DONE));
        }
        draft.works(rollup);
    }
}
