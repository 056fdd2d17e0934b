//! Jobs that are over: they go when their time has come, and their pods and logs with them
//! (after `pkg/controller/ttlafterfinished`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Dirty, RETRY_AFTER, delete};
use crate::{server::Inner, status::Status, store::Key, verbs::Propagation};

const JOBS: &str = "jobs.batch";

/// The Jobs that are over, by the time at which they go.
struct Waiting {
    keep: Option<SignedDuration>,
    by_time: BTreeSet<(Timestamp, Key)>,
    times: HashMap<Key, Timestamp>,
}

pub(super) fn start(server: &Arc<Inner>, keep: Option<Duration>) {
    let dirty = Dirty::new();
    let noted = dirty.clone();
    server.store.observe_from(|state| {
        state.list(JOBS, None, None).for_each(|job| dirty.add(job.key.clone()));
        Box::new(move |event| {
            if &*event.object.key.kind == JOBS {
                noted.add(event.object.key.clone());
            }
        })
    });
    let keep = keep.and_then(|keep| SignedDuration::try_from(keep).ok());
    let waiting = Waiting { keep, by_time: BTreeSet::new(), times: HashMap::new() };
    let server = server.clone();
    tokio::spawn(async move {
        let stop = server.shutdown.clone();
        // Cancel-safe: each removal is one durable change, and the next start looks at all.
        stop.run_until_cancelled(run(&server, &dirty, waiting)).await;
    });
}

async fn run(server: &Arc<Inner>, dirty: &Dirty<Key>, mut waiting: Waiting) {
    loop {
        let next = waiting.by_time.first().map(|(time, _)| until(*time));
        let sleep = tokio::time::sleep(next.unwrap_or(Duration::MAX / 4));
        tokio::select! {
            key = dirty.next() => {
                let due = server.store.get(&key).and_then(|job| waiting.due(&job.value()));
                waiting.set(key, due);
            }
            () = sleep, if next.is_some() => {
                let Some((_, key)) = waiting.by_time.first().cloned() else { continue };
                if let Err(status) = remove(server, &waiting, &key).await {
                    tracing::warn!(%status, job = %key, "a finished Job stays for now");
                    let later = Timestamp::now().checked_add(RETRY_AFTER).ok();
                    waiting.set(key, later);
                } else {
                    // If it is held by a finalizer, its next change leads back here.
                    waiting.set(key, None);
                }
            }
        }
    }
}

/// Removes a Job if what is there now is to go; another of its name may have come.
async fn remove(server: &Arc<Inner>, waiting: &Waiting, key: &Key) -> Result<(), Status> {
    let Some(job) = server.store.get(key) else { return Ok(()) };
    let due = waiting.due(&job.value());
    match due.is_some_and(|due| due <= Timestamp::now()) && !job.meta.deleting() {
        true => delete(server, job, Some(Propagation::Background)).await,
        false => Ok(()),
    }
}

impl Waiting {
    fn set(&mut self, key: Key, due: Option<Timestamp>) {
        if let Some(before) = self.times.remove(&key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.times.insert(key.clone(), due);
            self.by_time.insert((due, key));
        }
    }

    /// When a Job goes. `None`: not while it is as it is.
    fn due(&self, job: &Value) -> Option<Timestamp> {
        let own = job["spec"]["ttlSecondsAfterFinished"].as_i64().map(SignedDuration::from_secs);
        finished_at(job)?.checked_add(own.or(self.keep)?).ok()
    }
}

fn finished_at(job: &Value) -> Option<Timestamp> {
    let mut conditions = job["status"]["conditions"].as_array()?.iter();
    let over = conditions.find(|condition| {
        let kind = condition["type"].as_str();
        matches!(kind, Some("Complete" | "Failed")) && condition["status"] == "True"
    })?;
    over["lastTransitionTime"].as_str()?.parse().ok()
}

fn until(time: Timestamp) -> Duration {
    time.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn due(keep: Option<SignedDuration>, job: &Value) -> Option<String> {
        let waiting = Waiting { keep, by_time: BTreeSet::new(), times: HashMap::new() };
        waiting.due(job).map(|due| due.to_string())
    }

    fn job(ttl: Value, kind: &str) -> Value {
        let condition = json!({
            "type": kind, "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z",
        });
        json!({"spec": {"ttlSecondsAfterFinished": ttl}, "status": {"conditions": [condition]}})
    }

    #[test]
    fn a_finished_job_goes_when_it_says_so_or_the_server_does() {
        let day = Some(SignedDuration::from_hours(24));
        let at = |text: &str| Some(text.to_owned());
        assert_eq!(due(day, &job(json!(30), "Complete")), at("2025-01-01T00:00:30Z"));
        assert_eq!(due(None, &job(json!(0), "Failed")), at("2025-01-01T00:00:00Z"));
        assert_eq!(due(day, &job(json!(null), "Failed")), at("2025-01-02T00:00:00Z"));
        assert_eq!(due(None, &job(json!(null), "Complete")), None, "kept for ever, as asked");
        assert_eq!(due(day, &job(json!(30), "Suspended")), None, "it is not over");
        assert_eq!(due(day, &json!({"spec": {"ttlSecondsAfterFinished": 0}})), None);
    }
}
