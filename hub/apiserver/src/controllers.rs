//! The server's own controllers: what Kubernetes' controller manager does for every API server.

use std::sync::Arc;

use crate::server::Inner;

/// Starts them; they end with the server's shutdown.
pub(crate) fn start(_server: &Arc<Inner>) {}
