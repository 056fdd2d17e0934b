//! What a Promise needs of others, and who needs it: each is woken when the other changes, so that
//! nobody has to look again by the clock.

use kube::{Api, ResourceExt, api::ListParams};
use muster_api::{Promise, PromiseRevision, conditions::Truth, promise::RequiredPromise};
use muster_plan::{
    promise::{self, status},
    request::Draft,
};
use serde_json::json;

use super::{Case, Promises};
use crate::objects::Failed;

impl Promises {
    /// Says of each requirement how it stands, and who requires this Promise; whether all that it
    /// needs is there.
    pub(super) async fn judge_requirements(
        &self,
        case: &Case,
        draft: &mut Draft,
    ) -> Result<bool, Failed> {
        let required = &case.promise.spec.required_promises;
        let all = self.all().await?;
        let (mut states, mut present) = (Vec::with_capacity(required.len()), Vec::new());
        for required in required {
            let found = all.iter().find(|promise| promise.name_any() == required.name);
            let has_revision = found.is_some() && self.has_revision(required).await?;
            states.push(status::requirement(required, found, has_revision));
            present.extend(found.cloned());
        }
        let or_none = |empty: bool, value| if empty { json!(null) } else { value };
        draft.set("requiredPromises", or_none(states.is_empty(), json!(states)));
        let by = status::required_by(&case.subject.promise, &all);
        draft.set("requiredBy", or_none(by.is_empty(), json!(by)));
        for name in status::to_tell(&case.promise, &present) {
            self.triggers.look_at(name).await;
        }
        let verdict = status::requirements(&states);
        match states.is_empty() {
            true => draft.forget(verdict.kind),
            false => draft.judge(&verdict),
        }
        Ok(verdict.truth == Truth::True)
    }

    /// Looks again at the Promises that require this one.
    pub(super) async fn wake_dependants(&self, name: &str) -> Result<(), Failed> {
        for promise in self.all().await? {
            if promise.spec.required_promises.iter().any(|required| required.name == name) {
                self.triggers.look_at(promise.name_any()).await;
            }
        }
        Ok(())
    }

    /// Looks again at the Promises that this one required.
    pub(super) async fn wake_required(&self, case: &Case) {
        for required in &case.promise.spec.required_promises {
            self.triggers.look_at(required.name.clone()).await;
        }
    }

    async fn has_revision(&self, required: &RequiredPromise) -> Result<bool, Failed> {
        if required.version.is_empty() {
            return Ok(false);
        }
        let name = promise::revision::name(&required.name, &required.version);
        let revisions: Api<PromiseRevision> = Api::all(self.client.clone());
        let found = revisions.get_opt(&name).await;
        let found = found.map_err(Failed::to(format!("read PromiseRevision {name}")))?;
        Ok(found.is_some_and(|found| found.spec.version == required.version))
    }

    async fn all(&self) -> Result<Vec<Promise>, Failed> {
        let api: Api<Promise> = Api::all(self.client.clone());
        let listed = api.list(&ListParams::default()).await;
        Ok(listed.map_err(Failed::to("list Promises"))?.items)
    }
}
