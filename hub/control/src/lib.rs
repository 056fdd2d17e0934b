//! Watches → plan → API calls. The only writer of status.
//!
//! Each controller has a client of its own (an identity with a ClusterRole, see [`manifests`]),
//! reads what it needs from the API when it reconciles, asks `muster-plan` what to do, and does
//! it. No controller may know whether the API is embedded or a cluster's.

mod agents;
mod assign;
pub mod content;
pub mod fleet;
mod queue;
mod schedule;
mod shelf;
mod status;
mod world;

use std::sync::Arc;

use fleet::Fleet;
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
    fleet: Fleet,
}

impl Control {
    /// Builds the controllers; nothing is read or written before [`Control::run`].
    pub fn build(config: ControlConfig) -> Self {
        Self { fleet: Fleet::build(&config.client_for) }
    }

    /// The way from Works to agents and back: its ports are what the gateway calls.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Runs every controller until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { fleet } = self;
        fleet.run(shutdown).await;
    }
}
