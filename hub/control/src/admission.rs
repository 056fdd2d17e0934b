//! Asked before a write is committed: may this Promise, revision, Destination or store be so?
//!
//! The rules are `plan/admit`'s. What only the API can say (does it take the CRD, the Jobs?) is
//! asked of it by dry run.

mod versions;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Namespace},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    core::DynamicObject,
};
use muster_api::{
    Agent, BucketStateStore, Destination, FLEET_GROUP, GitStateStore, KRATIX_GROUP, Promise,
    PromiseRelease, PromiseRevision, SYSTEM_NAMESPACE, Work,
    destination::{StateStoreKind, StateStoreRef},
};
use muster_daemon::Clock;
use muster_plan::{
    admit::{self, Place, Places, Refusal},
    config,
    options::Options,
    promise::{self, Offer, status},
    workflow::Scope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    configuration,
    manifests::{account_name, identity},
    objects,
    options::Chosen,
    places::Claims,
    queue::chain,
};

pub use versions::{RequestSchema, RequestView};

/// The group of those who may do everything.
const MASTERS: &str = "system:masters";

/// A write that is about to be committed.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionView<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'a str,
    /// Who writes.
    pub user: &'a str,
    /// The groups of who writes.
    pub groups: &'a [String],
    /// The object's API group.
    pub group: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its plural.
    pub resource: &'a str,
    /// Which part is written: `status`, `scale`, ...; empty for the object itself.
    pub subresource: &'a str,
    /// The object as it would be; none on delete.
    pub object: Option<&'a Value>,
    /// The object as it is; none on create.
    pub old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub dry_run: bool,
}

/// The hub's rules on what enters the API.
#[derive(Clone)]
pub struct Admission {
    client: Client,
    options: Chosen,
    claims: Arc<Claims>,
    clock: Clock,
}

impl Admission {
    /// With the client of the admission controller.
    pub(crate) fn new(
        client: Client,
        options: Chosen,
        claims: Arc<Claims>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self { client, options, claims, clock })
    }

    /// Whether there may be rules on this kind: on some of the hub's, and on any that could be a
    /// request, which only its definition says.
    pub fn wants(group: &str, resource: &str) -> bool {
        match group {
            KRATIX_GROUP => {
                matches!(
                    resource,
                    "promises"
                        | "destinations"
                        | "promisereleases"
                        | "promiserevisions"
                        | "gitstatestores"
                        | "bucketstatestores"
                        | "works"
                )
            }
            FLEET_GROUP => false,
            "" => resource == "configmaps",
            _ => group.contains('.') && !group.ends_with(".k8s.io"),
        }
    }

    /// Fills in what the writer left out and no schema can say.
    pub fn complete(group: &str, resource: &str, object: &mut Value) {
        if (group, resource) == (KRATIX_GROUP, "destinations") {
            admit::complete_destination(object);
        }
    }

    /// Lets a write through, with warnings for the client, or refuses it.
    pub async fn review(&self, view: AdmissionView<'_>) -> Result<Vec<String>, Refusal> {
        match view.subresource {
            "" if view.group == KRATIX_GROUP || view.kind == "ConfigMap" => {}
            "status" if view.group == KRATIX_GROUP && view.kind != "Promise" => {
                return Ok(Vec::new());
            }
            "status" => return self.status(&view).await.map(|()| Vec::new()),
            _ => return Ok(Vec::new()),
        }
        match (view.kind, view.operation, view.object, view.old) {
            ("Promise", "CREATE" | "UPDATE", Some(object), old) => self.promise(object, old).await,
            ("Destination", "CREATE" | "UPDATE", Some(object), old) => {
                self.destination(object, old, view.dry_run).await
            }
            ("Work", "CREATE" | "UPDATE", Some(object), old) => {
                let old: Option<Work> = old.map(read).transpose()?;
                admit::work(&read(object)?, old.as_ref()).map(|()| Vec::new())
            }
            ("GitStateStore", "CREATE" | "UPDATE", Some(object), _) => {
                admit::git_store(&read::<GitStateStore>(object)?).map(|()| Vec::new())
            }
            ("BucketStateStore", "CREATE" | "UPDATE", Some(object), _) => {
                admit::bucket_store(&read::<BucketStateStore>(object)?).map(|()| Vec::new())
            }
            ("ConfigMap", "CREATE" | "UPDATE", Some(object), _) if is_configuration(object) => {
                self.configuration(object).await
            }
            ("PromiseRelease", "CREATE" | "UPDATE", Some(object), _) => {
                admit::release(&read::<PromiseRelease>(object)?).map(|()| Vec::new())
            }
            ("PromiseRevision", "UPDATE", Some(object), Some(old)) => {
                self.revision_change(view.user, (object, old)).await.map(|()| Vec::new())
            }
            ("PromiseRevision", "DELETE", _, Some(old)) => {
                self.revision_deletion(view.user, old).await.map(|()| Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A pipeline has the right to write the status of what it runs for, but not all of it.
    async fn status(&self, view: &AdmissionView<'_>) -> Result<(), Refusal> {
        let (Some(new), Some(old)) = (view.object, view.old) else { return Ok(()) };
        if view.groups.iter().any(|group| group == MASTERS) || writes_status(view.user) {
            return Ok(());
        }
        let scope = match (view.group, view.kind) {
            (KRATIX_GROUP, "Promise") => Scope::Promise,
            _ if self.is_request(view).await? => Scope::Resource,
            _ => return Ok(()),
        };
        let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        admit::status_change(scope, (view.kind, name), (old, new))
    }

    async fn is_request(&self, view: &AdmissionView<'_>) -> Result<bool, Refusal> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = format!("{}.{}", view.resource, view.group);
        let found = definitions.get_opt(&name).await.map_err(unavailable)?;
        Ok(found.is_some_and(|crd| crd.labels().contains_key(muster_api::labels::PROMISE_NAME)))
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
        let missing = self.missing_namespace(&offer).await?;
        let promises: Api<Promise> = Api::all(self.client.clone());
        let revisions: Api<PromiseRevision> = Api::all(self.client.clone());
        let mut states = Vec::new();
        for required in &promise.spec.required_promises {
            let found = promises.get_opt(&required.name).await.map_err(unavailable)?;
            let revision = promise::revision::name(&required.name, &required.version);
            let revision = revisions.get_opt(&revision).await.map_err(unavailable)?;
            states.push(status::requirement(required, found.as_ref(), revision.is_some()));
        }
        let warnings = admit::promise_warnings(&promise, &states);
        Ok(missing.into_iter().chain(warnings).collect())
    }

    /// A namespace for pipelines that is not there (yet).
    async fn missing_namespace(&self, offer: &Offer) -> Result<Option<String>, Refusal> {
        let Some(name) = &offer.workflows.namespace else { return Ok(None) };
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = namespaces.get_opt(name).await.map_err(unavailable)?;
        let warning = || {
            format!(
                "spec.workflows.config.pipelineNamespace: there is no namespace {name:?}: \
                 pipelines cannot run until it is created"
            )
        };
        Ok(found.is_none().then(warning))
    }

    async fn destination(
        &self,
        object: &Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Vec<String>, Refusal> {
        let destination: Destination = read(object)?;
        let old: Option<Destination> = old.map(read).transpose()?;
        if old.is_some_and(|old| old.spec == destination.spec) {
            return Ok(Vec::new());
        }
        let agents: Api<Agent> = Api::all(self.client.clone());
        let name = destination.metadata.name.as_deref().unwrap_or_default();
        let agent = agents.get_opt(name).await.map_err(unavailable)?.is_some();
        let Some(reference) = &destination.spec.state_store_ref else {
            return admit::destination(&destination, agent, false);
        };
        let store = self.has_store(reference).await?;
        let warnings = admit::destination(&destination, agent, store)?;
        self.take_place(&destination, dry_run).await.map(|()| warnings)
    }

    /// Takes a Destination's place, unless nothing will be written.
    async fn take_place(&self, destination: &Destination, dry_run: bool) -> Result<(), Refusal> {
        let Some(place) = Place::of(destination) else { return Ok(()) };
        let name = destination.metadata.name.as_deref().unwrap_or_default();
        if !self.claims.is_complete() {
            let all: Api<Destination> = Api::all(self.client.clone());
            let listed = all.list(&ListParams::default()).await.map_err(unavailable)?;
            let mut places = Places::default();
            for other in &listed.items {
                if let Some(place) = Place::of(other) {
                    places.put(&place, other.metadata.name.as_deref().unwrap_or_default());
                }
            }
            if let Some(by) = places.in_the_way(&place, name) {
                return Err(admit::taken(destination, &place, by));
            }
        }
        let now = self.clock.now();
        let taken = match dry_run {
            true => self.claims.in_the_way(name, &place, now).map_or(Ok(()), Err),
            false => self.claims.claim(name, place.clone(), now),
        };
        taken.map_err(|by| admit::taken(destination, &place, by))
    }

    async fn has_store(&self, reference: &StateStoreRef) -> Result<bool, Refusal> {
        let name = &reference.name;
        let found = match reference.kind {
            StateStoreKind::GitStateStore => {
                let stores: Api<GitStateStore> = Api::all(self.client.clone());
                stores.get_opt(name).await.map(|found| found.is_some())
            }
            StateStoreKind::BucketStateStore => {
                let stores: Api<BucketStateStore> = Api::all(self.client.clone());
                stores.get_opt(name).await.map(|found| found.is_some())
            }
        };
        found.map_err(unavailable)
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
                    return Err(admit::definition_refused(&cause));
                }
                wanted["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
                (all.replace(&name, &params, &parse(wanted)?).await, "invalid CRD changes")
            }
        };
        match judgement(tried)? {
            None => Ok(()),
            Some(cause) => Err(admit::definition_refused(&format!("{prefix}: {cause}"))),
        }
    }

    /// Whether the API would take the Jobs of the pipelines.
    async fn try_jobs(&self, offer: &Offer) -> Result<(), Refusal> {
        let wrong = self.wrong_jobs(offer, &self.options.now()).await?;
        if wrong.is_empty() { Ok(()) } else { Err(admit::jobs_refused(&wrong)) }
    }

    /// What the API has against the Jobs of a Promise's pipelines, under these options.
    async fn wrong_jobs(&self, offer: &Offer, options: &Options) -> Result<Vec<String>, Refusal> {
        let dry_runs = match admit::dry_runs(offer, options) {
            Ok(dry_runs) => dry_runs,
            Err(cause) => return Ok(vec![cause]),
        };
        let mut wrong = Vec::new();
        for (what, mut job) in dry_runs {
            job.metadata.namespace = Some(SYSTEM_NAMESPACE.to_owned());
            let jobs: Api<Job> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            if let Some(cause) = judgement(jobs.create(&params, &job).await)? {
                wrong.push(format!("{what}{cause}"));
            }
        }
        Ok(wrong)
    }

    /// Whether the platform may be configured so.
    async fn configuration(&self, object: &Value) -> Result<Vec<String>, Refusal> {
        let invalid = |cause: &str| {
            Refusal::invalid(format!("ConfigMap {:?} is invalid: {cause}", config::NAME))
        };
        let map: ConfigMap = read(object)?;
        let (options, warnings) =
            configuration::review(&map, self.options.base()).map_err(|cause| invalid(&cause))?;
        let Some(sample) = config::sample() else { return Ok(warnings) };
        match self.wrong_jobs(&sample, &options).await?.as_slice() {
            [] => Ok(warnings),
            [cause, ..] => {
                Err(invalid(&format!("data[{}]: workflows: {}", config::KEY, cause.trim_start())))
            }
        }
    }
}

/// Whether an object is the platform's configuration.
fn is_configuration(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["name"] == config::NAME && metadata["namespace"] == SYSTEM_NAMESPACE
}

/// Whether a user is one of the controllers that write the status of Promises and requests.
fn writes_status(user: &str) -> bool {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
    account.is_some_and(|(namespace, name)| {
        let own = [identity::PROMISE, identity::REQUEST, identity::RESULTS];
        namespace == SYSTEM_NAMESPACE && own.map(account_name).contains(&name.to_owned())
    })
}

/// What the API has against a dry run: a judgement is a refusal, a failure is not.
fn judgement<K>(tried: kube::Result<K>) -> Result<Option<String>, Refusal> {
    match tried {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Ok(Some(status.message))
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
