//! What a Promise's status says: requirements, availability, and where its workflow stands.

use jiff::Timestamp;
use muster_api::{
    Promise,
    conditions::{self, Truth, Verdict, kind},
    promise::{NamedVersion, RequiredBy, RequiredPromise, RequiredPromiseStatus},
};
use serde_json::Value;

/// A requirement that is met.
pub const REQUIREMENT_INSTALLED: &str = "Requirement installed";
const REQUIREMENT_NOT_INSTALLED: &str = "Requirement not installed";
const REQUIREMENT_OTHER_VERSION: &str = "Requirement not installed at the specified version";
/// A requirement that is there, and cannot be used.
pub const REQUIREMENT_NOT_AVAILABLE: &str = "Requirement not available";

/// How one requirement stands, seen the Promise of its name (if there is one) and whether there is
/// a revision of the version that is asked for: a Promise that has been upgraded past it serves
/// those that were bound to it, and so still fulfils what needs it.
pub fn requirement(
    required: &RequiredPromise,
    found: Option<&Promise>,
    has_revision: bool,
) -> RequiredPromiseStatus {
    let is_there = |promise: &Promise| {
        let any = required.version.is_empty();
        any || has_revision || super::version(promise) == required.version
    };
    let state = match found {
        None => REQUIREMENT_NOT_INSTALLED,
        Some(promise) if !is_there(promise) => REQUIREMENT_OTHER_VERSION,
        Some(promise) if !available(promise) || is_leaving(promise) => REQUIREMENT_NOT_AVAILABLE,
        Some(_) => REQUIREMENT_INSTALLED,
    };
    RequiredPromiseStatus {
        name: required.name.clone(),
        version: required.version.clone(),
        state: state.to_owned(),
    }
}

/// Whether a Promise says that it is available.
pub fn available(promise: &Promise) -> bool {
    let status = promise.status.as_ref();
    status.is_some_and(|status| conditions::is_true(&status.conditions, kind::AVAILABLE))
}

/// Who requires a Promise: `status.requiredBy`, by name.
pub fn required_by(name: &str, all: &[Promise]) -> Vec<RequiredBy> {
    let staying = all.iter().filter(|promise| !is_leaving(promise));
    let mut found: Vec<_> = staying
        .flat_map(|promise| promise.spec.required_promises.iter().map(move |it| (promise, it)))
        .filter(|(_, required)| required.name == name)
        .map(|(promise, required)| RequiredBy {
            promise: NamedVersion {
                name: promise.metadata.name.clone().unwrap_or_default(),
                version: super::version(promise).to_owned(),
            },
            required_version: required.version.clone(),
        })
        .collect();
    found.sort_by(|a, b| a.promise.name.cmp(&b.promise.name));
    found
}

/// The Promises that must look again at who requires them, `required` being those of the present
/// spec as they are: those that do not name this one as it is now, and those that it no longer
/// requires.
pub fn to_tell(promise: &Promise, required: &[Promise]) -> Vec<String> {
    let name_of = |promise: &Promise| promise.metadata.name.clone().unwrap_or_default();
    let me = std::slice::from_ref(promise);
    let unaware = required.iter().filter(|required| {
        let told = required.status.as_ref().map(|status| status.required_by.as_slice());
        let told = told.unwrap_or_default();
        required_by(&name_of(required), me).iter().any(|wanted| !told.contains(wanted))
    });
    let before = promise.status.iter().flat_map(|status| &status.required_promises);
    let spec = &promise.spec.required_promises;
    let dropped = before.filter(|before| !spec.iter().any(|now| now.name == before.name));
    unaware.map(name_of).chain(dropped.map(|it| it.name.clone())).collect()
}

fn is_leaving(promise: &Promise) -> bool {
    promise.metadata.deletion_timestamp.is_some()
}

/// The condition `RequirementsFulfilled`.
pub fn requirements(states: &[RequiredPromiseStatus]) -> Verdict {
    let verdict = |truth, reason: &str, message: String| {
        Verdict::new(kind::REQUIREMENTS_FULFILLED, truth, reason, message)
    };
    let missing: Vec<_> =
        states.iter().filter(|state| state.state != REQUIREMENT_INSTALLED).collect();
    if missing.is_empty() {
        return verdict(Truth::True, "RequirementsInstalled", "Requirements fulfilled".to_owned());
    }
    let only_unavailable = missing.iter().all(|state| state.state == REQUIREMENT_NOT_AVAILABLE);
    let reason =
        if only_unavailable { "RequirementsNotAvailable" } else { "RequirementsNotInstalled" };
    let named: Vec<_> = missing
        .iter()
        .map(|state| match state.version.as_str() {
            "" => format!("{}: {}", state.name, state.state),
            version => format!("{} at {version}: {}", state.name, state.state),
        })
        .collect();
    verdict(Truth::False, reason, format!("Requirements not fulfilled: {}", named.join("; ")))
}

/// `Reconciled` of a Promise whose requirements are not fulfilled.
pub fn waits_for_requirements() -> Verdict {
    Verdict::new(kind::RECONCILED, Truth::Unknown, "RequirementsNotFulfilled", "Pending")
}

/// The condition `Available`, and the word in `status.status`.
pub fn availability(can: bool) -> (Verdict, &'static str) {
    if can {
        let message = "Ready to fulfil resource requests";
        (Verdict::new(kind::AVAILABLE, Truth::True, "PromiseAvailable", message), "Available")
    } else {
        let message = "Cannot fulfil resource requests";
        (Verdict::new(kind::AVAILABLE, Truth::False, "PromiseUnavailable", message), "Unavailable")
    }
}

/// Repeats under `status.kratix` what Kratix has in both places.
pub fn repeated(mut status: Value) -> Value {
    for key in ["kind", "apiVersion", "version", "status", "lastAvailableTime"] {
        let told = status.get(key).filter(|told| !told.is_null()).cloned();
        match (told, status["kratix"].as_object_mut()) {
            (Some(told), _) => status["kratix"][key] = told,
            (None, Some(kratix)) => drop(kratix.remove(key)),
            (None, None) => {}
        }
    }
    status
}

/// `status.lastAvailableTime`: moves when availability begins, not while it lasts.
pub fn last_available(promise: &Promise, now: Timestamp) -> String {
    let held = promise.status.as_ref().and_then(|status| status.last_available_time.clone());
    held.filter(|_| available(promise)).unwrap_or_else(|| crate::request::seconds(now))
}

#[cfg(test)]
mod tests;
