//! A Promise: what does it offer, what must exist for it, what does its status say?

pub mod api;
pub mod dependencies;
pub mod revision;
pub mod status;

use muster_api::{Promise, PromiseSpec, labels};

use crate::{
    names,
    workflow::{self, Workflows},
};
pub use api::RequestApi;

/// The version of a Promise without the label, as in Kratix.
pub const VERSION_NOT_SET: &str = "not-set";

/// A Promise, read and found to be in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The Promise's name.
    pub promise: String,
    /// Its request API, if it has one.
    pub api: Option<RequestApi>,
    /// Its pipelines.
    pub workflows: Workflows,
    /// The hash of its spec and generation: when it changes, everything runs again.
    pub hash: String,
}

impl Offer {
    /// Reads a Promise; all that is wrong with it otherwise, each naming the field.
    pub fn read(promise: &str, generation: i64, spec: &PromiseSpec) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let api = spec.api.as_ref().and_then(|value| {
            RequestApi::read(value).map_err(|error| wrong.push(error.to_string())).ok()
        });
        let workflows = workflow::read(promise, spec).unwrap_or_else(|mut causes| {
            wrong.append(&mut causes);
            Workflows::default()
        });
        if wrong.is_empty() {
            Ok(Self { promise: promise.to_owned(), api, workflows, hash: hash(generation, spec) })
        } else {
            Err(wrong)
        }
    }
}

/// The hash of a Promise's spec. The generation is part of it, so that going back to an earlier
/// spec runs everything again, too.
pub fn hash(generation: i64, spec: &PromiseSpec) -> String {
    let text = serde_json::to_string(spec).unwrap_or_default();
    names::fingerprint(&[&generation.to_string(), &text])
}

/// A Promise's version: its label's value.
pub fn version(promise: &Promise) -> &str {
    labelled_version(promise).unwrap_or(VERSION_NOT_SET)
}

/// The value of the label, if it is there: what status says of the version.
pub fn labelled_version(promise: &Promise) -> Option<&str> {
    let labels = promise.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::PROMISE_VERSION)).map(String::as_str)
}
