//! Requirements: which state, and who is told of them; and what is said twice.

use muster_api::{PromiseSpec, PromiseStatus, labels};

use super::*;

fn promise(name: &str, version: &str, requires: &[(&str, &str)]) -> Promise {
    let required = requires.iter().map(|(name, version)| RequiredPromise {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
    });
    let spec = PromiseSpec { required_promises: required.collect(), ..PromiseSpec::default() };
    let mut promise = Promise::new(name, spec);
    promise.metadata.labels =
        Some([(labels::PROMISE_VERSION.to_owned(), version.to_owned())].into());
    promise
}

fn made_available(mut promise: Promise) -> Promise {
    let mut status = PromiseStatus::default();
    conditions::set(&mut status.conditions, &availability(true).0, None, Timestamp::UNIX_EPOCH);
    promise.status = Some(status);
    promise
}

#[test]
fn a_requirement_is_met_by_a_revision_of_its_version_and_an_available_promise() {
    let state = |version: &str, found: Option<&Promise>, has_revision: bool| {
        let required = RequiredPromise { name: "water".into(), version: version.into() };
        requirement(&required, found, has_revision).state
    };
    let ready = made_available(promise("water", "v2", &[]));
    assert_eq!(state("", None, false), "Requirement not installed");
    assert_eq!(state("v1", None, false), "Requirement not installed");
    assert_eq!(state("v1", Some(&ready), false), REQUIREMENT_OTHER_VERSION);
    assert_eq!(state("v1", Some(&ready), true), "Requirement installed", "upgraded past it");
    assert_eq!(state("v2", Some(&ready), false), "Requirement installed", "not yet recorded");
    assert_eq!(state("", Some(&ready), false), "Requirement installed");
    let unready = promise("water", "v2", &[]);
    assert_eq!(state("v2", Some(&unready), true), "Requirement not available");
    assert_eq!(state("v3", Some(&unready), false), REQUIREMENT_OTHER_VERSION);
    let mut leaving = ready.clone();
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    assert_eq!(state("v2", Some(&leaving), true), "Requirement not available");
}

#[test]
fn a_promise_names_those_that_require_it_and_they_see_that_it_does() {
    let tea = promise("tea", "v0.1", &[("water", "v1"), ("milk", "")]);
    let soup = promise("soup", "v3", &[("water", "")]);
    let found = required_by("water", &[tea.clone(), soup, promise("milk", "v1", &[])]);
    let shown: Vec<_> = found
        .iter()
        .map(|it| format!("{} {} {}", it.promise.name, it.promise.version, it.required_version))
        .collect();
    assert_eq!(shown, ["soup v3 ", "tea v0.1 v1"]);

    let mut water = made_available(promise("water", "v1", &[]));
    let milk = promise("milk", "v1", &[]);
    assert_eq!(to_tell(&tea, &[water.clone(), milk.clone()]), ["water", "milk"]);
    water.status.as_mut().unwrap().required_by = found;
    assert_eq!(to_tell(&tea, &[water.clone(), milk]), ["milk"]);

    // One that is no longer required looks again, too.
    let mut tea = promise("tea", "v0.2", &[("water", "v1")]);
    let state = |name: &str| RequiredPromiseStatus { name: name.into(), ..Default::default() };
    let before = vec![state("water"), state("milk")];
    tea.status = Some(PromiseStatus { required_promises: before, ..PromiseStatus::default() });
    assert_eq!(to_tell(&tea, &[water]), ["water", "milk"], "a new version is told, too");
}

#[test]
fn what_kratix_says_in_two_places_is_said_in_both_and_taken_back_in_both() {
    let told = repeated(serde_json::json!({
        "kind": "Tea", "status": "Available", "message": "hot",
        "kratix": { "version": "v1", "workflows": {} },
    }));
    let both = serde_json::json!({ "kind": "Tea", "status": "Available", "workflows": {} });
    assert_eq!(told["kratix"], both);
    assert_eq!(told["message"], "hot");
}
