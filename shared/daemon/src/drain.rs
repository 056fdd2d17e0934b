//! The orderly end: the first SIGINT or SIGTERM asks, the second does not wait.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{OnError, Tasks};

/// Asks everything to end; clones ask together.
///
/// It is a [`CancellationToken`] with the signals attached; parts take the token alone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that only [`Shutdown::ask`] triggers.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGINT and SIGTERM trigger. The listening task belongs to `tasks`.
    ///
    /// A second signal ends the process at once with 128 + its number, as shells expect.
    pub fn on_signals(tasks: &Tasks) -> io::Result<Self> {
        let token = tasks.shutdown();
        let shutdown = Self(token.clone());
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        // Ends with the process, not with the token: the second signal comes after it.
        tasks.spawn_guard("signals", OnError::Log, listen(interrupt, terminate, token));
        Ok(shutdown)
    }

    /// Asks everything to end.
    pub fn ask(&self) {
        self.0.cancel();
    }

    /// The token that parts wait for.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

async fn listen(
    mut interrupt: Signal,
    mut terminate: Signal,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let first = next(&mut interrupt, &mut terminate).await;
    info!(signal = first, "Asked to end; ask again to end at once");
    token.cancel();
    let second = next(&mut interrupt, &mut terminate).await;
    warn!(signal = second, "Ending at once");
    std::process::exit(128 + second);
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}
