//! The rules on PromiseRevisions.

use muster_api::PromiseRevision;

use super::{Refusal, denied};
use crate::promise::revision;

const WEBHOOK: &str = "vpromiserevision-v1alpha1.kb.io";

/// Whether somebody who is not one of the hub's controllers may change a revision so. A revision is
/// what its version was: requests that are bound to it must not find something else.
pub fn revision_change(old: &PromiseRevision, new: &PromiseRevision) -> Result<(), Refusal> {
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let (was, is) = (&old.spec, &new.spec);
    let refuse = |field: &str, value: &str, cure: &str| {
        let cause = format!("{field}: Invalid value: {value}: field is immutable: {cure}");
        Err(denied(WEBHOOK, &format!("PromiseRevision {name:?} was not valid: {cause}")))
    };
    if was.version != is.version {
        let value = format!("{:?}", is.version);
        return refuse("spec.version", &value, "apply the Promise with another version label");
    }
    if was.promise_ref != is.promise_ref {
        let value = format!("{:?}", is.promise_ref.name);
        return refuse("spec.promiseRef.name", &value, "a revision belongs to one Promise");
    }
    if was.promise_spec != is.promise_spec {
        let cure = format!("it is a copy: change Promise {}", is.promise_ref.name);
        return refuse("spec.promiseSpec", "object", &cure);
    }
    Ok(())
}

/// Whether somebody who is not one of the hub's controllers may delete a revision of a Promise that
/// stays, given the requests that are bound to it.
pub fn revision_deletion(old: &PromiseRevision, bound: &[String]) -> Result<(), Refusal> {
    if revision::is_latest(old) {
        return Err(denied(WEBHOOK, "can not delete the latest PromiseRevision"));
    }
    if bound.is_empty() || revision::skips_cleanup(old) {
        return Ok(());
    }
    let name = old.metadata.name.as_deref().unwrap_or_default();
    let why = revision::in_use(old, bound);
    Err(denied(WEBHOOK, &format!("can not delete PromiseRevision {name}: {why}")))
}

#[cfg(test)]
mod tests {
    use muster_api::{Promise, PromiseSpec, labels};

    use super::*;

    fn older() -> PromiseRevision {
        let mut revision = revision::of(&Promise::new("cache", PromiseSpec::default()));
        revision.metadata.labels.as_mut().unwrap().remove(labels::LATEST_REVISION);
        revision
    }

    #[test]
    fn what_a_version_was_may_not_change() {
        let old = older();
        assert_eq!(revision_change(&old, &old), Ok(()));
        let mut new = old.clone();
        new.spec.version = "v2".to_owned();
        let told = revision_change(&old, &new).unwrap_err().message;
        assert!(told.contains("spec.version: Invalid value: \"v2\": field is immutable"), "{told}");
        let mut new = old.clone();
        new.spec.promise_ref.name = "other".to_owned();
        let told = revision_change(&old, &new).unwrap_err().message;
        assert!(told.contains("spec.promiseRef.name: Invalid value: \"other\""), "{told}");
        let mut new = old.clone();
        new.spec.promise_spec.dependencies = vec![serde_json::json!({})];
        let told = revision_change(&old, &new).unwrap_err().message;
        assert!(told.contains("change Promise cache"), "{told}");
    }

    #[test]
    fn the_latest_and_those_in_use_stay() {
        let mut revision = older();
        assert_eq!(revision_deletion(&revision, &[]), Ok(()));
        let bound = ["default/a".to_owned()];
        let told = revision_deletion(&revision, &bound).unwrap_err().message;
        assert!(told.contains("(1: default/a)"), "{told}");
        let skip = (labels::SKIP_REQUEST_CLEANUP.to_owned(), "true".to_owned());
        revision.metadata.annotations = Some([skip].into());
        assert_eq!(revision_deletion(&revision, &bound), Ok(()));
        let latest = revision::of(&Promise::new("cache", PromiseSpec::default()));
        let told = revision_deletion(&latest, &[]).unwrap_err().message;
        assert!(told.ends_with("can not delete the latest PromiseRevision"), "{told}");
    }
}
