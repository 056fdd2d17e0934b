//! Works → WorkPlacements: does what `muster_plan::schedule` says.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use muster_api::{
    Work, WorkPlacement,
    labels::{self, finalizer},
};
use muster_plan::schedule::{Schedule, Update};
use serde_json::json;

use crate::{
    events::Events,
    queue::{Next, Triggers, chain},
    shelf::ObjectKey,
    world::World,
};

/// How many Works are placed at once: enough to keep the API busy, few enough to stay in memory.
pub(crate) const AT_ONCE: usize = 16;

/// How long a watch may need to show what a write met.
const CATCH_UP: Duration = Duration::from_millis(2);

/// How many placements of one Work are told of one by one: of a fleet's nobody reads them.
const TOLD_MAX: usize = 10;

/// Places Works; clones share the index.
#[derive(Clone)]
pub(crate) struct Scheduler {
    pub client: Client,
    pub world: Arc<World>,
    pub events: Events,
    /// Whose status is looked at when placing fails, or no longer does.
    pub works: Triggers<ObjectKey>,
}

/// What was done for one Work.
#[derive(Debug, Default)]
struct Deeds {
    created: Vec<String>,
    updated: Vec<String>,
    /// Placements whose destinations no longer match since now.
    marked: Vec<WorkPlacement>,
    /// Names and causes.
    not_deleted: Vec<String>,
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
        let result = match self.place(key.clone()).await {
            // The watch is about to show the newer copy; it is no news that there is one.
            Err(ScheduleError::Api { source, .. }) if is_conflict(&source) => {
                return Ok(Next::After(CATCH_UP));
            }
            result => result,
        };
        let failure = result.as_ref().err().map(|error| chain(error));
        if self.world.note_failure(&key, failure) {
            self.works.look_at(key).await;
        }
        result
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
        let (deeds, result) = self.carry_out(&key, &plan).await;
        self.tell(&work, deeds).await;
        result?;
        if work.metadata.deletion_timestamp.is_some() && self.world.placements_len(&key) == 0 {
            self.let_go(&work, &key).await?;
        }
        Ok(Next::Change)
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        plan: &Schedule,
    ) -> (Deeds, Result<(), ScheduleError>) {
        let api: Api<WorkPlacement> = Api::namespaced(self.client.clone(), &key.namespace);
        let (mut deeds, mut result) = (Deeds::default(), Ok(()));
        // All of them, whatever happens to one: a placement never waits for another.
        for placement in &plan.create {
            let done = self.create(&api, placement).await;
            match &done {
                Ok(()) => deeds.created.extend(placement.metadata.name.clone()),
                Err(_) => self.world.unexpect(&ObjectKey::of(placement)),
            }
            result = result.and(done);
        }
        for update in &plan.update {
            let done = change(&api, update).await;
            if let Ok(Some(changed)) = &done {
                deeds.updated.push(update.name.clone());
                deeds.marked.extend(update.marks.then(|| changed.clone()));
            }
            result = result.and(done.map(drop));
        }
        for name in &plan.delete {
            result = result.and(match api.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_gone(&error) => {
                    deeds.not_deleted.push(format!("{name}: {}", chain(&error)));
                    Err(failed(name, "deleted", error))
                }
                _ => Ok(()),
            });
        }
        (deeds, result)
    }

    /// Tells people what was done, in Kratix's words; of very much, how much.
    async fn tell(&self, work: &Work, deeds: Deeds) {
        let about = work.object_ref(&());
        for (names, operation) in [(deeds.created, "created"), (deeds.updated, "updated")] {
            if names.len() > TOLD_MAX {
                let note = format!("{} workplacements reconciled, {operation}", names.len());
                self.events.normal(&about, "WorkplacementReconciled", &note).await;
                continue;
            }
            for name in names {
                let note = format!("workplacement reconciled: {name}, operation: {operation}");
                self.events.normal(&about, "WorkplacementReconciled", &note).await;
            }
        }
        for placement in deeds.marked.iter().take(TOLD_MAX) {
            let note = format!(
                "labels for destination: {} no longer match the expected labels, marking this \
                 workplacement as misplaced",
                placement.spec.target_destination_name
            );
            let about = placement.object_ref(&());
            self.events.warning(&about, "DestinationSelectorMismatch", &note).await;
        }
        for cause in deeds.not_deleted.iter().take(TOLD_MAX) {
            let note = format!("failed deleting workplacement {cause}");
            self.events.warning(&about, "FailedDelete", &note).await;
        }
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

/// `None`: it is gone.
async fn change(
    api: &Api<WorkPlacement>,
    update: &Update,
) -> Result<Option<WorkPlacement>, ScheduleError> {
    let misplaced = update.misplaced.then_some("true");
    let patch = json!({
        "metadata": { "labels": { labels::MISPLACED: misplaced } },
        "spec": update.spec,
    });
    match api.patch(&update.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(changed) => Ok(Some(changed)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(failed(&update.name, "changed", error)),
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
