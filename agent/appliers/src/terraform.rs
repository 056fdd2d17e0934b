//! Applies objects to Terraform modules (refused by name until it is here).
use futures::future::{BoxFuture, FutureExt as _};
use muster_core::{Failure, Observation};

use crate::{
    TerraformPolicy,
    applier::{Applier, Job},
};

#[derive(Debug)]
pub(crate) struct Terraform;

impl Terraform {
    pub(crate) fn new(_: std::path::PathBuf, _: TerraformPolicy, _: bool, _: String) -> Self {
        Self
    }
}

fn missing() -> Failure {
    Failure::retried("NotBuilt", "this build of the agent has no terraform applier yet")
}

impl Applier for Terraform {
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
