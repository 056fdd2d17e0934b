//! The ResourceBinding of a request: which revision of its Promise it follows, and how it moves
//! from one to the next.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use muster_api::{
    PromiseRevision, ResourceBinding, ResourceBindingSpec, conditions::Truth, labels,
    promise_revision::PromiseRef, resource_binding::ResourceRef,
};
use muster_core::Waiting;
use muster_plan::{
    names,
    promise::{self, Offer, revision},
    request::{
        self, Draft,
        binding::{self, Turn},
    },
    workflow::{Action, engine::Step, rerun},
};
use serde_json::json;

use super::{Case, Requests};
use crate::{
    objects::{self, Failed, is_conflict, is_marked},
    queue::Next,
    workflow,
};

/// What a request is bound to.
pub(super) struct Bound {
    /// Its binding.
    pub(super) binding: ResourceBinding,
    /// The version that it follows now.
    pub(super) version: String,
    /// The state of that version's revision.
    mark: String,
}

impl Requests {
    /// Binds a request: its pipelines, and all that is decided from them, become those of the
    /// revision that its binding names. Otherwise says what is in the way.
    pub(super) async fn bind(&self, case: &mut Case) -> Result<Result<Bound, Waiting>, Failed> {
        let binding = match self.binding(case).await? {
            Ok(binding) => binding,
            Err(waiting) => return Ok(Err(waiting)),
        };
        self.mirror(&binding, case).await?;
        let version = revision::wanted(&binding, &case.promise).to_owned();
        let found = self.offered.at(&case.subject.promise, &version).await?;
        let Some(revision) = found else {
            let about = workflow::reference(&case.subject, &case.request);
            let note = format!("there is no PromiseRevision of version {version}");
            self.events.warning(&about, "FailedPromiseRevisionLookup", &note).await;
            let (promise, binding) = (case.subject.promise.clone(), binding.name_any());
            return Ok(Err(Waiting::RevisionMissing { promise, version, binding }));
        };
        let mark = revision::mark(&revision.0);
        case.follow(&revision);
        Ok(Ok(Bound { binding, version, mark }))
    }

    /// Has a request that goes run the delete pipeline of the version at which it is.
    pub(super) async fn bind_leaving(&self, case: &mut Case) -> Result<(), Failed> {
        let Some(binding) = self.found(case).await?.into_iter().next() else { return Ok(()) };
        let applied = binding.status.as_ref().and_then(|it| it.last_applied_version.clone());
        let version =
            applied.unwrap_or_else(|| revision::wanted(&binding, &case.promise).to_owned());
        if let Some(revision) = self.offered.at(&case.subject.promise, &version).await? {
            case.follow(&revision);
        }
        Ok(())
    }

    /// Begins anew when the request is to follow another revision, or when somebody asked on the
    /// binding that a version be tried again. Says when to look again if that is all for now.
    pub(super) async fn turn(&self, case: &Case, bound: &Bound) -> Result<Option<Next>, Failed> {
        if is_marked(&bound.binding.metadata, labels::MANUAL_RECONCILIATION) {
            let hash = case.hash();
            let wanted = case.wanted(Action::Configure, &hash);
            self.workflow.restart(&case.requests, &wanted, case.now).await?;
            self.take_label(case, &bound.binding).await?;
            return Ok(Some(Next::Change));
        }
        let status = &case.request.data["status"];
        let Some(before) = request::followed(status) else {
            self.tell_start(case, bound).await;
            return Ok(None);
        };
        if before == bound.mark {
            return Ok(None);
        }
        if let Some(cause) = self.misfit(case).await? {
            let waiting = Waiting::DoesNotFit { version: bound.version.clone(), cause };
            let mut draft = case.draft();
            draft.wait(Truth::False, &waiting);
            self.write(case, draft).await?;
            self.tell_binding(case, bound, Turn::Failed(&waiting.message())).await?;
            return Ok(Some(Next::Change));
        }
        self.tell_start(case, bound).await;
        let mut draft = case.draft();
        draft.restarted(Action::Configure);
        draft.follow(&bound.mark);
        self.write(case, draft).await?;
        self.tell_binding(case, bound, Turn::Running).await?;
        // Our own write wakes nobody.
        Ok(Some(Next::Underway(Some(Duration::ZERO))))
    }

    /// Writes what came of a run onto the binding.
    pub(super) async fn turned(
        &self,
        case: &Case,
        bound: &Bound,
        (step, why): (&Step, &str),
    ) -> Result<(), Failed> {
        let turn = match step {
            Step::Complete => Turn::Done,
            Step::Failed { .. } => Turn::Failed(why),
            _ => Turn::Running,
        };
        self.tell_binding(case, bound, turn).await
    }

    /// Deletes the request's bindings.
    pub(super) async fn delete_binding(&self, case: &Case) -> Result<(), Failed> {
        let api = self.bindings(case);
        for binding in objects::with_labels(&api, &found_by(case)).await? {
            objects::delete(&api, &binding.name_any()).await?;
        }
        Ok(())
    }

    /// The request's binding: a found one is adopted, a missing one made.
    async fn binding(&self, case: &Case) -> Result<Result<ResourceBinding, Waiting>, Failed> {
        let mut found = self.found(case).await?;
        if found.len() > 1 {
            let bindings = found.iter().map(ResourceExt::name_any).collect();
            return Ok(Err(Waiting::SeveralBindings { bindings }));
        }
        match found.pop() {
            Some(found) => Ok(Ok(found)),
            None => self.new_binding(case).await.map(Ok),
        }
    }

    /// The bindings of a request: our own by its name, which costs the same however many there are;
    /// by labels where that is not the only one.
    async fn found(&self, case: &Case) -> Result<Vec<ResourceBinding>, Failed> {
        let (api, name) = (self.bindings(case), own_name(case));
        if !self.bindings.are_several(&case.key()) {
            let own = api.get_opt(&name).await;
            let own = own.map_err(Failed::to(format!("read ResourceBinding {name}")))?;
            if let Some(own) = own.filter(|own| is_of(own, case)) {
                return Ok(vec![own]);
            }
        }
        objects::with_labels(&api, &found_by(case)).await
    }

    async fn new_binding(&self, case: &Case) -> Result<ResourceBinding, Failed> {
        let recorded = case.request.data["status"]["resourceBindingVersion"].as_str();
        let (strategy, present) = (self.options.now().binding, promise::version(&case.promise));
        let version = binding::first_version(recorded, strategy, present);
        let spec = ResourceBindingSpec {
            version: version.clone(),
            promise_ref: PromiseRef { name: case.subject.promise.clone() },
            resource_ref: ResourceRef {
                name: case.subject.name.clone(),
                namespace: case.subject.namespace.clone().unwrap_or_default(),
                generation: case.generation(),
            },
        };
        let name = own_name(case);
        let mut binding = ResourceBinding::new(&name, spec);
        let (mut labels, annotations) = binding::first_metadata(case.request.labels());
        labels.extend(found_by(case));
        binding.metadata = ObjectMeta { labels: Some(labels), annotations, ..binding.metadata };
        let api = self.bindings(case);
        match api.create(&PostParams::default(), &binding).await {
            Ok(made) => {
                let about = workflow::reference(&case.subject, &case.request);
                let promise = &case.subject.promise;
                let note =
                    format!("Binding {name} created for promise {promise} version {version}");
                self.events.normal(&about, "BindingCreated", &note).await;
                Ok(made)
            }
            Err(error) if is_conflict(&error) => {
                api.get(&name).await.map_err(Failed::to(format!("read ResourceBinding {name}")))
            }
            Err(error) => Err(Failed::to(format!("create ResourceBinding {name}"))(error)),
        }
    }

    /// Copies the request's labels onto its binding.
    async fn mirror(&self, binding: &ResourceBinding, case: &Case) -> Result<(), Failed> {
        let Some(metadata) = binding::mirrored(binding, case.request.labels()) else {
            return Ok(());
        };
        let (name, patch) = (binding.name_any(), json!({ "metadata": metadata }));
        let params = PatchParams::default();
        let patched = self.bindings(case).patch(&name, &params, &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Failed::to(format!("label ResourceBinding {name}")))
    }

    /// Whether the request is not what its revision's schema asks: what the API says of it when it
    /// is to be made, without making it. Where it is, the API only says that there is one already.
    async fn misfit(&self, case: &Case) -> Result<Option<String>, Failed> {
        let DynamicObject { types, metadata, data } = case.request.clone();
        let (name, namespace) = (metadata.name, metadata.namespace);
        let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
        let mut probe = DynamicObject { types, metadata, data };
        if let Some(fields) = probe.data.as_object_mut() {
            fields.remove("status");
        }
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match case.requests.create(&params, &probe).await {
            Ok(_) => Ok(None),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                Ok(Some(status.message.clone()))
            }
            Err(error) => {
                Err(Failed::to(format!("try {} against its schema", case.subject.name))(error))
            }
        }
    }

    /// Takes the label by which a person asked; one shot.
    async fn take_label(&self, case: &Case, binding: &ResourceBinding) -> Result<(), Failed> {
        let name = binding.name_any();
        let labels = json!({ labels::MANUAL_RECONCILIATION: null });
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let patched = self.bindings(case).patch(&name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(Failed::to(format!("take the label of ResourceBinding {name}")))
    }

    async fn tell_start(&self, case: &Case, bound: &Bound) {
        let about = workflow::reference(&case.subject, &case.request);
        let revision = revision::name(&case.subject.promise, &bound.version);
        let note = format!("reconciling resource request with promise revision {revision}");
        self.events.normal(&about, "ReconcileStarted", &note).await;
    }

    async fn tell_binding(&self, case: &Case, bound: &Bound, turn: Turn<'_>) -> Result<(), Failed> {
        let old = bound.binding.status.clone().unwrap_or_default();
        let status = binding::status(&old, &bound.version, turn, case.now);
        if status == old {
            return Ok(());
        }
        let name = bound.binding.name_any();
        let gone = status.failed_version.is_none() && old.failed_version.is_some();
        let mut status = json!(status);
        if gone {
            status["failedVersion"] = json!(null);
        }
        let (params, patch) = (PatchParams::default(), json!({ "status": status }));
        let patched = self.bindings(case).patch_status(&name, &params, &Patch::Merge(patch)).await;
        let failed = Failed::to(format!("write the status of ResourceBinding {name}"));
        patched.map(drop).map_err(failed)
    }

    fn bindings(&self, case: &Case) -> Api<ResourceBinding> {
        let namespace = case.subject.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Case {
    /// Takes what the request follows from a revision. The hash of its inputs has the revision's
    /// generation in it, not the Promise's: another version does not concern it.
    fn follow(&mut self, known: &(PromiseRevision, Offer)) {
        let (revision, offer) = known;
        let namespace = self.subject.namespace.clone().unwrap_or_default();
        self.subject.job_namespace = offer.workflows.namespace.clone().unwrap_or(namespace);
        self.interval = rerun::annotated(&revision.metadata).map(str::to_owned);
        self.offer = offer.clone();
        self.promise.spec = revision.spec.promise_spec.clone();
    }
}

impl Bound {
    /// Whether the last move to this version failed: then it is tried again only when asked.
    pub(super) fn is_failed_upgrade(&self) -> bool {
        let status = self.binding.status.as_ref();
        status.is_some_and(|status| {
            let version = Some(self.version.as_str());
            status.failed_version.as_deref() == version
                && status.last_applied_version.is_some()
                && status.last_applied_version.as_deref() != version
        })
    }

    /// Records in a request's status which revision its run is of.
    pub(super) fn record(&self, draft: &mut Draft) {
        draft.follow(&self.mark);
    }
}

fn own_name(case: &Case) -> String {
    let stem = format!("{}-{}", case.subject.name, case.subject.promise);
    names::bounded(&stem, &[&case.subject.uid])
}

/// Whether a binding has the labels by which it is the request's.
fn is_of(binding: &ResourceBinding, case: &Case) -> bool {
    let held = binding.labels();
    found_by(case).iter().all(|(key, value)| held.get(key) == Some(value))
}

fn found_by(case: &Case) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::PROMISE_NAME.to_owned(), case.subject.promise.clone()),
        (labels::RESOURCE_NAME.to_owned(), case.subject.name.clone()),
    ])
}
