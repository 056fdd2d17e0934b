//! Reports → status of WorkPlacements and Works: the one writer of both.
//!
//! Reports wait in memory, the latest of each placement; a status is written only when it changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use muster_api::{
    Work, WorkPlacement,
    labels::{self, finalizer},
};
use muster_core::{DestinationName, Phase, PlacementKey, PlacementReport, ports::ReportSink};
use muster_plan::{
    rollup,
    site::{Link, Site},
};
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use crate::{
    assign::Assignments,
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

/// How often a write is tried at once when the object changes meanwhile; then it waits its turn.
const ATTEMPTS: usize = 5;

/// Reports that are not yet in the API; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Reports {
    waiting: Arc<Mutex<HashMap<ObjectKey, (DestinationName, PlacementReport)>>>,
    room: Arc<Notify>,
    triggers: Triggers<ObjectKey>,
}

/// Writes statuses; clones share everything.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    pub client: Client,
    pub world: Arc<World>,
    pub reports: Reports,
    pub assignments: Assignments,
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
    fn keep(&self, agent: &DestinationName, report: &PlacementReport) -> bool {
        let key = key_of(&report.placement);
        let mut waiting = self.lock();
        if waiting.len() >= REPORTS_MAX && !waiting.contains_key(&key) {
            return false;
        }
        waiting.insert(key, (agent.clone(), report.clone()));
        true
    }

    fn next(&self, key: &ObjectKey) -> Option<(DestinationName, PlacementReport)> {
        let next = self.lock().remove(key);
        if next.is_some() {
            self.room.notify_waiters();
        }
        next
    }

    /// Puts a report back whose status could not be written, unless a newer one came.
    fn put_back(&self, key: ObjectKey, report: (DestinationName, PlacementReport)) {
        self.lock().entry(key).or_insert(report);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, (DestinationName, PlacementReport)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportSink for Reports {
    fn accept(&self, agent: &DestinationName, reports: Vec<PlacementReport>) -> BoxFuture<'_, ()> {
        let agent = agent.clone();
        async move {
            for report in reports {
                loop {
                    let room = self.room.notified();
                    if self.keep(&agent, &report) {
                        break;
                    }
                    room.await;
                }
                self.triggers.look_at(key_of(&report.placement)).await;
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
        let report = self.reports.next(&key);
        let mut result = self.write_placement(&key, report.as_ref()).await;
        for _ in 1..ATTEMPTS {
            match &result {
                Err(error) if error.is_conflict() => {
                    result = self.write_placement(&key, report.as_ref()).await;
                }
                _ => break,
            }
        }
        if let (Err(_), Some(report)) = (&result, report) {
            self.reports.put_back(key, report);
        }
        result.map(|()| Next::Change)
    }

    /// Makes one Work's status what its placements say.
    pub(crate) async fn work(self, key: ObjectKey) -> Result<Next, StatusError> {
        self.world.loaded().await;
        let object = || format!("Work {key}");
        let api: Api<Work> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await;
        let found = found.map_err(|error| failed(object(), "read", error))?;
        let Some(mut work) = found else { return Ok(Next::Change) };
        let status = self.world.work_status(&key, &work, Timestamp::now());
        if work.status.as_ref() == Some(&status) {
            return Ok(Next::Change);
        }
        if let Some(wait) = self.pace(&key) {
            return Ok(Next::After(wait));
        }
        work.status = Some(status);
        let written = api.replace_status(&key.name, &PostParams::default(), &work).await;
        match finish(written.map(drop), object, "written") {
            // A newer copy is there already; it is looked at in its turn.
            Err(error) if error.is_conflict() => Ok(Next::After(Duration::ZERO)),
            result => result.map(|()| Next::Change),
        }
    }

    async fn write_placement(
        &self,
        key: &ObjectKey,
        report: Option<&(DestinationName, PlacementReport)>,
    ) -> Result<(), StatusError> {
        let object = || format!("WorkPlacement {key}");
        let api: Api<WorkPlacement> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await;
        let found = found.map_err(|error| failed(object(), "read", error))?;
        let Some(mut placement) = found else { return Ok(()) };
        let site = self.world.site(&placement.spec.target_destination_name);
        let report = report.filter(|(from, report)| {
            let own = from.as_str() == placement.spec.target_destination_name;
            if !own {
                tracing::warn!(%from, placement = %report.placement, "report on another's placement");
            }
            own
        });
        if self.is_removed(&placement, report, site.as_ref()) {
            return finish(let_go(&api, &placement).await, object, "released");
        }
        if report.is_none() && is_heard_soon(&placement, site.as_ref()) {
            return Ok(());
        }
        let status =
            rollup::placement(&placement, report.map(|(_, report)| report), Timestamp::now());
        if placement.status.as_ref() == Some(&status) {
            return Ok(());
        }
        placement.status = Some(status);
        let written = api.replace_status(&key.name, &PostParams::default(), &placement).await;
        finish(written.map(drop), object, "written")
    }

    /// Whether nothing of a deleted placement is left, or nobody is left to say so.
    fn is_removed(
        &self,
        placement: &WorkPlacement,
        report: Option<&(DestinationName, PlacementReport)>,
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
        report.is_some_and(|(from, report)| {
            report.phase == Phase::Removed
                && self.assignments.is_removed_by(from, &report.placement, report.revision)
        })
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

/// A connected agent says something soon of a new placement: a status before it would be written
/// twice.
fn is_heard_soon(placement: &WorkPlacement, site: Option<&Site>) -> bool {
    let meta = &placement.metadata;
    let marked = meta.labels.as_ref().is_some_and(|all| all.contains_key(labels::MISPLACED));
    let fresh = placement.status.is_none() && meta.deletion_timestamp.is_none() && !marked;
    fresh && site.is_some_and(|site| site.link == Link::Connected)
}

async fn let_go(api: &Api<WorkPlacement>, placement: &WorkPlacement) -> Result<(), kube::Error> {
    let mut all = placement.metadata.finalizers.clone().unwrap_or_default();
    all.retain(|held| held != finalizer::PLACEMENT_CLEANUP);
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
