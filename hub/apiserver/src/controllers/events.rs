//! Events are news: they are kept for a while (kube-apiserver's `--event-ttl`).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::delete;
use crate::server::Inner;

const LOOK_EVERY: Duration = Duration::from_secs(60);

pub(super) fn start(server: &Arc<Inner>, keep: Duration) {
    let server = server.clone();
    let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    tokio::spawn(async move {
        let stop = server.shutdown.clone();
        let work = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                remove_old(&server, keep, Timestamp::now()).await;
            }
        };
        // Cancel-safe: each removal is one durable change.
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn remove_old(server: &Arc<Inner>, keep: SignedDuration, now: Timestamp) {
    let events: Vec<_> = server.store.read().list("events", None, None).cloned().collect();
    for event in events {
        let newest = last_told(&event.value());
        if newest.is_none_or(|newest| now.duration_since(newest) > keep)
            && let Err(status) = delete(server, event, None).await
        {
            tracing::warn!(%status, "an old event stays");
        }
    }
}

/// When an event was last told; an event in a series is told again and again.
fn last_told(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["eventTime"],
        &event["lastTimestamp"],
        &event["series"]["lastObservedTime"],
    ];
    times.into_iter().filter_map(|time| time.as_str()?.parse().ok()).max()
}
