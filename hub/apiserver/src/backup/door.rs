//! Handing a backup out: streamed to one client at a time, in memory that does not grow.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, Response, header::CONTENT_TYPE};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc},
};

use super::{BackupPlan, file::Encoder};
use crate::{
    body::{self, Body},
    pki,
    server::Inner,
    start::DATABASE,
    status::Status,
    store::Snapshot,
    user::UserInfo,
};

/// Bytes that are sent at once, and how many such pieces may wait for the client.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 4;

/// A client that takes nothing for so long is given up: its backup holds on to space that the
/// database would use again.
const CLIENT_WAIT: Duration = Duration::from_secs(60);

/// Where backups are handed out.
#[derive(Default)]
pub(crate) struct Door {
    plan: OnceLock<BackupPlan>,
    /// One at a time: each holds the database as it was.
    running: Arc<Mutex<()>>,
}

impl Door {
    /// Opens it; only the first plan counts.
    pub(crate) fn open(&self, plan: BackupPlan) {
        if self.plan.set(plan).is_err() {
            tracing::warn!("a place for backups was set twice: the first stays");
        }
    }

    /// The plan whose path this is.
    pub(crate) fn at(&self, path: &str) -> Option<&BackupPlan> {
        self.plan.get().filter(|plan| plan.path == path)
    }
}

/// Answers a request for a backup, once it is known that `user` may have one.
pub(crate) async fn answer(
    server: &Arc<Inner>,
    plan: &BackupPlan,
    user: &UserInfo,
    method: &Method,
) -> Result<Response<Body>, Status> {
    if method != Method::GET {
        return Err(Status::method_not_allowed("a backup can be got, and nothing else"));
    }
    let turn = server.backups.running.clone().try_lock_owned();
    let turn = turn.map_err(|_| {
        Status::too_many_requests("another backup is being made: try again when it has ended")
    })?;
    let failed = |what: &str| Status::internal(format!("no backup can be made: {what}"));
    let mut encoder = Encoder::begin();
    files(plan, &mut encoder).map_err(|error| failed(&error))?;
    let database = plan.api_dir.join(DATABASE);
    encoder.database(&database.to_string_lossy());
    let snapshot = server.store.snapshot().await.map_err(|error| failed(&error.to_string()))?;
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    tracing::info!(user = user.name, "a backup begins");
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        match send(&snapshot, encoder, &pieces) {
            Ok(true) => tracing::info!("a backup was handed out"),
            // The file lacks its end, which its reader will find.
            Ok(false) => tracing::warn!("a backup was given up: its client has gone or takes none"),
            Err(error) => tracing::error!(%error, "a backup was given up"),
        }
    });
    let pieces =
        stream::unfold(
            taken,
            |mut taken| async move { taken.recv().await.map(|piece| (piece, taken)) },
        );
    let mut response = Response::new(body::stream(pieces));
    let media_type = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}

/// The keys and certificates of the API, and the files of the plan.
fn files(plan: &BackupPlan, encoder: &mut Encoder) -> Result<(), String> {
    let own = pki::FILES.iter().map(|file| plan.api_dir.join(file));
    for path in own.chain(plan.files.iter().cloned()) {
        let full = plan.root.join(&path);
        let bytes = fs::read(&full).map_err(|error| format!("{}: {error}", full.display()))?;
        encoder.file(&name(&path), &bytes);
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Sends the rows; false if the client does not take them.
fn send(
    snapshot: &Snapshot,
    mut encoder: Encoder,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<bool, crate::store::DiskError> {
    let runtime = Handle::current();
    let send =
        |piece: Vec<u8>| runtime.block_on(pieces.send_timeout(piece.into(), CLIENT_WAIT)).is_ok();
    let mut rows = 0;
    let all = snapshot.each_row(|revision, row| {
        rows += 1;
        encoder.row(revision, row);
        encoder.bytes.len() < PIECE_BYTES || send(encoder.take())
    })?;
    if !all {
        return Ok(false);
    }
    encoder.end(snapshot.revision()?, rows);
    Ok(send(encoder.take()))
}
