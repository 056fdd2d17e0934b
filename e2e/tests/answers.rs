//! Bad input gets a clear answer and loses nothing: each through the public way in, and correcting
//! only the input completes what was asked.

#[path = "answers/agents.rs"]
mod agents;
#[path = "answers/placements.rs"]
mod placements;
#[path = "answers/promises.rs"]
mod promises;
#[path = "answers/results.rs"]
mod results;

use muster_e2e::{Kubectl, manifests::Promise};

/// A Promise whose requests have a `mode`, and whose pipeline does what `script` says with it.
pub(crate) fn promise(name: &str, platform: &str, script: &str) -> String {
    let platform = format!("platform: {platform}");
    Promise { script, platform: &platform, ..of(name) }.yaml()
}

/// A request of such a Promise.
pub(crate) fn request(promise: &str, name: &str, mode: &str) -> String {
    of(promise).request(name, &format!("mode: {mode}"))
}

fn of(name: &str) -> Promise<'_> {
    Promise {
        name,
        group: "answers.example.com",
        fields: &[("mode", "{type: string, maxLength: 12}")],
        once: true,
        ..Promise::default()
    }
}

/// Applies a Promise and waits until it takes requests.
pub(crate) fn install(kubectl: &Kubectl, promise: &str, name: &str) {
    kubectl.apply(promise);
    kubectl.wait(&format!("promise/{name}"), "Available");
}
