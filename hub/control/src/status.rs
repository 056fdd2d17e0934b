//! Reports of agents and of writers of state stores → status of WorkPlacements and Works: the one
//! writer of both.
//!
//! Reports wait in memory, the latest of each placement; a status is written only when it changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
};
use muster_api::{Work, WorkPlacement, labels::finalizer};
use muster_core::{DestinationName, Phase, PlacementKey, PlacementReport, ports::ReportSink};
use muster_daemon::Clock;
use muster_plan::{
    rollup::{self, StoreOutcome, StoreReport},
    site::Site,
};
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use crate::{
    assign::Assignments,
    events::Events,
    queue::{Next, Triggers},
    shelf::ObjectKey,
    world::World,
};

/// How many statuses are written at once.
pub(crate) const AT_ONCE: usize = 32;
/// Most reports in memory: the latest of each placement of a large fleet, at about 1 KiB each.
const REPORTS_MAX: usize = 100_000;
/// How many placements a Work may have before its status is written less often than they change.
const SMALL: usize = 100;
/// How often the status of a larger Work is written at most.
const LARGE_PACE: Duration = Duration::from_millis(250);

/// How long a placement is new: times of creation are to the second.
const YOUNG: Duration = Duration::from_secs(2);
/// How often a write is tried at once when the object changes meanwhile; then it waits its turn.
const ATTEMPTS: usize = 5;

/// Reports that are not yet in the API; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Reports {
    waiting: Arc<Mutex<HashMap<ObjectKey, Said>>>,
    room: Arc<Notify>,
    triggers: Triggers<ObjectKey>,
}

/// What was said of a placement, and by whom.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// The agent of this name.
    Agent(DestinationName, PlacementReport),
    /// The writer of its destination's state store.
    Store(StoreReport),
}

impl Said {
    fn from(&self) -> &str {
        match self {
            Self::Agent(agent, _) => agent.as_str(),
            Self::Store(report) => &report.destination,
        }
    }
}

/// Writes statuses; clones share everything.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    pub client: Client,
    pub world: Arc<World>,
    pub reports: Reports,
    pub assignments: Assignments,
    pub placement_events: Events,
    pub work_events: Events,
    pub clock: Clock,
    /// When the status of a large Work was last written.
    pub written: Arc<Mutex<HashMap<ObjectKey, Instant>>>,
}

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{object} could not be {action}")]
pub(crate) struct StatusError {
    object: String,
    action: &'static str,
    #[source]
    source: Box<kube::Error>,
}

impl StatusError {
    /// Whether somebody else changed the object in between.
    fn is_conflict(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.is_conflict())
    }
}

// === impl Reports ===

impl Reports {
    pub(crate) fn new(triggers: Triggers<ObjectKey>) -> Self {
        Self { waiting: Arc::default(), room: Arc::default(), triggers }
    }

    /// Keeps a report unless it would be one too many.
    fn keep(&self, key: &ObjectKey, said: &Said) -> bool {
        let mut waiting = self.lock();
        if waiting.len() >= REPORTS_MAX && !waiting.contains_key(key) {
            return false;
        }
        waiting.insert(key.clone(), said.clone());
        true
    }

    /// Takes what was said of a placement, when there is room for it.
    pub(crate) async fn take(&self, key: ObjectKey, said: Said) {
        loop {
            let room = self.room.notified();
            if self.keep(&key, &said) {
                break;
            }
            room.await;
        }
        self.triggers.look_at(key).await;
    }

    fn next(&self, key: &ObjectKey) -> Option<Said> {
        let next = self.lock().remove(key);
        if next.is_some() {
            self.room.notify_waiters();
        }
        next
    }

    /// Puts a report back whose status could not be written, unless a newer one came.
    fn put_back(&self, key: ObjectKey, said: Said) {
        self.lock().entry(key).or_insert(said);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Said>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportSink for Reports {
    fn accept(&self, agent: &DestinationName, reports: Vec<PlacementReport>) -> BoxFuture<'_, ()> {
        let agent = agent.clone();
        async move {
            for report in reports {
                let key = key_of(&report.placement);
                self.take(key, Said::Agent(agent.clone(), report)).await;
            }
        }
        .boxed()
    }
}

// === impl StatusWriter ===

impl StatusWriter {
    /// Makes one placement's status what its destination says.
    pub(crate) async fn placement(self, key: ObjectKey) -> Result<Next, StatusError> {
        self.world.loaded().await;
        let said = self.reports.next(&key);
        if let Some(said) = &said
            && let Some(wait) = self.may_wait(&key, said)
        {
            self.reports.put_back(key, said.clone());
            return Ok(Next::After(wait));
        }
        let mut result = self.write_placement(&key, said.as_ref()).await;
        for _ in 1..ATTEMPTS {
            match &result {
                Err(error) if error.is_conflict() => {
                    result = self.write_placement(&key, said.as_ref()).await;
                }
                _ => break,
            }
        }
        if let (Err(_), Some(said)) = (&result, said) {
            self.reports.put_back(key, said);
        }
        result.map(|()| Next::Change)
    }

    /// How long it may stay untold that a new placement is being applied: mostly that is over in a
    /// moment.
    fn may_wait(&self, key: &ObjectKey, said: &Said) -> Option<Duration> {
        let Said::Agent(_, report) = said else { return None };
        if !matches!(report.phase, Phase::Pending | Phase::Applying) {
            return None;
        }
        let placement = self.world.placement(key).filter(|it| it.status.is_none())?;
        let made = placement.metadata.creation_timestamp.as_ref()?.0;
        let age = Duration::try_from(self.clock.now().duration_since(made)).unwrap_or_default();
        YOUNG.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// Makes one Work's status what its placements say.
    pub(crate) async fn work(self, key: ObjectKey) -> Result<Next, StatusError> {
        self.world.loaded().await;
        let object = || format!("Work {key}");
        let api: Api<Work> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await;
        let found = found.map_err(|error| failed(object(), "read", error))?;
        let Some(mut work) = found else { return Ok(Next::Change) };
        let status = self.world.work_status(&key, &work, self.clock.now());
        let Some(status) = status.filter(|status| work.status.as_ref() != Some(status)) else {
            return Ok(Next::Change);
        };
        if let Some(wait) = self.pace(&key) {
            return Ok(Next::After(wait));
        }
        let told = rollup::work_events(&work, &status);
        work.status = Some(status);
        let written = api.replace_status(&key.name, &PostParams::default(), &work).await;
        match finish(written.map(drop), object, "written") {
            // A newer copy is there already; it is looked at in its turn.
            Err(error) if error.is_conflict() => return Ok(Next::After(Duration::ZERO)),
            result => result?,
        }
        let about = work.object_ref(&());
        for (fine, reason, note) in told {
            tell(&self.work_events, &about, fine, reason, &note).await;
        }
        Ok(Next::Change)
    }

    async fn write_placement(
        &self,
        key: &ObjectKey,
        said: Option<&Said>,
    ) -> Result<(), StatusError> {
        let object = || format!("WorkPlacement {key}");
        let api: Api<WorkPlacement> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await;
        let found = found.map_err(|error| failed(object(), "read", error))?;
        let Some(mut placement) = found else { return Ok(()) };
        let site = self.world.site(&placement.spec.target_destination_name);
        let said = said.filter(|said| {
            let own = said.from() == placement.spec.target_destination_name;
            if !own {
                let from = said.from();
                tracing::warn!(from, placement = %key, "report on another's placement");
            }
            own
        });
        if self.is_removed(&placement, said, site.as_ref()) {
            return finish(let_go(&api, &placement).await, object, "released");
        }
        if said.is_none() && rollup::heard_soon(&placement, site.as_ref()) {
            return Ok(());
        }
        let now = self.clock.now();
        let status = match said {
            Some(Said::Agent(_, report)) => rollup::placement(&placement, Some(report), now),
            Some(Said::Store(report)) => rollup::stored(&placement, Some(&report.outcome), now),
            None if site.is_some_and(|site| site.state_store) => {
                rollup::stored(&placement, None, now)
            }
            None => rollup::placement(&placement, None, now),
        };
        if placement.status.as_ref() == Some(&status) {
            return Ok(());
        }
        placement.status = Some(status);
        let written = api.replace_status(&key.name, &PostParams::default(), &placement).await;
        finish(written.map(drop), object, "written")?;
        if let Some(Said::Store(report)) = said {
            self.tell(&placement, report).await;
        }
        Ok(())
    }

    /// Tells people what became of a placement's files.
    async fn tell(&self, placement: &WorkPlacement, report: &StoreReport) {
        let Some((fine, reason, note)) = rollup::store_event(report) else { return };
        tell(&self.placement_events, &placement.object_ref(&()), fine, reason, &note).await;
    }

    /// Whether nothing of a deleted placement is left, or nobody is left to say so.
    fn is_removed(
        &self,
        placement: &WorkPlacement,
        said: Option<&Said>,
        site: Option<&Site>,
    ) -> bool {
        if placement.metadata.deletion_timestamp.is_none() {
            return false;
        }
        let Some(_) = site else {
            let name = placement.metadata.name.as_deref().unwrap_or_default();
            let destination = &placement.spec.target_destination_name;
            tracing::warn!(placement = name, destination, "destination is gone; files may be left");
            return true;
        };
        match said {
            Some(Said::Agent(from, report)) => {
                report.phase == Phase::Removed
                    && self.assignments.is_removed_by(from, &report.placement, report.revision)
            }
            Some(Said::Store(report)) => report.outcome == StoreOutcome::Removed,
            None => false,
        }
    }

    /// How long a Work with many placements waits for more of their changes.
    fn pace(&self, key: &ObjectKey) -> Option<Duration> {
        let large = self.world.placements_len(key) > SMALL;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !large {
            written.remove(key);
            return None;
        }
        let now = Instant::now();
        let wait = written.get(key).and_then(|last| LARGE_PACE.checked_sub(now - *last));
        if wait.is_none() {
            written.insert(key.clone(), now);
        }
        wait.filter(|wait| !wait.is_zero())
    }
}

async fn tell(events: &Events, about: &ObjectReference, fine: bool, reason: &str, note: &str) {
    match fine {
        true => events.normal(about, reason, note).await,
        false => events.warning(about, reason, note).await,
    }
}

async fn let_go(api: &Api<WorkPlacement>, placement: &WorkPlacement) -> Result<(), kube::Error> {
    let mut all = placement.metadata.finalizers.clone().unwrap_or_default();
    let own = [finalizer::PLACEMENT_CLEANUP, finalizer::PLACEMENT_LIST_CLEANUP];
    all.retain(|held| !own.contains(&held.as_str()));
    let version = &placement.metadata.resource_version;
    let patch = json!({"metadata": {"finalizers": all, "resourceVersion": version}});
    let name = placement.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// An object that is gone needs no status.
fn finish(
    result: Result<(), kube::Error>,
    object: impl FnOnce() -> String,
    action: &'static str,
) -> Result<(), StatusError> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(failed(object(), action, error)),
        Ok(()) => Ok(()),
    }
}

fn key_of(placement: &PlacementKey) -> ObjectKey {
    ObjectKey::new(placement.namespace(), placement.name())
}

fn failed(object: String, action: &'static str, source: kube::Error) -> StatusError {
    StatusError { object, action, source: Box::new(source) }
}
