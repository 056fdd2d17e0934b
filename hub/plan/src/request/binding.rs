//! The ResourceBinding of a request: which version does the request follow, and what became of it?

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use muster_api::{
    ResourceBinding, ResourceBindingStatus,
    conditions::{self, Truth, Verdict},
    labels,
};
use serde_json::{Map, Value, json};

use crate::options::BindingStrategy;

/// The version of a binding that follows each new version of its Promise.
pub const LATEST: &str = "latest";
const UPGRADE_SUCCEEDED: &str = "UpgradeSucceeded";

/// Labels of a request that are not copied onto its binding: who it is, and what is to be done
/// with it once.
const OWN: [&str; 9] = [
    labels::PROMISE_NAME,
    labels::RESOURCE_NAME,
    labels::RESOURCE_NAMESPACE,
    labels::MANUAL_RECONCILIATION,
    labels::RECONCILE_RESOURCES,
    labels::PAUSED,
    labels::WORKFLOW_SUSPENDED,
    labels::RUN_FROM_START,
    labels::HASH,
];

/// Where the run for a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn<'a> {
    /// Its pipelines have not all ended.
    Running,
    /// They ended well.
    Done,
    /// They did not, or could not begin, for this reason.
    Failed(&'a str),
}

/// The version that a new binding gets: the one that an earlier, lost one had, or what the
/// platform's strategy says of a Promise at `present`.
pub fn first_version(recorded: Option<&str>, strategy: BindingStrategy, present: &str) -> String {
    let chosen = match strategy {
        BindingStrategy::Floating => LATEST,
        BindingStrategy::Pinned => present,
    };
    recorded.unwrap_or(chosen).to_owned()
}

/// The status of a binding whose request is on its way to `version`, or there.
pub fn status(
    old: &ResourceBindingStatus,
    version: &str,
    turn: Turn<'_>,
    now: Timestamp,
) -> ResourceBindingStatus {
    let mut status = old.clone();
    let applied = old.last_applied_version.as_deref();
    let verdict = |truth, reason: &str, message: String| {
        Some(Verdict::new(UPGRADE_SUCCEEDED, truth, reason, message))
    };
    let verdict = match turn {
        Turn::Done => {
            let first = applied.is_none_or(|applied| applied == version);
            let silent = first && old.conditions.is_empty();
            status.last_applied_version = Some(version.to_owned());
            status.failed_version = None;
            let message = format!("Resource is at version {version}");
            verdict(Truth::True, "UpgradeComplete", message).filter(|_| !silent)
        }
        Turn::Failed(why) => {
            status.failed_version = Some(version.to_owned());
            verdict(Truth::False, "UpgradeFailed", why.to_owned())
        }
        Turn::Running if applied.is_some_and(|applied| applied != version) => {
            status.failed_version = None;
            let message = format!("Upgrade to version {version} is in progress");
            verdict(Truth::Unknown, "UpgradeInProgress", message)
        }
        Turn::Running if old.failed_version.is_some() => {
            status.failed_version = None;
            let message = format!("Reconciliation requested for version {version}");
            verdict(Truth::Unknown, "UpgradeInProgress", message)
        }
        Turn::Running => None,
    };
    if let Some(verdict) = verdict {
        conditions::set(&mut status.conditions, &verdict, None, now);
    }
    status
}

/// The change of a binding's metadata by which its labels follow the request's; `None`: they do.
/// Labels that somebody else put onto the binding stay.
pub fn mirrored(binding: &ResourceBinding, request: &BTreeMap<String, String>) -> Option<Value> {
    let none = BTreeMap::new();
    let held = binding.metadata.labels.as_ref().unwrap_or(&none);
    let copies = copies(request);
    let before = recorded(binding);
    let changed = copies.iter().filter(|(key, value)| held.get(*key) != Some(value));
    let mut labels: Map<String, Value> =
        changed.map(|(key, value)| ((*key).clone(), json!(value))).collect();
    let gone = before.iter().filter(|key| !copies.contains_key(*key) && held.contains_key(*key));
    labels.extend(gone.map(|key| (key.clone(), Value::Null)));
    let list = list(&copies);
    if labels.is_empty() && list == before.into_iter().collect::<Vec<_>>().join(",") {
        return None;
    }
    let list = if list.is_empty() { Value::Null } else { json!(list) };
    Some(json!({ "labels": labels, "annotations": { labels::MIRRORED: list } }))
}

/// Labels and annotations of a new binding, but for those that say whose it is.
pub fn first_metadata(
    request: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Option<BTreeMap<String, String>>) {
    let copies = copies(request);
    let list = list(&copies);
    let annotations = (!list.is_empty()).then(|| [(labels::MIRRORED.to_owned(), list)].into());
    (copies, annotations)
}

fn copies(request: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mirrored = request.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    mirrored.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn list(copies: &BTreeMap<String, String>) -> String {
    copies.keys().cloned().collect::<Vec<_>>().join(",")
}

fn recorded(binding: &ResourceBinding) -> BTreeSet<String> {
    let annotations = binding.metadata.annotations.as_ref();
    let list = annotations.and_then(|all| all.get(labels::MIRRORED)).map_or("", String::as_str);
    list.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use muster_api::{
        ResourceBindingSpec, promise_revision::PromiseRef, resource_binding::ResourceRef,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn condition(status: &ResourceBindingStatus) -> String {
        let found = conditions::find(&status.conditions, UPGRADE_SUCCEEDED);
        found.map_or(String::new(), |c| format!("{}/{}: {}", c.status, c.reason, c.message))
    }

    fn at(version: &str) -> ResourceBindingStatus {
        status(&ResourceBindingStatus::default(), version, Turn::Done, NOW)
    }

    #[test]
    fn the_first_version_is_applied_without_a_word_of_an_upgrade() {
        let none = ResourceBindingStatus::default();
        assert_eq!(status(&none, "v1", Turn::Running, NOW), none);
        assert_eq!(at("v1").last_applied_version.as_deref(), Some("v1"));
        assert!(at("v1").conditions.is_empty());
    }

    #[test]
    fn an_upgrade_is_told_from_its_begin_to_its_end() {
        let moving = status(&at("v1"), "v2", Turn::Running, NOW);
        let told = "Unknown/UpgradeInProgress: Upgrade to version v2 is in progress";
        assert_eq!(condition(&moving), told);
        assert_eq!(moving.last_applied_version.as_deref(), Some("v1"));
        let done = status(&moving, "v2", Turn::Done, NOW);
        assert_eq!(condition(&done), "True/UpgradeComplete: Resource is at version v2");
        assert_eq!(done.last_applied_version.as_deref(), Some("v2"));
    }

    #[test]
    fn a_failed_version_is_remembered_until_it_is_tried_again() {
        let failed = status(&at("v1"), "v2", Turn::Failed("pipeline light"), NOW);
        assert_eq!(condition(&failed), "False/UpgradeFailed: pipeline light");
        assert_eq!(failed.failed_version.as_deref(), Some("v2"));
        assert_eq!(failed.last_applied_version.as_deref(), Some("v1"));
        let again = status(&failed, "v2", Turn::Running, NOW);
        assert_eq!(again.failed_version, None);
        // What failed at the version at which it is has not been upgraded.
        let failed = status(&at("v1"), "v1", Turn::Failed("light"), NOW);
        let again = status(&failed, "v1", Turn::Running, NOW);
        let told = "Unknown/UpgradeInProgress: Reconciliation requested for version v1";
        assert_eq!(condition(&again), told);
    }

    #[test]
    fn a_lost_binding_comes_back_as_it_was_and_a_new_one_as_the_platform_wants() {
        assert_eq!(first_version(None, BindingStrategy::Floating, "v2"), LATEST);
        assert_eq!(first_version(None, BindingStrategy::Pinned, "v2"), "v2");
        assert_eq!(first_version(Some("v1"), BindingStrategy::Floating, "v2"), "v1");
    }

    #[test]
    fn labels_follow_the_request_and_others_stay() {
        let set = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let spec = ResourceBindingSpec {
            version: LATEST.to_owned(),
            promise_ref: PromiseRef::default(),
            resource_ref: ResourceRef::default(),
        };
        let mut binding = ResourceBinding::new("a", spec);
        let request = set(&[("team", "blue"), ("kratix.io/workflow-suspended", "true")]);
        let (labels, annotations) = first_metadata(&request);
        assert_eq!(labels, set(&[("team", "blue")]));
        binding.metadata.labels = Some(labels);
        binding.metadata.labels.as_mut().unwrap().insert("mine".to_owned(), "1".to_owned());
        binding.metadata.annotations = annotations;
        assert_eq!(mirrored(&binding, &request), None);
        let patch = mirrored(&binding, &set(&[("tier", "1")])).unwrap();
        assert_eq!(patch["labels"], json!({ "tier": "1", "team": null }));
        assert_eq!(patch["annotations"][labels::MIRRORED], "tier");
        let patch = mirrored(&binding, &set(&[])).unwrap();
        assert_eq!(patch["labels"], json!({ "team": null }));
        assert!(patch["annotations"][labels::MIRRORED].is_null());
    }
}
