//! What a pipeline put out → a Work: groups of files, and which destinations each may go to.
//!
//! One Work for each pipeline of an object. A directory that `destination-selectors.yaml` names is
//! a group of its own; the rest is the group `.`, which also has the Promise's selectors.

pub mod control;
pub mod selectors;

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    Work, WorkSpec, WorkloadGroup, destination::DestinationSelector, labels, work::Workload,
};
use muster_core::{Digest, FileSet};

use crate::{
    names,
    workflow::{Scope, Subject},
};
pub use control::Control;
pub use selectors::{Directive, OutputError};

/// Where the output begins in the files that a pipeline hands over.
const OUTPUT: &str = "output/";
/// The file that splits the output.
const SELECTORS_FILE: &str = "metadata/destination-selectors.yaml";
/// The file that asks the workflow to wait.
const CONTROL_FILE: &str = "metadata/workflow-control.yaml";
/// The top directories of the output that are there and hold no file, one on each line.
const EMPTY_DIRECTORIES: &str = "empty-directories";
/// The directory of the group of all files that belong to no other.
const ROOT: &str = ".";

/// One group of a pipeline's output, with its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its directory; `.` for the rest.
    pub directory: String,
    /// Its files, by their paths in the whole output.
    pub files: FileSet,
    /// Which destinations.
    pub selectors: Vec<DestinationSelector>,
}

/// What a pipeline asks for by its output.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A Work of these groups.
    Groups(Vec<Group>),
    /// To wait: the Work stays as it is.
    Wait,
}

/// Reads what a pipeline handed over: `output/…` and `metadata/…`.
pub fn read(
    handed: &FileSet,
    scope: Scope,
    promise_selectors: &[DestinationSelector],
) -> Result<Output, OutputError> {
    if let Some(bytes) = handed.get(CONTROL_FILE)
        && control::read(bytes)?.waits()
    {
        return Ok(Output::Wait);
    }
    let directives = match handed.get(SELECTORS_FILE) {
        Some(bytes) => selectors::read(bytes)?,
        None => Vec::new(),
    };
    let mut groups = directory_groups(&directives, scope);
    let mut rest = FileSet::new();
    for (path, bytes) in handed.iter() {
        let Some(path) = path.strip_prefix(OUTPUT) else { continue };
        let directory = path.split_once('/').map(|(directory, _)| directory);
        let files = match directory.and_then(|directory| groups.get_mut(directory)) {
            Some(group) => &mut group.files,
            None => &mut rest,
        };
        files.insert(path, bytes.to_vec())?;
    }
    let there = handed.get(EMPTY_DIRECTORIES).map(String::from_utf8_lossy).unwrap_or_default();
    let there: BTreeSet<&str> = there.lines().collect();
    let missing =
        |group: &&Group| group.files.is_empty() && !there.contains(group.directory.as_str());
    if let Some(group) = groups.values().find(missing) {
        return Err(OutputError::NoDirectory(group.directory.clone()));
    }
    // A directory of nothing goes nowhere.
    groups.retain(|_, group| !group.files.is_empty());
    let mut found: Vec<_> = groups.into_values().collect();
    if !rest.is_empty() {
        let own = directives.iter().find(|directive| directive.directory.is_none());
        let mut selectors: Vec<_> =
            own.map(|own| sourced(&own.selector, scope)).into_iter().collect();
        selectors.extend(promise_selectors.iter().map(|selector| DestinationSelector {
            source: Some("promise".to_owned()),
            ..selector.clone()
        }));
        found.push(Group { directory: ROOT.to_owned(), files: rest, selectors });
    }
    Ok(Output::Groups(found))
}

/// The Work of one pipeline of an object, or (without a pipeline) of a Promise's dependencies.
pub fn work(subject: &Subject, pipeline: Option<&str>, groups: &[(Group, Digest)]) -> Work {
    let namespace = subject.namespace.as_deref().unwrap_or_default();
    let part = pipeline.unwrap_or("static-deps");
    let identity = [subject.scope.as_str(), namespace, &subject.name, part];
    let name = names::bounded(&format!("{}-{part}", subject.stem()), &identity);
    let requested = subject.namespace.is_some();
    let spec = WorkSpec {
        promise_name: subject.promise.clone(),
        resource_name: requested.then(|| subject.name.clone()),
        workload_groups: groups.iter().map(|(group, digest)| described(group, digest)).collect(),
        children: Vec::new(),
    };
    let mut work = Work::new(&name, spec);
    work.metadata.namespace = Some(subject.job_namespace.clone());
    let mut all = subject.labels();
    all.insert(labels::WORK_TYPE.to_owned(), work_type(subject.scope, pipeline).to_owned());
    if let Some(pipeline) = pipeline {
        all.insert(labels::PIPELINE_NAME.to_owned(), pipeline.to_owned());
    }
    work.metadata.labels = Some(all);
    // It stays until its placements are gone; from the beginning, so that this needs no write.
    work.metadata.finalizers = Some(vec![labels::finalizer::WORK_CLEANUP.to_owned()]);
    work.metadata.annotations =
        requested.then(|| BTreeMap::from([(REQUEST_KIND.to_owned(), subject.kind.clone())]));
    work
}

/// The request's kind, on its Works: agents pass it on to scripts.
pub const REQUEST_KIND: &str = "fleet.muster.dev/request-kind";

fn work_type(scope: Scope, pipeline: Option<&str>) -> &'static str {
    match (scope, pipeline) {
        (_, None) => "static-dependency",
        (Scope::Promise, _) => "promise",
        (Scope::Resource, _) => "resource",
    }
}

fn described(group: &Group, digest: &Digest) -> WorkloadGroup {
    let workloads = group.files.iter().map(|(path, bytes)| Workload {
        filepath: path.to_owned(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
    });
    WorkloadGroup {
        id: names::md5_hex(&group.directory),
        directory: group.directory.clone(),
        digest: digest.to_string(),
        workloads: workloads.collect(),
        destination_selectors: group.selectors.clone(),
    }
}

fn directory_groups(directives: &[Directive], scope: Scope) -> BTreeMap<String, Group> {
    let named = directives.iter().filter_map(|directive| {
        let directory = directive.directory.clone()?;
        let selectors = vec![sourced(&directive.selector, scope)];
        Some((directory.clone(), Group { directory, files: FileSet::new(), selectors }))
    });
    named.collect()
}

fn sourced(selector: &DestinationSelector, scope: Scope) -> DestinationSelector {
    let source = format!("{}-workflow", scope.as_str());
    DestinationSelector { source: Some(source), ..selector.clone() }
}

#[cfg(test)]
mod tests;
