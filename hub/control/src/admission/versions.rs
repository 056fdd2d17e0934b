//! What depends on versions of Promises: may a revision change or go, and to which schema is a
//! request held?

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt, api::ListParams};
use muster_api::{Promise, PromiseRevision, ResourceBinding, SYSTEM_NAMESPACE, labels};
use muster_plan::{
    admit::{self, Refusal},
    promise::{RequestApi, revision},
    request::binding,
};
use serde_json::Value;

use super::{Admission, read, unavailable};
use crate::{
    manifests::{account_name, identity},
    objects::is_leaving,
};

/// What removes objects when their owners or namespaces have gone, in a cluster.
const COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

/// A request by its address.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The name of its CRD.
    pub definition: &'a str,
    /// The version in which it is written.
    pub version: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name; empty when it gets one.
    pub name: &'a str,
}

/// The schema to which a request is held.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSchema {
    /// The state of the revision that it is of.
    pub mark: String,
    /// The `openAPIV3Schema`.
    pub schema: Value,
}

impl Admission {
    /// Whether requests of a CRD with these annotations may be held to other schemas than the
    /// CRD's.
    pub fn governs(annotations: &BTreeMap<String, String>) -> bool {
        annotations.get(labels::SCHEMA_BY_BINDING).is_some_and(|value| value == "true")
    }

    /// The schema of the revision to which a request is bound, where it is not the latest.
    pub async fn request_schema(
        &self,
        view: RequestView<'_>,
    ) -> Result<Option<RequestSchema>, Refusal> {
        if view.name.is_empty() {
            return Ok(None);
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let found = definitions.get_opt(view.definition).await.map_err(unavailable)?;
        let promise = found.and_then(|crd| crd.labels().get(labels::PROMISE_NAME).cloned());
        let Some(promise) = promise else { return Ok(None) };
        let api: Api<ResourceBinding> = Api::namespaced(self.client.clone(), view.namespace);
        let (by_promise, by_request) = (labels::PROMISE_NAME, labels::RESOURCE_NAME);
        let found = format!("{by_promise}={promise},{by_request}={}", view.name);
        let listed = api.list(&ListParams::default().labels(&found)).await.map_err(unavailable)?;
        let [bound] = &listed.items[..] else { return Ok(None) };
        if bound.spec.version == binding::LATEST {
            return Ok(None);
        }
        let revisions: Api<PromiseRevision> = Api::all(self.client.clone());
        let name = revision::name(&promise, &bound.spec.version);
        let revision = revisions.get_opt(&name).await.map_err(unavailable)?;
        let Some(revision) = revision.filter(|held| !revision::is_latest(held)) else {
            return Ok(None);
        };
        let api = revision.spec.promise_spec.api.as_ref();
        let api = api.and_then(|crd| RequestApi::read(crd).ok());
        let schema = api.and_then(|api| api.schemas(&promise).remove(view.version));
        Ok(schema.map(|schema| RequestSchema { mark: revision::mark(&revision), schema }))
    }

    pub(super) async fn revision_change(
        &self,
        user: &str,
        (object, old): (&Value, &Value),
    ) -> Result<(), Refusal> {
        if writes_revisions(user) {
            return Ok(());
        }
        admit::revision_change(&read(old)?, &read(object)?)
    }

    pub(super) async fn revision_deletion(&self, user: &str, old: &Value) -> Result<(), Refusal> {
        let revision: PromiseRevision = read(old)?;
        let promises: Api<Promise> = Api::all(self.client.clone());
        let promise = &revision.spec.promise_ref.name;
        let found = promises.get_opt(promise).await.map_err(unavailable)?;
        let stays = found.is_some_and(|promise| !is_leaving(&promise.metadata));
        if !stays || writes_revisions(user) || COLLECTORS.contains(&user) {
            return Ok(());
        }
        let api: Api<ResourceBinding> = Api::all(self.client.clone());
        let found = format!("{}={promise}", labels::PROMISE_NAME);
        let listed = api.list(&ListParams::default().labels(&found)).await.map_err(unavailable)?;
        admit::revision_deletion(&revision, &revision::bound(&revision, &listed.items))
    }
}

/// Whether a user is the controller that keeps the revisions.
fn writes_revisions(user: &str) -> bool {
    let account = account_name(identity::PROMISE);
    user == format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{account}")
}
