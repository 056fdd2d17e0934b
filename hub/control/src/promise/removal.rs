//! The way of a Promise out: its delete pipeline, its requests, its revisions, what serves its
//! pipelines, its dependencies, its CRD; then it goes. Nothing of it is left anywhere.

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use muster_api::{PromiseRevision, labels, labels::finalizer};
use muster_core::Waiting;
use muster_plan::{
    names,
    promise::{Offer, RequestApi},
    rollup,
    workflow::{Action, Scope, access, engine::Step, rerun},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, json};
use std::{collections::BTreeMap, fmt::Debug};

use super::{Case, Promises};
use crate::{
    objects::{self, Failed, is_absent, is_leaving},
    queue::Next,
};

/// The finalizers of a Promise, as Kratix sets them.
pub(super) fn finalizers(offer: &Offer) -> Vec<&'static str> {
    let mut all = vec![
        finalizer::DEPENDENCIES_CLEANUP,
        finalizer::WORKFLOWS_CLEANUP,
        finalizer::REVISION_CLEANUP,
    ];
    if offer.api.is_some() {
        all.extend([
            finalizer::RESOURCE_REQUEST_CLEANUP,
            finalizer::DYNAMIC_CONTROLLER_CLEANUP,
            finalizer::API_CRD_CLEANUP,
        ]);
    }
    if !offer.workflows.of(Scope::Promise, Action::Delete).is_empty() {
        all.push(finalizer::DELETE_WORKFLOWS);
    }
    all
}

impl Promises {
    /// Takes the removal as far as it goes now.
    pub(super) async fn remove(&self, case: &Case) -> Result<Next, Failed> {
        let own = |held: &&String| is_own(held);
        if !case.object.finalizers().iter().any(|held| own(&held)) {
            return Ok(Next::Change);
        }
        self.wake_dependants(&case.subject.promise).await?;
        // The definition goes before the rights over its requests: where it is gone, there is
        // nothing to list, and perhaps no right to.
        let api = match &case.offer.api {
            Some(api) if self.is_defined(api).await? => Some(api),
            _ => None,
        };
        if let Some(api) = api {
            self.kinds.follow(&case.subject.promise, api);
        }
        if let Some(next) = self.delete_pipeline(case).await? {
            return Ok(next);
        }
        if let Some(api) = api {
            if !self.requests_are_gone(case, api).await? {
                return Ok(Next::Change);
            }
            self.kinds.forget(&case.subject.promise);
            objects::delete(&self.definitions(), &api.crd_name()).await?;
            if self.is_defined(api).await? {
                return Ok(Next::Change);
            }
        }
        let names = case.wanted(Action::Configure).names();
        let status = &case.object.data["status"];
        if let Some(waiting) = self.children.remove(&case.subject, status, &names).await? {
            let mut draft = case.draft();
            draft.removing(&waiting, None);
            objects::write_status(&case.api, &case.object, &draft.finish()).await?;
            return Ok(Next::Change);
        }
        self.workflow.delete_jobs(&case.subject).await?;
        if !self.works_are_gone(case).await? {
            return Ok(Next::Change);
        }
        self.delete_all::<PromiseRevision>(case).await?;
        self.release_revisions(&case.subject.promise).await?;
        self.delete_all::<ClusterRoleBinding>(case).await?;
        self.delete_all::<ClusterRole>(case).await?;
        self.delete_all::<RoleBinding>(case).await?;
        self.delete_all::<Role>(case).await?;
        self.delete_all::<ServiceAccount>(case).await?;
        self.delete_all::<ConfigMap>(case).await?;
        let kept: Vec<_> = case.object.finalizers().iter().filter(|held| !is_own(held)).collect();
        let metadata = Map::from_iter([("finalizers".to_owned(), json!(kept))]);
        objects::patch_metadata(&case.api, &case.object, metadata).await?;
        self.wake_dependants(&case.subject.promise).await?;
        self.wake_required(case).await;
        Ok(Next::Change)
    }

    /// Runs the first delete pipeline, once no configure Job of the Promise or of a request runs; says
    /// when to look again, or `None` when it is done. After a failure it runs again when someone
    /// asks, or when the Promise is changed.
    async fn delete_pipeline(&self, case: &Case) -> Result<Option<Next>, Failed> {
        let mut wanted = case.wanted(Action::Delete);
        wanted.pipelines = &wanted.pipelines[..wanted.pipelines.len().min(1)];
        let hash = names::fingerprint(&["delete", &case.offer.hash]);
        wanted.hash = &hash;
        if wanted.pipelines.is_empty() {
            return Ok(None);
        }
        let configure = [
            (labels::PROMISE_NAME, case.subject.promise.as_str()),
            (labels::WORKFLOW_ACTION, Action::Configure.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        if self.workflow.runs(&case.subject.promise, &configure.into()) {
            return Ok(Some(Next::Change));
        }
        if rerun::is_asked(&case.object.metadata) {
            self.workflow.restart(&case.api, &wanted, case.now).await?;
            return Ok(Some(Next::Change));
        }
        let progress = self.workflow.advance(&wanted, case.now).await?;
        let mut draft = case.draft();
        draft.deleting(&progress, &wanted.names());
        objects::write_status(&case.api, &case.object, &draft.finish()).await?;
        let look = rerun::look_again_at(&progress.step, (None, None), case.now);
        Ok((progress.step != Step::Complete).then(|| Next::at(look, case.now)))
    }

    async fn requests_are_gone(&self, case: &Case, api: &RequestApi) -> Result<bool, Failed> {
        let kind = (api.kind.as_str(), api.plural.as_str());
        let all = objects::dynamic_plural(&self.client, &api.api_version(), kind, None);
        let listed = match all.list(&ListParams::default()).await {
            Ok(listed) => listed.items,
            Err(error) if is_absent(&error) => return Ok(true),
            Err(error) => return Err(Failed::to(format!("list {}", api.plural))(error)),
        };
        for request in listed.iter().filter(|request| !is_leaving(&request.metadata)) {
            let namespace = request.namespace().unwrap_or_default();
            let own =
                objects::dynamic_plural(&self.client, &api.api_version(), kind, Some(&namespace));
            objects::delete(&own, &request.name_any()).await?;
        }
        if let Some(first) = listed.first() {
            let mut draft = case.draft();
            let message = format!(
                "waiting for the removal of {} {}, among them {}/{}",
                listed.len(),
                api.plural,
                first.namespace().unwrap_or_default(),
                first.name_any()
            );
            draft.set("message", json!(message));
            objects::write_status(&case.api, &case.object, &draft.finish()).await?;
        }
        Ok(listed.is_empty())
    }

    async fn works_are_gone(&self, case: &Case) -> Result<bool, Failed> {
        let api = self.works_api(case);
        for work in self.works(case).iter().filter(|work| !is_leaving(&work.metadata)) {
            objects::delete(&api, &work.name_any()).await?;
        }
        if self.works(case).is_empty() {
            return Ok(true);
        }
        let (placements, sites) = (self.placements(case), self.observer.world.sites());
        let waiting: Option<Waiting> = rollup::removal(&placements, &sites);
        if let Some(waiting) = waiting {
            let mut draft = case.draft();
            draft.removing(&waiting, None);
            objects::write_status(&case.api, &case.object, &draft.finish()).await?;
        }
        Ok(false)
    }

    /// Takes away the rights that no version of the Promise asks for any more. Requests may still
    /// be bound to an older version.
    pub(super) async fn prune_access(&self, case: &Case) -> Result<(), Failed> {
        let promise = &case.subject.promise;
        let revisions: Api<PromiseRevision> = Api::all(self.client.clone());
        let held = objects::with_labels(&revisions, &owner(case)).await?;
        let older = held.iter().filter_map(|revision| {
            Offer::read(promise, 0, &revision.spec.promise_spec).ok().map(|offer| offer.workflows)
        });
        let mut versions: Vec<_> = older.collect();
        versions.push(case.offer.workflows.clone());
        let stale = |metadata: &ObjectMeta| {
            let (labels, name) = (metadata.labels.as_ref(), metadata.name.as_deref());
            labels.zip(name).is_some_and(|(l, name)| access::is_stale(promise, &versions, l, name))
        };
        self.delete_those::<ClusterRoleBinding>(case, stale).await?;
        self.delete_those::<ClusterRole>(case, stale).await?;
        self.delete_those::<RoleBinding>(case, stale).await?;
        self.delete_those::<Role>(case, stale).await?;
        let idle = |metadata: &ObjectMeta| {
            let (labels, name) = (metadata.labels.as_ref(), metadata.name.as_deref());
            let made = labels.zip(name);
            made.is_some_and(|(l, name)| access::is_stale_account(promise, &versions, l, name))
        };
        self.delete_those::<ServiceAccount>(case, idle).await
    }

    /// Deletes everything of a kind with the Promise's label, in all namespaces.
    async fn delete_all<K>(&self, case: &Case) -> Result<(), Failed>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.delete_those::<K>(case, |_| true).await
    }

    async fn delete_those<K>(
        &self,
        case: &Case,
        chosen: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<(), Failed>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let all: Api<K> = Api::all(self.client.clone());
        let found = objects::with_labels(&all, &owner(case)).await?;
        for object in found.iter().filter(|object| chosen(object.meta())) {
            let (plural, name) = (K::plural(&()), object.name_any());
            let url = K::url_path(&(), object.namespace().as_deref());
            let request = kube::core::Request::new(url)
                .delete(&name, &kube::api::DeleteParams::background())
                .map_err(|error| {
                    Failed::to(format!("delete {plural} {name}"))(kube::Error::BuildRequest(error))
                })?;
            match self.client.request_status::<K>(request).await {
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(Failed::to(format!("delete {plural} {name}"))(error)),
            }
        }
        Ok(())
    }

    async fn is_defined(&self, api: &RequestApi) -> Result<bool, Failed> {
        let name = api.crd_name();
        let found = self.definitions().get_opt(&name).await;
        found.map(|found| found.is_some()).map_err(Failed::to(format!("read {name}")))
    }

    fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }
}

/// The label of everything that belongs to a Promise.
fn owner(case: &Case) -> BTreeMap<String, String> {
    [(labels::PROMISE_NAME.to_owned(), case.subject.promise.clone())].into()
}

fn is_own(finalizer: &str) -> bool {
    [
        finalizer::DEPENDENCIES_CLEANUP,
        finalizer::WORKFLOWS_CLEANUP,
        finalizer::REVISION_CLEANUP,
        finalizer::RESOURCE_REQUEST_CLEANUP,
        finalizer::DYNAMIC_CONTROLLER_CLEANUP,
        finalizer::API_CRD_CLEANUP,
        finalizer::DELETE_WORKFLOWS,
    ]
    .contains(&finalizer)
}
