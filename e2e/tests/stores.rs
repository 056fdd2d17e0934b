//! State stores on real servers, by the real programs: what is written, what is repaired, and what
//! people read when something is wrong.

#[path = "stores/buckets.rs"]
mod buckets;
#[path = "stores/contents.rs"]
mod contents;
#[path = "stores/git.rs"]
mod git;
#[path = "stores/jars.rs"]
mod jars;
#[path = "stores/troubles.rs"]
mod troubles;

use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_e2e::{Hub, Kubectl, has_part};

/// Each of these tests runs a hub and a server or two: side by side they would only wait for each
/// other.
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn, if all parts that it needs are here.
fn turn(parts: &[&str]) -> Option<MutexGuard<'static, ()>> {
    let here = parts.iter().all(|part| has_part(part));
    here.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until the reason of an object's `Ready` condition is this one; its message.
fn ready_reason(kubectl: &Kubectl, object: &str, reason: &str) -> String {
    kubectl.reason(object, "Ready", reason)
}

/// Waits until a request is reconciled, and says how it reads if it never is.
fn reconciled(hub: &Hub, request: &str) {
    hub.kubectl().wait(request, "Reconciled");
}
