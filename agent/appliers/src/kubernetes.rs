//! Applies objects to a Kubernetes API (refused by name until it is here).
use futures::future::{BoxFuture, FutureExt as _};
use muster_core::{Failure, Observation};

use crate::{
    KubernetesPolicy,
    applier::{Applier, Job},
};

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KubernetesError(String);

#[derive(Debug)]
pub(crate) struct Kubernetes;

impl Kubernetes {
    pub(crate) async fn connect(_: KubernetesPolicy) -> Result<Self, KubernetesError> {
        Ok(Self)
    }
}

fn missing() -> Failure {
    Failure::retried("NotBuilt", "this build of the agent has no kubernetes applier yet")
}

impl Applier for Kubernetes {
    fn apply<'a>(&'a self, _: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        async { Err(missing()) }.boxed()
    }
    fn check<'a>(&'a self, _: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        async { Err(missing()) }.boxed()
    }
    fn remove<'a>(&'a self, _: &'a Job) -> BoxFuture<'a, Result<(), Failure>> {
        async { Ok(()) }.boxed()
    }
}
