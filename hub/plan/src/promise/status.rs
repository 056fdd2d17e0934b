//! What a Promise's status says: requirements, availability, and where its workflow stands.

use jiff::Timestamp;
use muster_api::{
    Promise,
    conditions::{self, Truth, Verdict, kind},
    promise::{RequiredPromise, RequiredPromiseStatus},
};

/// A requirement that is met.
pub const REQUIREMENT_INSTALLED: &str = "Requirement installed";
const REQUIREMENT_NOT_INSTALLED: &str = "Requirement not installed";
const REQUIREMENT_OTHER_VERSION: &str = "Requirement not installed at the specified version";
const REQUIREMENT_NOT_AVAILABLE: &str = "Requirement not available";

/// How one requirement stands, seen the Promise of its name (if there is one).
pub fn requirement(required: &RequiredPromise, found: Option<&Promise>) -> RequiredPromiseStatus {
    let state = match found {
        None => REQUIREMENT_NOT_INSTALLED,
        Some(promise)
            if !required.version.is_empty() && super::version(promise) != required.version =>
        {
            REQUIREMENT_OTHER_VERSION
        }
        Some(promise) if !available(promise) => REQUIREMENT_NOT_AVAILABLE,
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

/// `status.lastAvailableTime`: moves when availability begins, not while it lasts.
pub fn last_available(promise: &Promise, now: Timestamp) -> String {
    let held = promise.status.as_ref().and_then(|status| status.last_available_time.clone());
    held.filter(|_| available(promise)).unwrap_or_else(|| crate::request::seconds(now))
}
