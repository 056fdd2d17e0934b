//! Works → WorkPlacements: does what `muster_plan::schedule` says.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use muster_api::{
    Work, WorkPlacement,
    labels::{self, finalizer},
};
use muster_plan::schedule::{Schedule, Update};
use serde_json::json;

use crate::{queue::Next, shelf::ObjectKey, world::World};

/// How many Works are placed at once: enough to keep the API busy, few enough to stay in memory.
pub(crate) const AT_ONCE: usize = 16;

/// How long a watch may need to show what a write met.
const CATCH_UP: Duration = Duration::from_millis(2);

/// Places Works; clones share the index.
#[derive(Clone)]
pub(crate) struct Scheduler {
    pub client: Client,
    pub world: Arc<World>,
}

/// Why a Work's placements could not be made what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// The API refused or failed.
    #[error("{object} could not be {action}")]
    Api {
        object: String,
        action: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    /// Another Work's placement has the name.
    #[error(
        "WorkPlacement {0} exists and belongs to another Work: delete it, or rename one of the two \
         requests"
    )]
    Taken(ObjectKey),
}

impl Scheduler {
    /// Makes the placements of one Work what the plan says.
    pub(crate) async fn reconcile(self, key: ObjectKey) -> Result<Next, ScheduleError> {
        match self.place(key).await {
            // The watch is about to show the newer copy; it is no news that there is one.
            Err(ScheduleError::Api { source, .. }) if is_conflict(&source) => {
                Ok(Next::After(CATCH_UP))
            }
            result => result,
        }
    }

    async fn place(&self, key: ObjectKey) -> Result<Next, ScheduleError> {
        self.world.loaded().await;
        let Some((work, plan)) = self.world.plan(&key) else { return Ok(Next::Change) };
        if work.metadata.deletion_timestamp.is_none()
            && let Err(error) = self.hold(&work, &key).await
        {
            // Nothing was created, so the next plan must not count on it.
            plan.create.iter().for_each(|placement| {
                self.world.unexpect(&ObjectKey::of(placement));
            });
            return Err(error);
        }
        self.carry_out(&key, &plan).await?;
        if work.metadata.deletion_timestamp.is_some() && self.world.placements_len(&key) == 0 {
            self.let_go(&work, &key).await?;
        }
        Ok(Next::Change)
    }

    async fn carry_out(&self, key: &ObjectKey, plan: &Schedule) -> Result<(), ScheduleError> {
        let api: Api<WorkPlacement> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut result = Ok(());
        // All of them, whatever happens to one: a placement never waits for another.
        for placement in &plan.create {
            let done = self.create(&api, placement).await;
            if done.is_err() {
                self.world.unexpect(&ObjectKey::of(placement));
            }
            result = result.and(done);
        }
        for update in &plan.update {
            result = result.and(change(&api, update).await);
        }
        for name in &plan.delete {
            result = result.and(match api.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_gone(&error) => Err(failed(name, "deleted", error)),
                _ => Ok(()),
            });
        }
        result
    }

    async fn create(
        &self,
        api: &Api<WorkPlacement>,
        placement: &WorkPlacement,
    ) -> Result<(), ScheduleError> {
        let key = ObjectKey::of(placement);
        let error = match api.create(&PostParams::default(), placement).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !matches!(&error, kube::Error::Api(status) if status.is_already_exists()) {
            return Err(failed(&key, "created", error));
        }
        let held = api.get_opt(&key.name).await.map_err(|error| failed(&key, "read", error))?;
        let owner = |p: &WorkPlacement| p.metadata.owner_references.clone();
        match held {
            // The watch is about to show what an earlier attempt created.
            Some(held) if owner(&held) == owner(placement) => Ok(()),
            Some(_) => Err(ScheduleError::Taken(key)),
            None => Err(failed(&key, "created", error)),
        }
    }

    /// A Work stays until its placements are gone.
    async fn hold(&self, work: &Work, key: &ObjectKey) -> Result<(), ScheduleError> {
        if finalizers(work).iter().any(|held| held == finalizer::WORK_CLEANUP) {
            return Ok(());
        }
        let mut all = finalizers(work).to_vec();
        all.push(finalizer::WORK_CLEANUP.to_owned());
        self.set_finalizers(work, key, &all).await
    }

    async fn let_go(&self, work: &Work, key: &ObjectKey) -> Result<(), ScheduleError> {
        let mut all = finalizers(work).to_vec();
        all.retain(|held| held != finalizer::WORK_CLEANUP);
        if all.len() == finalizers(work).len() {
            return Ok(());
        }
        match self.set_finalizers(work, key, &all).await {
            Err(ScheduleError::Api { source, .. }) if is_gone(&source) => Ok(()),
            result => result,
        }
    }

    async fn set_finalizers(
        &self,
        work: &Work,
        key: &ObjectKey,
        all: &[String],
    ) -> Result<(), ScheduleError> {
        let api: Api<Work> = Api::namespaced(self.client.clone(), &key.namespace);
        let version = &work.metadata.resource_version;
        let patch = json!({"metadata": {"finalizers": all, "resourceVersion": version}});
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| failed(format!("Work {key}"), "changed", error))
    }
}

async fn change(api: &Api<WorkPlacement>, update: &Update) -> Result<(), ScheduleError> {
    let misplaced = update.misplaced.then_some("true");
    let patch = json!({
        "metadata": { "labels": { labels::MISPLACED: misplaced } },
        "spec": update.spec,
    });
    match api.patch(&update.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_gone(&error) => Err(failed(&update.name, "changed", error)),
        _ => Ok(()),
    }
}

fn finalizers(work: &Work) -> &[String] {
    work.metadata.finalizers.as_deref().unwrap_or_default()
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn failed(object: impl ToString, action: &'static str, source: kube::Error) -> ScheduleError {
    ScheduleError::Api { object: object.to_string(), action, source: Box::new(source) }
}
