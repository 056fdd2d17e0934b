//! Watches → plan → API calls. The only writer of status.
//!
//! Each controller has a client of its own (an identity with a ClusterRole, see [`manifests`]),
//! reads what it needs from the API when it reconciles, asks `muster-plan` what to do, and does
//! it. No controller may know whether the API is embedded or a cluster's.

pub mod content;
mod queue;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Makes the client of the controller with this name: the ServiceAccount of that name in the
/// system namespace.
pub type ClientFor = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// What the controllers need.
#[derive(Clone)]
pub struct ControlConfig {
    /// Makes each controller's client.
    pub client_for: ClientFor,
}

/// The controllers, built and not yet running.
pub struct Control {
    config: ControlConfig,
}

impl Control {
    /// Builds the controllers; nothing is read or written before [`Control::run`].
    pub fn build(config: ControlConfig) -> Self {
        Self { config }
    }

    /// Runs every controller until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { config: _ } = self;
        shutdown.cancelled().await;
    }
}
