//! The revisions of a Promise: written when it changes, let go when nobody needs them.
//!
//! A revision that is deleted stays until no request is bound to it: Kratix deletes such requests
//! without a word.

use std::collections::BTreeSet;

use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use muster_api::{
    Promise, PromiseRevision, ResourceBinding,
    conditions::{self, Truth, Verdict, kind},
    labels::{self, finalizer},
};
use muster_plan::promise::revision;
use serde_json::{Value, json};

use super::{Case, Promises};
use crate::{
    objects::{self, Failed, is_leaving},
    workflow,
};

impl Promises {
    /// Keeps the Promise's spec under its version, makes that the latest, and lets go what is no
    /// longer needed; the revisions that there are.
    pub(super) async fn install_revisions(
        &self,
        case: &Case,
    ) -> Result<Vec<PromiseRevision>, Failed> {
        let wanted = revision::of(&case.promise);
        let name = wanted.name_any();
        let mut held = self.revisions(&case.subject.promise).await?;
        match held.iter_mut().find(|revision| revision.name_any() == name) {
            Some(present) => {
                let released = revision::is_released(&case.promise);
                self.keep_up(present, wanted, released).await?;
            }
            None => {
                let mut wanted = wanted;
                let order = revision::next_order(&held).to_string();
                let annotations = wanted.metadata.annotations.get_or_insert_default();
                annotations.insert(labels::REVISION_ORDER.to_owned(), order);
                let created = self.revisions_api().create(&PostParams::default(), &wanted).await;
                let failed = Failed::to(format!("create PromiseRevision {name}"));
                held.push(created.map_err(failed)?);
                let about = workflow::reference(&case.subject, &case.object);
                let note = format!("Revision {name} created");
                self.events.normal(&about, "RevisionCreated", &note).await;
            }
        }
        let order = revision::next_order(&held);
        for revision in &held {
            self.mark_latest(revision, (revision.name_any() == name).then_some(order)).await?;
        }
        if held.len() > revision::UNUSED_KEPT + 1 || held.iter().any(is_going) {
            self.let_go_of(&mut held, case).await?;
        }
        Ok(held)
    }

    /// Lets go of all revisions that are being deleted, whatever is bound to them: their Promise is
    /// gone, or goes last.
    pub(super) async fn release_revisions(&self, promise: &str) -> Result<(), Failed> {
        for revision in self.revisions(promise).await?.iter().filter(|held| is_going(held)) {
            self.release_revision(revision).await?;
        }
        Ok(())
    }

    /// Its interval follows the Promise's, unless a release says what the Promise is: then it is the
    /// revision's own.
    async fn keep_up(
        &self,
        present: &mut PromiseRevision,
        wanted: PromiseRevision,
        released: bool,
    ) -> Result<(), Failed> {
        let mut next = present.clone();
        next.spec = wanted.spec;
        if is_leaving(&next.metadata) {
            return Ok(());
        }
        next.metadata.owner_references = wanted.metadata.owner_references;
        let finalizers = next.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|held| held == finalizer::RESOURCE_REQUEST_CLEANUP) {
            finalizers.push(finalizer::RESOURCE_REQUEST_CLEANUP.to_owned());
        }
        match wanted.metadata.annotations {
            Some(interval) => {
                next.metadata.annotations.get_or_insert_default().extend(interval);
            }
            None if released => {}
            None => {
                if let Some(held) = &mut next.metadata.annotations {
                    held.remove(labels::RECONCILIATION_INTERVAL);
                }
            }
        }
        if (&next.spec, &next.metadata) == (&present.spec, &present.metadata) {
            return Ok(());
        }
        let name = present.name_any();
        let replaced = self.revisions_api().replace(&name, &PostParams::default(), &next).await;
        *present = replaced.map_err(Failed::to(format!("update PromiseRevision {name}")))?;
        Ok(())
    }

    /// Makes a revision the latest, in this place, or an earlier one.
    async fn mark_latest(
        &self,
        revision: &PromiseRevision,
        order: Option<i64>,
    ) -> Result<(), Failed> {
        let latest = order.is_some();
        let (api, params, name) =
            (self.revisions_api(), PatchParams::default(), revision.name_any());
        let said = revision.status.as_ref().is_some_and(|status| status.latest);
        let value = |of: Value| if latest { of } else { Value::Null };
        if revision::is_latest(revision) != latest {
            let label = json!({ labels::LATEST_REVISION: value(json!("true")) });
            let mut metadata = json!({ "labels": label });
            if let Some(order) = order {
                metadata["annotations"] = json!({ labels::REVISION_ORDER: order.to_string() });
            }
            let patch = Patch::Merge(json!({ "metadata": metadata }));
            let patched = api.patch(&name, &params, &patch).await;
            patched.map_err(Failed::to(format!("label PromiseRevision {name}")))?;
        }
        if said != latest {
            let patch = Patch::Merge(json!({ "status": { "latest": value(json!(true)) } }));
            let patched = api.patch_status(&name, &params, &patch).await;
            patched.map_err(Failed::to(format!("mark PromiseRevision {name}")))?;
        }
        Ok(())
    }

    /// Deletes what is surplus, and lets what is being deleted go once nothing is bound to it.
    async fn let_go_of(&self, held: &mut Vec<PromiseRevision>, case: &Case) -> Result<(), Failed> {
        let api: Api<ResourceBinding> = Api::all(self.client.clone());
        let bindings = objects::with_labels(&api, &owner(&case.subject.promise)).await?;
        let required = self.required_versions(&case.subject.promise).await?;
        let surplus = revision::surplus(held, &bindings, &required);
        for name in &surplus {
            objects::delete(&self.revisions_api(), name).await?;
        }
        for revision in held.iter().filter(|revision| is_going(revision)) {
            let bound = revision::bound(revision, &bindings);
            if bound.is_empty() || revision::skips_cleanup(revision) {
                self.release_revision(revision).await?;
            } else {
                self.hold_back(revision, &bound, case).await?;
            }
        }
        let gone: BTreeSet<_> = surplus.into_iter().map(str::to_owned).collect();
        held.retain(|revision| !gone.contains(&revision.name_any()));
        Ok(())
    }

    /// Says what a deletion waits for.
    async fn hold_back(
        &self,
        revision: &PromiseRevision,
        bound: &[String],
        case: &Case,
    ) -> Result<(), Failed> {
        let mut status = revision.status.clone().unwrap_or_default();
        let message = revision::in_use(revision, bound);
        let verdict = Verdict::new(kind::REMOVED, Truth::False, "InUse", message);
        if !conditions::set(&mut status.conditions, &verdict, None, case.now) {
            return Ok(());
        }
        let name = revision.name_any();
        let patch = Patch::Merge(json!({ "status": { "conditions": status.conditions } }));
        let params = PatchParams::default();
        let patched = self.revisions_api().patch_status(&name, &params, &patch).await;
        patched.map(drop).map_err(Failed::to(format!("write the status of {name}")))
    }

    async fn release_revision(&self, revision: &PromiseRevision) -> Result<(), Failed> {
        let name = revision.name_any();
        let mut kept = revision.finalizers().to_vec();
        kept.retain(|held| held != finalizer::RESOURCE_REQUEST_CLEANUP);
        if kept.len() == revision.finalizers().len() {
            return Ok(());
        }
        let version = revision.resource_version();
        let patch = json!({ "metadata": { "finalizers": kept, "resourceVersion": version } });
        let params = PatchParams::default();
        match self.revisions_api().patch(&name, &params, &Patch::Merge(patch)).await {
            Err(error) if !objects::is_absent(&error) => {
                Err(Failed::to(format!("release PromiseRevision {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// The versions of a Promise that other Promises require.
    async fn required_versions(&self, promise: &str) -> Result<BTreeSet<String>, Failed> {
        let api: Api<Promise> = Api::all(self.client.clone());
        let listed = api.list(&ListParams::default()).await;
        let all = listed.map_err(Failed::to("list Promises"))?.items;
        let required = all.into_iter().flat_map(|other| other.spec.required_promises);
        Ok(required.filter(|it| it.name == promise).map(|it| it.version).collect())
    }

    async fn revisions(&self, promise: &str) -> Result<Vec<PromiseRevision>, Failed> {
        objects::with_labels(&self.revisions_api(), &owner(promise)).await
    }

    fn revisions_api(&self) -> Api<PromiseRevision> {
        Api::all(self.client.clone())
    }
}

fn owner(promise: &str) -> std::collections::BTreeMap<String, String> {
    [(labels::PROMISE_NAME.to_owned(), promise.to_owned())].into()
}

fn is_going(revision: &PromiseRevision) -> bool {
    is_leaving(&revision.metadata)
}
