//! Watches → plan → API calls. The only writer of status.
//!
//! Each controller has a client of its own (an identity with a ClusterRole, see [`manifests`]),
//! reads what it needs from the API when it reconciles, asks `muster-plan` what to do, and does
//! it. No controller may know whether the API is embedded or a cluster's.

mod admission;
mod agents;
mod assign;
mod children;
mod configuration;
pub mod content;
mod events;
pub mod fleet;
mod jobs;
mod manifests;
mod objects;
mod offers;
mod options;
mod owner;
mod places;
mod pods;
mod promise;
mod queue;
mod release;
mod request;
mod results;
mod schedule;
mod shelf;
mod status;
mod stores;
mod work;
mod workflow;
mod world;

use std::{path::PathBuf, sync::Arc};

use configuration::Configuration;
use fleet::Fleet;
use muster_daemon::Clock;
use muster_plan::options::Options;
use offers::Offers;
use options::Chosen;
use pods::Pods;
use release::Releases;
use tokio_util::sync::CancellationToken;

pub use admission::{Admission, AdmissionView, RequestSchema, RequestView};
pub use assign::{EpochError, raise_after_restore};
pub use manifests::{account_name, manifests};
pub use results::{RESULT_BODY_MAX, ResultCall, Results};

/// Makes the client of the controller with this name: as its ServiceAccount ([`account_name`]) in
/// the system namespace.
pub type ClientFor = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// What the controllers need.
#[derive(Clone)]
pub struct ControlConfig {
    /// Makes each controller's client.
    pub client_for: ClientFor,
    /// A directory of the hub's own, for copies of Git branches. What is in it can be had again.
    pub stores_dir: PathBuf,
    /// What time it is to all controllers.
    pub clock: Clock,
    /// What holds for the whole platform where its configuration says nothing.
    pub options: Options,
}

/// The controllers, built and not yet running.
pub struct Control {
    configuration: Configuration,
    fleet: Fleet,
    offers: Offers,
    pods: Pods,
    releases: Releases,
    admission: Arc<Admission>,
    results: Arc<Results>,
}

impl Control {
    /// Builds the controllers; nothing is read or written before [`Control::run`].
    pub fn build(config: ControlConfig) -> Self {
        let ControlConfig { client_for, stores_dir, clock, options } = config;
        let options = Chosen::new(options);
        let queues = offers::Queues::build(&client_for, &clock, options.clone());
        let fleet = Fleet::waking(&client_for, stores_dir, queues.wakes(), (&clock, &options));
        let observer = fleet.observer();
        let configuring = client_for(manifests::identity::CONFIGURATION);
        let sweeping = client_for(manifests::identity::PODS);
        let claims = fleet.claims();
        let admission = client_for(manifests::identity::ADMISSION);
        Self {
            configuration: Configuration::new(configuring, options.clone()),
            offers: queues.observing(observer.clone()),
            fleet,
            pods: Pods::new(sweeping, options.clone(), clock.clone()),
            releases: Releases::new(client_for(manifests::identity::RELEASE), clock.clone()),
            admission: Admission::new(admission, options.clone(), claims, clock.clone()),
            results: Results::new(
                client_for(manifests::identity::RESULTS),
                observer,
                options,
                clock,
            ),
        }
    }

    /// The way from Works to agents and back: its ports are what the gateway calls.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The rules on what enters the API; to be asked before each write is committed.
    pub fn admission(&self) -> Arc<Admission> {
        self.admission.clone()
    }

    /// Takes what pipelines hand over; to be served to their pods.
    pub fn results(&self) -> Arc<Results> {
        self.results.clone()
    }

    /// Runs every controller until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { configuration, fleet, offers, pods, releases, admission: _, results: _ } = self;
        configuration.load().await;
        tokio::join!(
            configuration.follow(shutdown.clone()),
            fleet.run(shutdown.clone()),
            offers.run(shutdown.clone()),
            pods.run(shutdown.clone()),
            releases.run(shutdown),
        );
    }
}
