//! The ResourceBinding of a request: which version of its Promise it follows.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use muster_api::{
    ResourceBinding, ResourceBindingSpec,
    conditions::{self, Truth, Verdict},
    labels,
    promise_revision::PromiseRef,
    resource_binding::ResourceRef,
};
use muster_plan::{names, promise};
use serde_json::json;

use super::{Case, Requests};
use crate::objects::{self, Failed, is_conflict};

/// The version of a binding that follows each new version of its Promise.
pub(super) const LATEST: &str = "latest";
const UPGRADE_SUCCEEDED: &str = "UpgradeSucceeded";

impl Requests {
    /// The request's binding: a found one is adopted, a missing one made.
    pub(super) async fn binding(&self, case: &Case) -> Result<ResourceBinding, Failed> {
        let api = self.bindings(case);
        let stem = format!("{}-{}", case.subject.name, case.subject.promise);
        let name = names::bounded(&stem, &[&case.subject.uid]);
        // By name, which costs the same however many there are; by labels if it is not our own.
        let own = api.get_opt(&name).await;
        if let Some(own) = own.map_err(Failed::to(format!("read ResourceBinding {name}")))? {
            return Ok(own);
        }
        if let Some(found) = objects::with_labels(&api, &found_by(case)).await?.into_iter().next() {
            return Ok(found);
        }
        let status = &case.request.data["status"]["resourceBindingVersion"];
        let spec = ResourceBindingSpec {
            version: status.as_str().unwrap_or(LATEST).to_owned(),
            promise_ref: PromiseRef { name: case.subject.promise.clone() },
            resource_ref: ResourceRef {
                name: case.subject.name.clone(),
                namespace: case.subject.namespace.clone().unwrap_or_default(),
                generation: case.generation(),
            },
        };
        let mut binding = ResourceBinding::new(&name, spec);
        binding.metadata = ObjectMeta { labels: Some(found_by(case)), ..binding.metadata };
        match api.create(&PostParams::default(), &binding).await {
            Ok(made) => Ok(made),
            Err(error) if is_conflict(&error) => {
                api.get(&name).await.map_err(Failed::to(format!("read ResourceBinding {name}")))
            }
            Err(error) => Err(Failed::to(format!("create ResourceBinding {name}"))(error)),
        }
    }

    /// Records that the request is at its version.
    pub(super) async fn binding_applied(
        &self,
        binding: &ResourceBinding,
        case: &Case,
    ) -> Result<(), Failed> {
        let version = match binding.spec.version.as_str() {
            LATEST => promise::version(&case.promise).to_owned(),
            exact => exact.to_owned(),
        };
        let old = binding.status.clone().unwrap_or_default();
        let mut status = old.clone();
        let message = format!("Resource is at version {version}");
        let verdict = Verdict::new(UPGRADE_SUCCEEDED, Truth::True, "UpgradeComplete", message);
        conditions::set(&mut status.conditions, &verdict, None, case.now);
        status.last_applied_version = Some(version);
        status.failed_version = None;
        if status == old {
            return Ok(());
        }
        let (name, patch) = (binding.name_any(), json!({ "status": status }));
        let params = PatchParams::default();
        let patched = self.bindings(case).patch_status(&name, &params, &Patch::Merge(patch)).await;
        let failed = Failed::to(format!("write the status of ResourceBinding {name}"));
        patched.map(drop).map_err(failed)
    }

    /// Deletes the request's bindings.
    pub(super) async fn delete_binding(&self, case: &Case) -> Result<(), Failed> {
        let api = self.bindings(case);
        for binding in objects::with_labels(&api, &found_by(case)).await? {
            objects::delete(&api, &binding.name_any()).await?;
        }
        Ok(())
    }

    fn bindings(&self, case: &Case) -> Api<ResourceBinding> {
        let namespace = case.subject.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn found_by(case: &Case) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::PROMISE_NAME.to_owned(), case.subject.promise.clone()),
        (labels::RESOURCE_NAME.to_owned(), case.subject.name.clone()),
    ])
}
