//! Asked before a write is committed: may this Promise, Destination or revision be so?
//!
//! The rules are `plan/admit`'s. What only the API can say (does it take the CRD, the Jobs?) is
//! asked of it by dry run.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Client, api::PostParams, core::DynamicObject};
use muster_api::{Agent, Destination, KRATIX_GROUP, Promise, PromiseRevision, SYSTEM_NAMESPACE};
use muster_plan::{
    admit::{self, Refusal},
    promise::{Offer, status},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{objects, queue::chain};

/// A write that is about to be committed.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionView<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'a str,
    /// Who writes.
    pub user: &'a str,
    /// The object's group.
    pub group: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The object as it would be; none on delete.
    pub object: Option<&'a Value>,
    /// The object as it is; none on create.
    pub old: Option<&'a Value>,
}

/// The hub's rules on what enters the API.
#[derive(Clone)]
pub struct Admission {
    client: Client,
}

impl Admission {
    /// With the client of the admission controller.
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client })
    }

    /// Whether there are rules on this kind.
    pub fn wants(group: &str, resource: &str) -> bool {
        group == KRATIX_GROUP
            && matches!(resource, "promises" | "destinations" | "promiserevisions")
    }

    /// Lets a write through, with warnings for the client, or refuses it.
    pub async fn review(&self, view: AdmissionView<'_>) -> Result<Vec<String>, Refusal> {
        match (view.kind, view.operation, view.object, view.old) {
            ("Promise", "CREATE" | "UPDATE", Some(object), old) => self.promise(object, old).await,
            ("Destination", "CREATE" | "UPDATE", Some(object), old) => {
                self.destination(object, old).await
            }
            ("PromiseRevision", "DELETE", _, Some(old)) => {
                let revision: PromiseRevision = read(old)?;
                admit::revision_deletion(&revision, view.user).map(|()| Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn promise(&self, object: &Value, old: Option<&Value>) -> Result<Vec<String>, Refusal> {
        let old_promise: Option<Promise> = old.map(read).transpose()?;
        let promise: Promise = read(object)?;
        let spec_is_same = old_promise.as_ref().is_some_and(|old| old.spec == promise.spec);
        if promise.metadata.deletion_timestamp.is_some() {
            return Ok(Vec::new());
        }
        let offer = admit::promise(&promise, old_promise.as_ref())?;
        if spec_is_same {
            return Ok(Vec::new());
        }
        self.try_definition(&offer).await?;
        self.try_jobs(&offer).await?;
        let promises: Api<Promise> = Api::all(self.client.clone());
        let mut states = Vec::new();
        for required in &promise.spec.required_promises {
            let found = promises.get_opt(&required.name).await.map_err(unavailable)?;
            states.push(status::requirement(required, found.as_ref()));
        }
        Ok(admit::promise_warnings(&promise, &states))
    }

    async fn destination(
        &self,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Vec<String>, Refusal> {
        let destination: Destination = read(object)?;
        let old: Option<Destination> = old.map(read).transpose()?;
        if old.is_some_and(|old| old.spec == destination.spec) {
            return Ok(Vec::new());
        }
        let agents: Api<Agent> = Api::all(self.client.clone());
        let name = destination.metadata.name.as_deref().unwrap_or_default();
        let agent = agents.get_opt(name).await.map_err(unavailable)?.is_some();
        admit::destination(&destination, agent).map(|()| Vec::new())
    }

    /// Whether the API would take the request CRD.
    async fn try_definition(&self, offer: &Offer) -> Result<(), Refusal> {
        let Some(api) = &offer.api else { return Ok(()) };
        let (kind, name) = ("CustomResourceDefinition", api.crd_name());
        let all = objects::dynamic(&self.client, "apiextensions.k8s.io/v1", kind, None);
        let mut wanted = api.installed(&offer.promise);
        let live = all.get_opt(&name).await.map_err(unavailable)?;
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let (tried, prefix) = match live {
            None => (all.create(&params, &parse(wanted)?).await, "invalid CRD"),
            Some(live) => {
                let owner = live.metadata.labels.as_ref();
                let owner = owner.and_then(|all| all.get(muster_api::labels::PROMISE_NAME));
                if owner != Some(&offer.promise) {
                    let cause = format!(
                        "spec.api: the CRD {name} exists and does not belong to this promise: \
                         delete it, or choose another group or plural"
                    );
                    return Err(admit::promise_refused(&offer.promise, &cause));
                }
                wanted["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
                (all.replace(&name, &params, &parse(wanted)?).await, "invalid CRD changes")
            }
        };
        answer(tried, &offer.promise, prefix)
    }

    /// Whether the API would take the Jobs of the pipelines.
    async fn try_jobs(&self, offer: &Offer) -> Result<(), Refusal> {
        let refused = |cause: &str| admit::promise_refused(&offer.promise, cause);
        for (field, mut job) in admit::dry_runs(offer).map_err(|cause| refused(&cause))? {
            job.metadata.namespace = Some(SYSTEM_NAMESPACE.to_owned());
            let jobs: Api<Job> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            answer(jobs.create(&params, &job).await, &offer.promise, &field)?;
        }
        Ok(())
    }
}

/// What the API says of a dry run: a judgement is a refusal, a failure is not.
fn answer<K>(tried: kube::Result<K>, promise: &str, prefix: &str) -> Result<(), Refusal> {
    match tried {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Err(admit::promise_refused(promise, &format!("{prefix}: {}", status.message)))
        }
        Err(error) => Err(unavailable(error)),
    }
}

fn read<K: DeserializeOwned>(object: &Value) -> Result<K, Refusal> {
    serde_json::from_value(object.clone()).map_err(|error| Refusal::bad_request(error.to_string()))
}

fn parse(value: Value) -> Result<DynamicObject, Refusal> {
    read(&value)
}

fn unavailable(error: kube::Error) -> Refusal {
    Refusal::unavailable(chain(&error))
}
