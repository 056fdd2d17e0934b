//! A Promise: what does it offer, what must exist for it, what does its status say?

pub mod api;
pub mod dependencies;
pub mod status;

use std::collections::BTreeMap;

use muster_api::{
    Promise, PromiseRevision, PromiseRevisionSpec, PromiseSpec, labels,
    promise_revision::PromiseRef,
};

use crate::{
    names,
    workflow::{self, Workflows, rerun},
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

/// The name of the revision of a Promise at a version.
pub fn revision_name(promise: &str, version: &str) -> String {
    format!("{promise}-{}", &names::md5_hex(version)[..5])
}

/// The revision that keeps this Promise's spec under its version.
pub fn revision(promise: &Promise) -> PromiseRevision {
    let name = promise.metadata.name.as_deref().unwrap_or_default();
    let version = version(promise);
    let spec = PromiseRevisionSpec {
        promise_ref: PromiseRef { name: name.to_owned() },
        promise_spec: promise.spec.clone(),
        version: version.to_owned(),
    };
    let mut revision = PromiseRevision::new(&revision_name(name, version), spec);
    revision.metadata.labels = Some(BTreeMap::from([
        (labels::PROMISE_NAME.to_owned(), name.to_owned()),
        (labels::LATEST_REVISION.to_owned(), "true".to_owned()),
    ]));
    // The Promise's interval is that of its requests, which follow the revision.
    let interval = rerun::annotated(&promise.metadata);
    revision.metadata.annotations = interval.map(|interval| {
        BTreeMap::from([(labels::RECONCILIATION_INTERVAL.to_owned(), interval.to_owned())])
    });
    revision
}
