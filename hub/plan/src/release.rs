//! A PromiseRelease: is the document that was fetched the Promise that it names, and what does its
//! status say?

use jiff::Timestamp;
use muster_api::{
    Promise, PromiseRelease, PromiseReleaseStatus,
    conditions::{self, Truth, Verdict},
    labels,
};
use serde_json::Value;

/// The condition of a release.
pub const INSTALLED: &str = "Installed";

/// Why a release is not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Kratix's reason.
    pub reason: &'static str,
    /// Cause and cure.
    pub message: String,
}

impl Fault {
    /// The document could not be had, or is no Promise.
    pub fn fetch(cause: impl std::fmt::Display) -> Self {
        let message = format!("failed to fetch promise: {cause}");
        Self { reason: "FailedToFetchPromise", message }
    }

    /// What is to be sent along could not be had.
    pub fn secret(cause: impl std::fmt::Display) -> Self {
        Self::fetch(format!("failed to fetch data from secretRef: {cause}"))
    }

    /// The Promise could not be written.
    pub fn write(cause: impl std::fmt::Display) -> Self {
        let message = format!("failed to create or update promise: {cause}");
        Self { reason: "FailedToCreateOrUpdatePromise", message }
    }
}

/// The Promise that a release installs, labelled with its name; and its version.
pub fn wanted(release: &PromiseRelease, document: &str) -> Result<(Value, String), Fault> {
    let name = release.metadata.name.as_deref().unwrap_or_default();
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(document).map_err(|error| Fault::fetch(error.to_string()))?;
    let [promise] = &documents[..] else {
        let count = documents.len();
        return Err(Fault::fetch(format!("expected single document yaml, there are {count}")));
    };
    let kind = promise["kind"].as_str().unwrap_or_default();
    if kind != "Promise" {
        return Err(Fault::fetch(format!("the document is of kind {kind:?}, not Promise")));
    }
    serde_json::from_value::<Promise>(promise.clone()).map_err(Fault::fetch)?;
    let Some(version) = promise["metadata"]["labels"][labels::PROMISE_VERSION].as_str() else {
        let label = labels::PROMISE_VERSION;
        let message = format!("version label ({label}) not found on promise: add it");
        return Err(Fault { reason: "VersionLabelNotFound", message });
    };
    let asked = &release.spec.version;
    if !asked.is_empty() && asked != version {
        let message = format!(
            "version labels do not match, found: {version}, expected: {asked}: correct \
             spec.version, or the document at spec.sourceRef.url"
        );
        return Err(Fault { reason: "VersionNotMatching", message });
    }
    let (mut promise, version) = (promise.clone(), version.to_owned());
    promise["metadata"]["labels"][labels::PROMISE_RELEASE_NAME] = name.into();
    Ok((promise, version))
}

/// Whether a release may install over a Promise of that name: only over its own, because the Promise
/// goes with the release, and its requests with the Promise.
pub fn may_install_over(release: &PromiseRelease, found: &Promise) -> Result<(), Fault> {
    let owner = label(found, labels::PROMISE_RELEASE_NAME);
    if owner == release.metadata.name.as_ref() {
        return Ok(());
    }
    let name = found.metadata.name.as_deref().unwrap_or_default();
    Err(Fault::write(match owner {
        Some(other) => {
            format!("Promise {name} is of PromiseRelease {other}: delete one of the two releases")
        }
        None => format!(
            "Promise {name} is there already and of no release: to hand it over, label it \
             {}={}, and it will go with the release; or delete it",
            labels::PROMISE_RELEASE_NAME,
            release.metadata.name.as_deref().unwrap_or_default()
        ),
    }))
}

/// Whether a release, of which these Promises are, is installed as it is asked for now. A release is
/// one version: what its address offers later is asked for by `spec.version`.
pub fn is_installed(release: &PromiseRelease, promises: &[Promise]) -> bool {
    let status = release.status.as_ref();
    let installed = status.and_then(|status| conditions::find(&status.conditions, INSTALLED));
    let version = Some(&release.spec.version);
    installed.is_some_and(|condition| {
        condition.status == "True" && condition.observed_generation == release.metadata.generation
    }) && promises.iter().any(|promise| label(promise, labels::PROMISE_VERSION) == version)
}

fn label<'a>(promise: &'a Promise, key: &str) -> Option<&'a String> {
    promise.metadata.labels.as_ref()?.get(key)
}

/// The status of a release after a try, which left these of its Promises as they were; `None`: it
/// says so already.
pub fn status(
    release: &PromiseRelease,
    outcome: Result<&[String], &Fault>,
    now: Timestamp,
) -> Option<PromiseReleaseStatus> {
    let old = release.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let (word, verdict) = match outcome {
        Ok(earlier) => {
            let mut message = "Installed successfully".to_owned();
            if !earlier.is_empty() {
                message.push_str(&format!(
                    "; an earlier document named {}: what it installed stays until it is deleted, \
                     or this release",
                    earlier.join(", ")
                ));
            }
            let verdict = Verdict::new(INSTALLED, Truth::True, "InstalledSuccessfully", &message);
            ("Installed", verdict)
        }
        Err(Fault { reason, message }) => {
            ("Error installing", Verdict::new(INSTALLED, Truth::False, *reason, message))
        }
    };
    status.status = Some(word.to_owned());
    conditions::set(&mut status.conditions, &verdict, release.metadata.generation, now);
    (status != old).then_some(status)
}

#[cfg(test)]
mod tests {
    use muster_api::PromiseReleaseSpec;

    use super::*;

    const DOCUMENT: &str = "apiVersion: platform.kratix.io/v1alpha1\nkind: Promise\n\
        metadata: {name: cache, labels: {kratix.io/promise-version: v1}}\nspec: {}\n";

    fn release(version: &str) -> PromiseRelease {
        let spec = PromiseReleaseSpec { version: version.to_owned(), ..Default::default() };
        PromiseRelease::new("cache", spec)
    }

    fn reason(version: &str, document: &str) -> &'static str {
        wanted(&release(version), document).unwrap_err().reason
    }

    #[test]
    fn the_one_promise_of_the_document_is_labelled_with_its_release() {
        for asked in ["", "v1"] {
            let (promise, version) = wanted(&release(asked), DOCUMENT).unwrap();
            assert_eq!(version, "v1");
            assert_eq!(promise["metadata"]["labels"][labels::PROMISE_RELEASE_NAME], "cache");
        }
    }

    #[test]
    fn what_is_not_the_promise_that_is_asked_for_is_refused_by_its_reason() {
        assert_eq!(reason("v2", DOCUMENT), "VersionNotMatching");
        assert_eq!(
            reason("", &DOCUMENT.replace("promise-version", "other")),
            "VersionLabelNotFound"
        );
        assert_eq!(reason("", &format!("{DOCUMENT}---\n{DOCUMENT}")), "FailedToFetchPromise");
        assert_eq!(reason("", "kind: Secret\n"), "FailedToFetchPromise");
        assert_eq!(reason("", "<html>"), "FailedToFetchPromise");
        assert_eq!(reason("", ": - ["), "FailedToFetchPromise");
    }

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let mut release = release("v1");
        let now = Timestamp::UNIX_EPOCH;
        let fault = Fault::fetch("404");
        let failed = status(&release, Err(&fault), now).unwrap();
        assert_eq!(failed.status.as_deref(), Some("Error installing"));
        release.status = Some(failed);
        assert_eq!(status(&release, Err(&fault), now), None);
        let done = status(&release, Ok(&[]), now).unwrap();
        assert_eq!(done.status.as_deref(), Some("Installed"));
    }
}
