//! Requests: from accepted to applied, and back to nothing.
//!
//! One reconcile goes as far as it can and waits for nothing: Jobs, Works and placements wake it.

mod binding;
mod bindings;
mod health;
mod kinds;
mod offered;
mod pace;
mod removal;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt, core::DynamicObject};
use muster_api::{
    Promise, Work, WorkPlacement,
    conditions::{Truth, kind},
    labels,
};
use muster_daemon::Clock;
use muster_plan::{
    news,
    promise::{self, Offer},
    request::{self, Draft, Idle},
    rollup::{self, Rollup},
    workflow::{Action, Subject, engine::Step, rerun},
};
use serde_json::{Map, Value, json};

use crate::{
    children::Children,
    events::Events,
    jobs::Jobs,
    objects::{self, Failed, is_leaving, is_marked},
    options::Chosen,
    owner::Owner,
    queue::Next,
    workflow::{self, Wanted, Workflow},
    world::World,
};
use binding::Bound;
pub(crate) use bindings::Bindings;
pub(crate) use health::Records;
pub(crate) use kinds::{Kinds, RequestKey};
use offered::Offered;
use pace::Pace;

/// How many requests are reconciled at once: enough to hide the API's latency, few enough that one
/// Promise's burst does not keep the others' turn away for long.
pub(crate) const AT_ONCE: usize = 8;
/// The finalizers of a request: Kratix's four.
const FINALIZERS: [&str; 4] = [
    labels::finalizer::WORK_CLEANUP,
    labels::finalizer::WORKFLOWS_CLEANUP,
    labels::finalizer::DELETE_WORKFLOWS,
    labels::finalizer::RESOURCE_BINDING_CLEANUP,
];

/// Reconciles requests.
pub(crate) struct Requests {
    client: Client,
    events: Events,
    workflow: Workflow,
    children: Children,
    world: Arc<World>,
    kinds: Kinds,
    bindings: Arc<Bindings>,
    records: Arc<Records>,
    offered: Offered,
    pace: Pace,
    options: Chosen,
    clock: Clock,
}

/// A request and all that is decided from.
struct Case {
    promise: Promise,
    offer: Offer,
    request: DynamicObject,
    subject: Subject,
    requests: Api<DynamicObject>,
    /// The interval that is written on what the request follows.
    interval: Option<String>,
    now: Timestamp,
}

impl Requests {
    pub(crate) fn new(
        client: Client,
        (world, jobs): (Arc<World>, Arc<Jobs>),
        (kinds, bindings, records): (Kinds, Arc<Bindings>, Arc<Records>),
        options: Chosen,
        clock: Clock,
    ) -> Self {
        let events = Events::new(client.clone(), "ResourceRequestController");
        let workflow = Workflow::new(client.clone(), events.clone(), options.clone(), jobs);
        let children = Children::new(client.clone());
        let (offered, pace) = (Offered::new(client.clone()), Pace::default());
        Self {
            client,
            events,
            workflow,
            children,
            world,
            kinds,
            bindings,
            records,
            offered,
            pace,
            options,
            clock,
        }
    }

    /// Looks at one request and does what is to be done now.
    pub(crate) async fn reconcile(self: Arc<Self>, key: RequestKey) -> Result<Next, Failed> {
        let Some(mut case) = self.case(&key).await? else { return Ok(Next::Change) };
        if is_leaving(&case.request.metadata) {
            self.bind_leaving(&mut case).await?;
            return self.remove(&case).await;
        }
        if is_leaving(&case.promise.metadata) {
            return Ok(Next::Change);
        }
        if let Some(idle) = idle(&case) {
            self.rest(&case, idle).await?;
            return Ok(Next::Change);
        }
        if !promise_is_settled(&case.promise) {
            return Ok(Next::Change);
        }
        let Some(mut case) = self.prepare(case).await? else { return Ok(Next::Change) };
        let bound = match self.bind(&mut case).await? {
            Ok(bound) => bound,
            Err(waiting) => {
                let mut draft = case.draft();
                draft.wait(Truth::Unknown, &waiting);
                self.write(&case, draft).await?;
                return Ok(Next::Change);
            }
        };
        if let Some(next) = self.turn(&case, &bound).await? {
            return Ok(next);
        }
        self.run(&case, &bound).await
    }

    /// Takes the configure workflow of a bound request as far as it goes now.
    async fn run(&self, case: &Case, bound: &Bound) -> Result<Next, Failed> {
        let options = self.options.now();
        let interval = rerun::interval(case.interval.as_deref(), &case.offer.workflows, &options);
        let spec_hash = case.hash();
        let wanted = case.wanted(Action::Configure, &spec_hash);
        // A version that failed is tried again only when someone asks.
        let repeats = wanted.runs_anything() && !bound.is_failed_upgrade();
        let due = case.draft().due_at(interval, &options).filter(|_| repeats);
        let (metadata, status) = (&case.request.metadata, &case.request.data["status"]);
        if rerun::must_restart(metadata, status, due, case.now) {
            self.workflow.restart(&case.requests, &wanted, case.now).await?;
            return Ok(Next::Change);
        }
        let outlook = self.workflow.look(&wanted, case.now).await?;
        let names = wanted.names();
        let family = self.children.tend(&case.subject, status, (&self.works(case), &names)).await?;
        let outlook = outlook.after(&family, &wanted, case.now);
        let progress = self.workflow.act(&wanted, outlook, case.now).await?;
        let complete = progress.step == Step::Complete;
        if complete {
            self.prune(case, &names).await?;
        }
        let mut rollup = self.rollup(case);
        family.fold_into(&mut rollup, case.now);
        let mut draft = case.draft();
        bound.record(&mut draft);
        draft.judge_again(&promise_available());
        draft.workflow(&progress, &names);
        draft.children(&family);
        let quiet = draft.clone().finish() == case.request.data["status"];
        draft.standing(&rollup);
        if complete {
            draft.settle_message(None);
            draft.set("promiseVersion", json!(bound.version));
            draft.set("resourceBindingVersion", json!(bound.binding.spec.version));
            draft.works(&rollup);
        }
        let due = draft.due_at(interval, &options).filter(|_| repeats);
        let wait = self.may_wait(case, &draft, (&progress.step, &rollup, quiet));
        // What is to be made is recorded first, and at once.
        if let Some(wait) = wait.filter(|_| !family.is_news(status)) {
            return Ok(Next::Underway(Some(wait)));
        }
        let said = draft.said(kind::CONFIGURE_WORKFLOW_COMPLETED);
        let written = self.write(case, draft).await?;
        self.turned(case, bound, (&progress.step, &said)).await?;
        if complete && written {
            self.tell_done(case, bound, &rollup).await;
        }
        let look = rerun::look_again_at(&progress.step, (rollup.wake_at, due), case.now);
        let next = match family.is_news(status) {
            // They are recorded now.
            true => Next::After(Duration::ZERO),
            false => Next::at(look, case.now),
        };
        Ok(if is_settled(&progress.step, &rollup) { next } else { next.underway() })
    }

    /// Tells people what is new of a request whose pipelines have all ended well.
    async fn tell_done(&self, case: &Case, bound: &Bound, rollup: &Rollup) {
        let about = workflow::reference(&case.subject, &case.request);
        let version = &bound.binding.spec.version;
        if case.request.data["status"]["resourceBindingVersion"] != json!(version) {
            let note = format!("Resource binding version updated to {version}");
            self.events.normal(&about, "ResourceBindingVersionUpdated", &note).await;
        }
        if !was_reconciled(&case.request) && rollup.reconciled.truth == Truth::True {
            self.events.normal(&about, "ReconcileSucceeded", "Successfully reconciled").await;
        }
    }

    /// Says why nothing runs.
    async fn rest(&self, case: &Case, idle: Idle<'_>) -> Result<(), Failed> {
        let label = case.request.labels().get(labels::PROMISE_NAME);
        if idle != Idle::Paused && label != Some(&case.subject.promise) {
            let labels = json!({ labels::PROMISE_NAME: case.subject.promise });
            let metadata = Map::from_iter([("labels".to_owned(), labels)]);
            objects::patch_metadata(&case.requests, &case.request, metadata).await?;
            return Ok(());
        }
        let mut draft = case.draft();
        draft.idle(idle);
        let is_news = !rerun::was_paused(&case.request.data["status"]);
        self.write(case, draft).await?;
        if idle == Idle::Paused && is_news {
            let about = workflow::reference(&case.subject, &case.request);
            self.events.warning(&about, "PausedReconciliation", "Paused").await;
        }
        Ok(())
    }

    /// Reads the request, its Promise, and what the Promise offers; `None` when there is nothing to
    /// do for it.
    async fn case(&self, key: &RequestKey) -> Result<Option<Case>, Failed> {
        let Some(known) = self.offered.now(&key.promise).await? else { return Ok(None) };
        let (promise, offer) = (known.0.clone(), known.1.clone());
        let Some(api) = offer.api.clone() else { return Ok(None) };
        let requests = objects::dynamic_plural(
            &self.client,
            &api.api_version(),
            (&api.kind, &api.plural),
            Some(&key.namespace),
        );
        let request = requests.get_opt(&key.name).await;
        let request = request
            .map_err(Failed::to(format!("read {} {}/{}", api.kind, key.namespace, key.name)))?;
        let Some(request) = request else { return Ok(None) };
        let uid = request.uid().unwrap_or_default();
        let subject = request::subject(
            &key.promise,
            &api,
            (&key.namespace, &key.name, &uid),
            offer.workflows.namespace.as_deref(),
        );
        let interval = rerun::annotated(&promise.metadata).map(str::to_owned);
        let now = self.clock.now();
        Ok(Some(Case { promise, offer, request, subject, requests, interval, now }))
    }

    /// Finalizers and the Promise's label, in one write.
    async fn prepare(&self, mut case: Case) -> Result<Option<Case>, Failed> {
        let held = case.request.finalizers();
        let missing = FINALIZERS.iter().any(|own| !held.iter().any(|held| held == own));
        let label = case.request.labels().get(labels::PROMISE_NAME);
        if !missing && label == Some(&case.subject.promise) {
            return Ok(Some(case));
        }
        let mut all = held.to_vec();
        all.extend(FINALIZERS.iter().map(|own| (*own).to_owned()));
        all.sort();
        all.dedup();
        let mut metadata = Map::new();
        metadata.insert("finalizers".to_owned(), json!(all));
        metadata.insert("labels".to_owned(), json!({ labels::PROMISE_NAME: case.subject.promise }));
        case.request = objects::patch_metadata(&case.requests, &case.request, metadata).await?;
        Ok(Some(case))
    }

    /// Works of pipelines that the Promise no longer has go once the others have succeeded.
    async fn prune(&self, case: &Case, names: &[&str]) -> Result<(), Failed> {
        let api = self.works_api(case);
        for work in self.works(case) {
            let pipeline = work.labels().get(labels::PIPELINE_NAME).map_or("", String::as_str);
            if !names.contains(&pipeline) && !is_leaving(&work.metadata) {
                objects::delete(&api, &work.name_any()).await?;
            }
        }
        Ok(())
    }

    fn rollup(&self, case: &Case) -> Rollup {
        let (works, placements) = (self.works(case), self.placements(case));
        let mut rollup = rollup::works(rollup::View {
            owner: rollup::Owner::Request,
            works: &works,
            placements: &placements,
            sites: &self.world.sites(),
            now: case.now,
        });
        let records = self.records.of(&case.key());
        rollup.health_status = request::health::status(&rollup.health_status, &records);
        rollup
    }

    fn works(&self, case: &Case) -> Vec<Work> {
        let namespace = Some(case.subject.job_namespace.as_str());
        let mut works = self.world.works_with(&case.subject.labels());
        works.retain(|work| work.metadata.namespace.as_deref() == namespace);
        works
    }

    fn placements(&self, case: &Case) -> Vec<WorkPlacement> {
        let namespace = Some(case.subject.job_namespace.as_str());
        let owner = Owner::by(&case.subject.labels());
        let mut placements =
            owner.map(|owner| self.world.placements_of(&owner)).unwrap_or_default();
        placements.retain(|it| it.metadata.namespace.as_deref() == namespace);
        placements
    }

    fn works_api(&self, case: &Case) -> Api<Work> {
        Api::namespaced(self.client.clone(), &case.subject.job_namespace)
    }

    async fn write(&self, case: &Case, draft: Draft) -> Result<bool, Failed> {
        let status = draft.finish();
        self.pace.told(&case.key());
        let written = objects::put_status(&case.requests, &case.request, &status).await?;
        if let Some(written) = &written {
            self.kinds.wrote(&case.key(), written);
            let about = workflow::reference(&case.subject, &case.request);
            let mut news = news::of_works(&case.request.data["status"], &status);
            if self.records.are_any(&case.key()) {
                news.extend(request::health::news(&case.request.data["status"], &status));
            }
            self.events.news(&about, &news).await;
        }
        Ok(written.is_some())
    }

    /// How long this news may wait for the next: that files are on their way while the pipeline that
    /// made them ends, or that they are while a connected agent applies them. `quiet`: of the
    /// workflow there is nothing new.
    fn may_wait(
        &self,
        case: &Case,
        draft: &Draft,
        (step, rollup, quiet): (&Step, &Rollup, bool),
    ) -> Option<Duration> {
        let brief = match step {
            Step::Running { .. } => quiet,
            Step::Complete => rollup.heard_soon,
            _ => false,
        };
        if !brief || draft.clone().finish() == case.request.data["status"] {
            self.pace.told(&case.key());
            return None;
        }
        self.pace.wait(&case.key(), self.clock.instant())
    }
}

impl Case {
    fn draft(&self) -> Draft {
        Draft::new(&self.request.data["status"], self.generation(), self.now)
    }

    fn key(&self) -> RequestKey {
        RequestKey {
            promise: self.subject.promise.clone(),
            namespace: self.subject.namespace.clone().unwrap_or_default(),
            name: self.subject.name.clone(),
        }
    }

    fn generation(&self) -> i64 {
        self.request.metadata.generation.unwrap_or_default()
    }

    fn hash(&self) -> String {
        let asked = self.promise.annotations().get(labels::RESOURCES_ASKED).map(String::as_str);
        request::hash(&self.offer.hash, asked, self.generation(), &self.request.data["spec"])
    }

    /// The names of its configure pipelines.
    fn pipelines(&self) -> Vec<&str> {
        self.wanted(Action::Configure, "").names()
    }

    fn wanted<'a>(&'a self, action: Action, hash: &'a str) -> Wanted<'a> {
        Wanted {
            object: &self.request,
            subject: &self.subject,
            action,
            pipelines: self.offer.workflows.of(self.subject.scope, action),
            hash,
            selectors: &self.promise.spec.destination_selectors,
        }
    }
}

/// Why nothing runs, if nothing does.
fn idle(case: &Case) -> Option<Idle<'_>> {
    let paused = |metadata| is_marked(metadata, labels::PAUSED);
    if paused(&case.promise.metadata) || paused(&case.request.metadata) {
        return Some(Idle::Paused);
    }
    let unavailable = !promise::status::available(&case.promise);
    unavailable.then_some(Idle::PromiseUnavailable(&case.subject.promise))
}

/// Whether the Promise's own workflow is complete for its present spec; while it runs, its requests
/// stay as they are and are woken at its end.
fn promise_is_settled(promise: &Promise) -> bool {
    let observed = promise.status.as_ref().and_then(|status| status.observed_generation);
    observed == promise.metadata.generation
}

/// Whether a request waits for somebody, not for its turn.
fn is_settled(step: &Step, rollup: &Rollup) -> bool {
    match step {
        Step::Complete => rollup.reconciled.truth == Truth::True,
        Step::Start { .. } | Step::Running { .. } | Step::Await { .. } => false,
        Step::Suspended { .. } | Step::Failed { .. } | Step::Held { .. } | Step::Refused { .. } => {
            true
        }
    }
}

fn promise_available() -> muster_api::conditions::Verdict {
    muster_api::conditions::Verdict::new(
        kind::PROMISE_AVAILABLE,
        muster_api::conditions::Truth::True,
        "PromiseAvailable",
        "Promise Requirements are met",
    )
}

fn was_reconciled(request: &DynamicObject) -> bool {
    let conditions = request.data.pointer("/status/conditions").and_then(Value::as_array);
    let mut reconciled = conditions.into_iter().flatten().filter(|c| c["type"] == kind::RECONCILED);
    reconciled.any(|condition| condition["status"] == "True")
}
