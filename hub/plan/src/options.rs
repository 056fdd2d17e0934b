//! What the operator chose for the whole platform: Kratix's `KratixConfig`, as far as decisions
//! depend on it.
//!
//! Read once for each look at an object, so that a change holds from the next look on.

use std::time::Duration;

/// What holds where neither a Promise nor a pipeline says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Default for Options {
    /// Kratix's defaults, but for [`Options::backoff_limit`].
    fn default() -> Self {
        Self {
            jobs_kept: 5,
            interval: Duration::from_secs(10 * 3600),
            reconcile_after_failure: true,
            backoff_limit: 2,
        }
    }
}
