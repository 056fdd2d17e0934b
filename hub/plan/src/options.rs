//! What the operator chose for the whole platform: Kratix's `KratixConfig`, as far as decisions
//! depend on it.
//!
//! Read once for each look at an object, so that a change holds from the next look on.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{ResourceRequirements, SecurityContext};

/// What holds where neither a Promise nor a pipeline says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `numberOfJobsToKeep`: how many ended Jobs are kept of each pipeline, for their logs.
    pub jobs_kept: usize,
    /// `reconciliationInterval`: everything runs again this often.
    pub interval: Duration,
    /// `workflows.reconcileAfterFailure`: whether what failed runs again with the interval, too.
    pub reconcile_after_failure: bool,
    /// `workflows.jobOptions.defaultBackoffLimit`: how often a failed pipeline is tried again.
    ///
    /// Kratix leaves it to Kubernetes, whose 6 tries again take ten minutes: a person who waits for
    /// a request should be told within one that it failed, and a passing fault is over by the third
    /// try or lasts longer.
    pub backoff_limit: i32,
    /// The labels of the platform itself: what pipelines put out for them is made by the hub, where
    /// no Destination takes it.
    pub platform: BTreeMap<String, String>,
    /// What the containers of pipelines get.
    pub containers: ContainerDefaults,
    /// `workflows.jobOptions.podTTLSecondsAfterFinished`: how long the pods of ended Jobs stay;
    /// as long as their Job where there is none.
    pub pod_ttl: Option<Duration>,
    /// `resourceBindingVersionStrategy`: what a new request is bound to.
    pub binding: BindingStrategy,
    /// `stateStoreReconciliationInterval`: how often everything in state stores is compared with
    /// what it should be; never where there is none.
    pub store_interval: Option<Duration>,
    /// `git.minimumFetchInterval`: a Git server is asked for news at most this often.
    pub fetch_interval: Duration,
}

/// What a pipeline's container gets where its author says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerDefaults {
    /// `workflows.defaultContainerSecurityContext`, for the author's containers.
    pub security: Option<SecurityContext>,
    /// `workflows.defaultImagePullPolicy`, for all containers.
    pub pull_policy: Option<String>,
    /// `workflows.defaultContainerResources`, for all containers.
    pub resources: Option<ResourceRequirements>,
}

/// What a new request is bound to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BindingStrategy {
    /// To the latest version of its Promise, whichever that is.
    #[default]
    Floating,
    /// To the version that its Promise has at that time.
    Pinned,
}

impl Default for Options {
    /// Kratix's defaults, but for [`Options::backoff_limit`].
    fn default() -> Self {
        Self {
            jobs_kept: 5,
            interval: Duration::from_secs(10 * 3600),
            reconcile_after_failure: true,
            backoff_limit: 2,
            platform: [("environment".to_owned(), "platform".to_owned())].into(),
            containers: ContainerDefaults::default(),
            pod_ttl: None,
            binding: BindingStrategy::Floating,
            store_interval: Some(Duration::from_secs(10 * 3600)),
            fetch_interval: Duration::from_secs(5),
        }
    }
}
