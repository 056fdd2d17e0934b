//! Muster's kinds as Rust types, one file a kind.
//!
//! Kratix's kinds keep their group, names and fields (`platform.kratix.io/v1alpha1`); our own few
//! live in `fleet.muster.dev/v1alpha1`. The CRDs that the hub installs are generated from here
//! ([`crds`]).

pub mod agent;
pub mod bucket_state_store;
pub mod conditions;
pub mod content;
pub mod crds;
pub mod destination;
pub mod enrolment;
pub mod git_state_store;
pub mod health_record;
pub mod labels;
pub mod pipeline;
pub mod promise;
pub mod promise_release;
pub mod promise_revision;
pub mod resource_binding;
pub mod state_store;
pub mod work;
pub mod work_placement;

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use bucket_state_store::{BucketStateStore, BucketStateStoreSpec};
pub use content::{Content, ContentSpec};
pub use destination::{Destination, DestinationSpec, DestinationStatus};
pub use git_state_store::{GitStateStore, GitStateStoreSpec};
pub use health_record::{HealthRecord, HealthRecordData};
pub use pipeline::{Pipeline, PipelineSpec};
pub use promise::{Promise, PromiseSpec, PromiseStatus};
pub use promise_release::{PromiseRelease, PromiseReleaseSpec, PromiseReleaseStatus};
pub use promise_revision::{PromiseRevision, PromiseRevisionSpec, PromiseRevisionStatus};
pub use resource_binding::{ResourceBinding, ResourceBindingSpec, ResourceBindingStatus};
pub use state_store::StateStoreStatus;
pub use work::{ChildRequest, Work, WorkSpec, WorkStatus, WorkloadGroup};
pub use work_placement::{WorkPlacement, WorkPlacementSpec, WorkPlacementStatus};

/// The group of Kratix's kinds.
pub const KRATIX_GROUP: &str = "platform.kratix.io";
/// The group of our own kinds.
pub const FLEET_GROUP: &str = "fleet.muster.dev";
/// The version of both groups.
pub const VERSION: &str = "v1alpha1";
/// Where the hub keeps its own objects, as Kratix does.
pub const SYSTEM_NAMESPACE: &str = "kratix-platform-system";
/// What the names of the controllers' ServiceAccounts begin with; no pipeline may run as one.
pub const CONTROLLER_ACCOUNT_PREFIX: &str = "muster-";
/// The image of the containers that are the hub's own; the embedded home's runner resolves it to
/// its own executable.
pub const ADAPTER_IMAGE: &str = concat!("muster.dev/hub:", env!("CARGO_PKG_VERSION"));
