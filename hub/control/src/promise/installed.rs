//! What a Promise installs: its request API, its static dependencies.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use muster_api::{PromiseRevision, labels};
use muster_core::FileSet;
use muster_plan::{
    promise::{RequestApi, dependencies, revision},
    request::Draft,
    work::Group,
};
use serde_json::json;

use super::{Case, Promises};
use crate::{
    manifests,
    objects::{self, Failed, ensure},
    work::{self, WorkError},
};

impl Promises {
    /// Installs the request CRD and the right to work with its objects; says whether it is served.
    /// Requests that are bound to one of the `revisions` are held to its schema.
    pub(super) async fn install_api(
        &self,
        case: &Case,
        revisions: &[PromiseRevision],
        draft: &mut Draft,
    ) -> Result<bool, Failed> {
        let Some(api) = &case.offer.api else { return Ok(true) };
        for object in manifests::request_access(&case.subject.promise, api) {
            ensure(&self.client, &object).await?;
        }
        let mut definition = api.installed(&case.subject.promise);
        if revision::differ(&case.subject.promise, api, revisions) {
            definition["metadata"]["annotations"][labels::SCHEMA_BY_BINDING] = json!("true");
        }
        match ensure(&self.client, &definition).await {
            Ok(_) => {}
            Err(error) if error.answer().is_some() => {
                let cause = error.answer().unwrap_or_default();
                draft
                    .set("message", json!(format!("the request API cannot be installed: {cause}")));
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        self.is_established(api).await
    }

    /// Writes the static dependencies as a Work; none take an earlier one away.
    pub(super) async fn install_dependencies(&self, case: &Case) -> Result<(), WorkError> {
        let objects = &case.promise.spec.dependencies;
        if objects.is_empty() {
            for work in self.works(case) {
                if !work.labels().contains_key(labels::PIPELINE_NAME) {
                    objects::delete(&self.works_api(case), &work.name_any()).await?;
                }
            }
            return Ok(());
        }
        // Files of one document list cannot pass the limits: the Promise itself is smaller.
        let files = dependencies::files(&case.subject.promise, objects).unwrap_or_else(|error| {
            tracing::error!(%error, "static dependencies are not files");
            FileSet::new()
        });
        let selectors = case.promise.spec.destination_selectors.iter().map(|selector| {
            let mut selector = selector.clone();
            selector.source = Some("promise".to_owned());
            selector
        });
        let group = Group { directory: ".".to_owned(), files, selectors: selectors.collect() };
        let hands = (&self.content, &self.observer);
        let output = (vec![group], Vec::new());
        work::put(&self.client, hands, &case.subject, None, output).await.map(drop)
    }

    async fn is_established(&self, api: &RequestApi) -> Result<bool, Failed> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = api.crd_name();
        let found = definitions.get_opt(&name).await;
        let found = found.map_err(Failed::to(format!("read CustomResourceDefinition {name}")))?;
        let conditions = found.and_then(|crd| crd.status).and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        Ok(conditions
            .any(|condition| condition.type_ == "Established" && condition.status == "True"))
    }
}
