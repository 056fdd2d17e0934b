//! Downloads: only what the agent's own assignment names, few at a time, never for a peer that does
//! not take it.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use muster_core::{DestinationName, Digest};
use muster_daemon::OnError;
use muster_wire::{limits::CONTENT_CHUNK, v1::ContentChunk};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::debug;

use crate::{
    config::{HELLO_TIME_MAX, SEND_TIME_MAX},
    door::{Connection, Shared},
    enrolment::refusal,
};

/// Begins a download.
pub(crate) async fn download(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    agent: &DestinationName,
    digest: Digest,
) -> Result<impl Stream<Item = Result<ContentChunk, Status>> + use<>, Status> {
    // An agent that comes back with its orders may ask before its session has looked at them.
    let _ = timeout(HELLO_TIME_MAX, connection.shown.subscribe().wait_for(Option::is_some)).await;
    if !may_have(connection, digest) {
        return Err(Status::permission_denied(format!(
            "the assignment of {agent} does not name content {}",
            digest.short()
        )));
    }
    let turn = shared.downloads.clone().acquire_owned().await;
    let turn = turn.map_err(|_| Status::unavailable("the hub is ending"))?;
    let bytes = shared.ports.assignments.content(digest).await.map_err(refusal)?;
    // It may have been revoked, or the order withdrawn, while this waited for its turn.
    if !may_have(connection, digest) {
        return Err(Status::permission_denied("the order was withdrawn"));
    }
    // One chunk waits while one is sent.
    let (sender, receiver) = mpsc::channel(1);
    let task = send(bytes, sender, turn);
    shared.tasks.spawn("agent-download", OnError::Log, task);
    Ok(ReceiverStream::new(receiver))
}

/// Whether the agent's session has shown it an assignment that names this content.
fn may_have(connection: &Connection, digest: Digest) -> bool {
    let shown = connection.shown.borrow();
    shown.as_ref().is_some_and(|shown| shown.orders.values().any(|order| order.digest == digest))
}

async fn send(
    bytes: Bytes,
    sender: mpsc::Sender<Result<ContentChunk, Status>>,
    _turn: OwnedSemaphorePermit,
) -> anyhow::Result<()> {
    let total = bytes.len();
    let mut at = 0;
    loop {
        let end = total.min(at + CONTENT_CHUNK);
        let total_once = if at == 0 { total as u64 } else { 0 };
        let chunk = ContentChunk { data: bytes.slice(at..end), total: total_once };
        match timeout(SEND_TIME_MAX, sender.send(Ok(chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                debug!("A download was not taken in time");
                return Ok(());
            }
        }
        if end == total {
            return Ok(());
        }
        at = end;
    }
}
