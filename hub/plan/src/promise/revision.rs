//! The revisions of a Promise: what is kept of each version, and for how long?

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_api::{
    KRATIX_GROUP, Promise, PromiseRevision, PromiseRevisionSpec, ResourceBinding, VERSION,
    labels::{self, finalizer},
    promise_revision::PromiseRef,
};

use super::{RequestApi, VERSION_NOT_SET};
use crate::{names, request::binding, workflow::rerun};

/// How many revisions that nobody needs are kept of each Promise besides the latest, to go back to.
/// Each holds a whole copy of a Promise's spec, and Kratix never removes one.
pub const UNUSED_KEPT: usize = 5;

/// How many of the requests that are bound to a revision are named.
const BOUND_SHOWN: usize = 5;

/// The name of the revision of a Promise at a version, as in Kratix.
pub fn name(promise: &str, version: &str) -> String {
    format!("{promise}-{}", &names::md5_hex(version)[..5])
}

/// The revision that keeps this Promise's spec under its version.
pub fn of(promise: &Promise) -> PromiseRevision {
    let (owner, version) = (promise.metadata.name.as_deref(), super::version(promise));
    let owner = owner.unwrap_or_default();
    let spec = PromiseRevisionSpec {
        promise_ref: PromiseRef { name: owner.to_owned() },
        promise_spec: promise.spec.clone(),
        version: version.to_owned(),
    };
    let mut revision = PromiseRevision::new(&name(owner, version), spec);
    let metadata = &mut revision.metadata;
    metadata.labels = Some(BTreeMap::from([
        (labels::PROMISE_NAME.to_owned(), owner.to_owned()),
        (labels::LATEST_REVISION.to_owned(), "true".to_owned()),
    ]));
    metadata.finalizers = Some(vec![finalizer::RESOURCE_REQUEST_CLEANUP.to_owned()]);
    metadata.owner_references = promise.metadata.uid.clone().map(|uid| {
        vec![OwnerReference {
            api_version: format!("{KRATIX_GROUP}/{VERSION}"),
            kind: "Promise".to_owned(),
            name: owner.to_owned(),
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]
    });
    metadata.annotations = interval(promise).map(|interval| [interval].into());
    revision
}

/// What identifies a state of a revision: applying another spec under its version changes it.
pub fn mark(revision: &PromiseRevision) -> String {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    format!("{name}.{}", revision.metadata.generation.unwrap_or_default())
}

/// The requests that are bound to a revision, as `NAMESPACE/NAME`: of the latest, those that follow
/// it are not meant.
pub fn bound(revision: &PromiseRevision, bindings: &[ResourceBinding]) -> Vec<String> {
    let to = |binding: &&ResourceBinding| {
        binding.spec.promise_ref.name == revision.spec.promise_ref.name
            && binding.spec.version == revision.spec.version
    };
    let names = bindings.iter().filter(to).map(|binding| {
        let request = &binding.spec.resource_ref;
        format!("{}/{}", request.namespace, request.name)
    });
    names.collect()
}

/// Why a revision to which these requests are bound stays, and what to do about it.
pub fn in_use(revision: &PromiseRevision, bound: &[String]) -> String {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let (count, version) = (bound.len(), &revision.spec.version);
    let shown: Vec<_> = bound.iter().take(BOUND_SHOWN).map(String::as_str).collect();
    let more = if count > BOUND_SHOWN { ", ..." } else { "" };
    format!(
        "requests are bound to version {version} of promise {} ({count}: {}{more}): set \
         spec.version of their ResourceBindings to another version, or delete them; the annotation \
         {}=true on PromiseRevision {name} lets it go without its requests",
        revision.spec.promise_ref.name,
        shown.join(", "),
        labels::SKIP_REQUEST_CLEANUP,
    )
}

/// The names of the revisions that are no longer kept: all but the newest [`UNUSED_KEPT`] of those
/// to which nothing is bound, from which nothing is being moved away, and that no other Promise
/// requires.
pub fn surplus<'a>(
    revisions: &'a [PromiseRevision],
    bindings: &[ResourceBinding],
    required: &BTreeSet<String>,
) -> Vec<&'a str> {
    let is_used = |revision: &PromiseRevision| {
        let version = &revision.spec.version;
        let applied = |binding: &ResourceBinding| {
            let status = binding.status.as_ref();
            status.and_then(|status| status.last_applied_version.as_ref()) == Some(version)
        };
        required.contains(version)
            || !bound(revision, bindings).is_empty()
            || bindings.iter().any(applied)
    };
    let mut unused: Vec<_> = revisions
        .iter()
        .filter(|revision| !is_latest(revision) && revision.metadata.deletion_timestamp.is_none())
        .filter(|revision| !is_used(revision))
        .collect();
    unused.sort_by_key(|revision| std::cmp::Reverse((order(revision), &revision.metadata.name)));
    unused.into_iter().skip(UNUSED_KEPT).filter_map(|r| r.metadata.name.as_deref()).collect()
}

/// The place of a revision that becomes the latest now.
pub fn next_order(revisions: &[PromiseRevision]) -> i64 {
    revisions.iter().map(order).max().unwrap_or_default() + 1
}

/// Whether a revision says that it is the latest.
pub fn is_latest(revision: &PromiseRevision) -> bool {
    let labels = revision.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(labels::LATEST_REVISION))
}

/// Whether a revision may go although requests are bound to it: they stay, without one.
pub fn skips_cleanup(revision: &PromiseRevision) -> bool {
    let annotations = revision.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(labels::SKIP_REQUEST_CLEANUP));
    value.is_some_and(|value| value == "true")
}

/// Whether any of these revisions offers another schema than `api`: then a request's own revision
/// says what it may hold.
pub fn differ(promise: &str, api: &RequestApi, revisions: &[PromiseRevision]) -> bool {
    let schemas = |api: &RequestApi| api.schemas(promise);
    let own = schemas(api);
    revisions
        .iter()
        .filter_map(|revision| revision.spec.promise_spec.api.as_ref())
        .any(|crd| RequestApi::read(crd).is_ok_and(|other| schemas(&other) != own))
}

/// The version that a binding asks for, given the Promise's own.
pub fn wanted<'a>(binding: &'a ResourceBinding, promise: &'a Promise) -> &'a str {
    match binding.spec.version.as_str() {
        binding::LATEST => super::version(promise),
        "" => VERSION_NOT_SET,
        exact => exact,
    }
}

/// Whether a release says what a Promise is.
pub fn is_released(promise: &Promise) -> bool {
    let held = promise.metadata.labels.as_ref();
    held.is_some_and(|labels| labels.contains_key(labels::PROMISE_RELEASE_NAME))
}

/// A Promise's interval goes with its versions, unless a release says what the Promise is.
fn interval(promise: &Promise) -> Option<(String, String)> {
    if is_released(promise) {
        return None;
    }
    let interval = rerun::annotated(&promise.metadata)?;
    Some((labels::RECONCILIATION_INTERVAL.to_owned(), interval.to_owned()))
}

/// When a revision became the latest, compared with others, whatever any clock says.
fn order(revision: &PromiseRevision) -> i64 {
    let annotations = revision.metadata.annotations.as_ref();
    let order = annotations.and_then(|all| all.get(labels::REVISION_ORDER));
    order.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_api::{PromiseSpec, ResourceBindingSpec, resource_binding::ResourceRef};

    use super::*;

    fn promise(version: &str) -> Promise {
        let mut promise = Promise::new("cache", PromiseSpec::default());
        promise.metadata.uid = Some("u".to_owned());
        promise.metadata.labels =
            Some([(labels::PROMISE_VERSION.to_owned(), version.to_owned())].into());
        promise
    }

    /// Revisions v0, v1, … in the order of their creation; the last is the latest.
    fn revisions(count: i64) -> Vec<PromiseRevision> {
        let made = (0..count).map(|number| {
            let mut revision = of(&promise(&format!("v{number}")));
            let order = [(labels::REVISION_ORDER.to_owned(), number.to_string())];
            revision.metadata.annotations = Some(order.into());
            if number + 1 < count {
                let labels = revision.metadata.labels.as_mut().unwrap();
                labels.remove(labels::LATEST_REVISION);
            }
            revision
        });
        made.collect()
    }

    fn binding(version: &str) -> ResourceBinding {
        let spec = ResourceBindingSpec {
            version: version.to_owned(),
            promise_ref: PromiseRef { name: "cache".to_owned() },
            resource_ref: ResourceRef {
                name: "a".to_owned(),
                namespace: "default".to_owned(),
                generation: 1,
            },
        };
        ResourceBinding::new("a-cache-00000", spec)
    }

    #[test]
    fn a_revision_belongs_to_its_promise_and_goes_with_it() {
        let revision = of(&promise("v1.0.0"));
        assert_eq!(revision.metadata.name.as_deref(), Some("cache-2888c"));
        let owner = &revision.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("Promise", Some(true)));
        assert!(is_latest(&revision));
    }

    #[test]
    fn the_newest_unused_revisions_are_kept_and_no_more() {
        let all = revisions(9);
        let names: Vec<_> = ["v2", "v1", "v0"].map(|version| name("cache", version)).into();
        assert_eq!(surplus(&all, &[], &BTreeSet::new()), names);
        assert!(surplus(&revisions(6), &[], &BTreeSet::new()).is_empty());
    }

    #[test]
    fn what_is_bound_applied_or_required_is_kept() {
        let all = revisions(9);
        let mut moving = binding("latest");
        moving.status = Some(muster_api::ResourceBindingStatus {
            last_applied_version: Some("v1".to_owned()),
            ..Default::default()
        });
        let required = BTreeSet::from(["v2".to_owned()]);
        assert!(surplus(&all, &[binding("v0"), moving], &required).is_empty());
        assert_eq!(bound(&all[0], &[binding("v0")]), ["default/a"]);
    }

    #[test]
    fn a_binding_follows_the_latest_or_stays() {
        assert_eq!(wanted(&binding("latest"), &promise("v2")), "v2");
        assert_eq!(wanted(&binding("v1"), &promise("v2")), "v1");
    }
}
