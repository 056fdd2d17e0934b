//! The rules on PromiseReleases.

use muster_api::PromiseRelease;

use super::{Refusal, denied};

const WEBHOOK: &str = "vpromiserelease.kb.io";

/// What can be said of a release without looking at what it names: whether that can be had is told
/// on its status, where a source that is away for a moment refuses nobody's manifests.
pub fn release(new: &PromiseRelease) -> Result<(), Refusal> {
    let source = &new.spec.source_ref;
    if source.url.is_empty() {
        return Err(denied(WEBHOOK, "sourceRef.url must be set"));
    }
    if !source.url.starts_with("https://") && !source.url.starts_with("http://") {
        // Not quoted: there may be a password in it.
        return Err(denied(WEBHOOK, "sourceRef.url must begin with https:// or http://"));
    }
    if source.secret_ref.as_ref().is_some_and(|secret| secret.name.is_empty()) {
        return Err(denied(WEBHOOK, "sourceRef.secretRef.name must be set"));
    }
    Ok(())
}
