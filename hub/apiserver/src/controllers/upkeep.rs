//! Looks after the database now and then, so that it is compacted when nothing is written, too.

use std::{sync::Arc, time::Duration};

use crate::server::Inner;

/// Often enough that a file does not grow far beyond what is in it, at any rate of writing.
const EVERY: Duration = Duration::from_secs(5);

pub(super) fn start(server: &Arc<Inner>) {
    let server = server.clone();
    tokio::spawn(async move {
        while let Some(()) = server.shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await {
            server.store.tend().await;
        }
    });
}
