//! The rules on Destinations and state stores.

use muster_api::{
    BucketStateStore, Destination, GitStateStore, bucket_state_store::BucketAuthMethod,
    destination::FilepathMode, state_store::SecretRef,
};
use muster_core::directory;
use serde_json::Value;

use super::{InTheWay, Place, Refusal, denied};
use crate::store;

/// The one file of mode aggregatedYAML, unless the Destination names another.
const AGGREGATED_FILE: &str = "aggregated.yaml";
const DESTINATION_WEBHOOK: &str = "vdestination.kb.io";
const BUCKET_WEBHOOK: &str = "vbucketstatestore-v1alpha1.kb.io";
const GIT_WEBHOOK: &str = "vgitstatestore-v1alpha1.kb.io";

/// Whether a Destination may be created or changed. `agent` says whether there is one of its name,
/// `store` says whether the state store that it names exists. Whether its place is free is another
/// question: [`taken`]. Returns warnings.
pub fn destination(new: &Destination, agent: bool, store: bool) -> Result<Vec<String>, Refusal> {
    let refuse = |cause: &str| Err(denied(DESTINATION_WEBHOOK, cause));
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let Some(reference) = &new.spec.state_store_ref else {
        if agent {
            return Ok(Vec::new());
        }
        return refuse(&format!(
            "stateStoreRef field is required: there is no agent {name:?} that pulls (muster agents \
             token create {name})"
        ));
    };
    if agent {
        return refuse(&format!(
            "spec.stateStoreRef: agent {name:?} pulls for this destination: give the one that a state \
             store feeds another name"
        ));
    }
    let path = new.spec.path.as_deref().unwrap_or_default();
    if path.is_empty() {
        return refuse("path field is required");
    }
    if let Err(cause) = directory::parse(path) {
        return refuse(&format!(
            "spec.path {path:?}: {cause}: give a directory below the store's top, such as \
             clusters/dev"
        ));
    }
    let filepath = &new.spec.filepath;
    if let Some(filename) = &filepath.filename {
        if filepath.mode != FilepathMode::AggregatedYaml {
            return refuse(
                "spec.filepath.filename: only filepath.mode aggregatedYAML has one: leave it out",
            );
        }
        if !directory::parse(filename).is_ok_and(|file| !file.is_empty()) {
            return refuse(&format!(
                "spec.filepath.filename {filename:?}: it does not name a file"
            ));
        }
    }
    let missing = format!(
        "Warning: referenced {} {:?} does not exist",
        reference.kind.as_str(),
        reference.name
    );
    Ok(if store { Vec::new() } else { vec![missing] })
}

/// Names the one file of a Destination whose documents all go into one; Kratix's webhook does so.
pub fn complete_destination(object: &mut Value) {
    let Some(filepath) = object.pointer_mut("/spec/filepath") else { return };
    let unnamed = filepath["filename"].as_str().unwrap_or_default().is_empty();
    if filepath["mode"] == "aggregatedYAML" && unnamed {
        filepath["filename"] = AGGREGATED_FILE.into();
    }
}

/// Whether a GitStateStore may be created or changed.
pub fn git_store(new: &GitStateStore) -> Result<(), Refusal> {
    let refuse = |cause: &str| Err(denied(GIT_WEBHOOK, cause));
    if new.spec.url.is_empty() {
        return refuse("spec.url: Required value: the address of the repository");
    }
    if new.spec.branch.is_empty()
        || new.spec.branch.contains([' ', ':', '~', '^', '?', '*', '[', '\\'])
    {
        return refuse("spec.branch: Invalid value: the name of a branch");
    }
    if new.spec.url.starts_with("https://")
        && new.spec.url[8..].split('/').next().is_some_and(|h| h.contains('@'))
    {
        return refuse(
            "spec.url: Invalid value: it holds a user or password, which anybody may read here: put them into the Secret",
        );
    }
    store_path(new.spec.path.as_deref()).or_else(|cause| refuse(&cause))
}

/// Whether a BucketStateStore may be created or changed.
pub fn bucket_store(new: &BucketStateStore) -> Result<(), Refusal> {
    let refuse = |cause: &str| Err(denied(BUCKET_WEBHOOK, cause));
    let named = |secret: &SecretRef| !secret.name.is_empty() && !secret.namespace.is_empty();
    let needs = new.spec.auth_method == BucketAuthMethod::AccessKey;
    if needs && !new.spec.secret_ref.as_ref().is_some_and(named) {
        return refuse(
            "spec.secretRef.name and spec.secretRef.namespace are required for authMethod accessKey",
        );
    }
    if new.spec.bucket_name.is_empty() || new.spec.endpoint.is_empty() {
        return refuse("spec.bucketName and spec.endpoint: Required value");
    }
    store_path(new.spec.path.as_deref()).or_else(|cause| refuse(&cause))
}

fn store_path(path: Option<&str>) -> Result<(), String> {
    let parsed = directory::parse(path.unwrap_or_default());
    parsed.map(drop).map_err(|cause| format!("spec.path {:?}: {cause}", path.unwrap_or_default()))
}

/// The refusal of a Destination whose place another one has, holds or is inside of. Two stores of one
/// repository are told apart by nobody here; the Destination's condition says it.
pub fn taken(new: &Destination, place: &Place, by: InTheWay) -> Refusal {
    if by.directory == place.directory {
        let path = new.spec.path.as_deref().unwrap_or_default();
        let store = &place.store;
        let cause = format!("destination path '{path}' already exists for state store '{store}'");
        return denied(DESTINATION_WEBHOOK, &cause);
    }
    let overlap = store::Overlap { with: by.destination, path: by.directory };
    denied(DESTINATION_WEBHOOK, &overlap.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::{DestinationSpec, GitStateStoreSpec, destination::StateStoreRef};

    use crate::admit::Places;

    fn stored(name: &str, path: &str) -> Destination {
        let reference = StateStoreRef { name: "hub".into(), ..Default::default() };
        let spec = DestinationSpec {
            path: Some(path.into()),
            state_store_ref: Some(reference),
            ..Default::default()
        };
        Destination::new(name, spec)
    }

    fn refusal(new: &Destination) -> String {
        destination(new, false, true).unwrap_err().message
    }

    /// What is said of a new one beside `dev` at `clusters/dev`.
    fn beside(new: &Destination) -> Option<String> {
        let mut places = Places::default();
        places.put(&Place::of(&stored("dev", "clusters/dev")).unwrap(), "dev");
        let place = Place::of(new).unwrap();
        let by = places.in_the_way(&place, new.metadata.name.as_deref().unwrap())?;
        Some(taken(new, &place, by).message)
    }

    #[test]
    fn a_destination_has_an_agent_or_a_store() {
        let mut bare = Destination::new("vm-1", DestinationSpec::default());
        assert!(destination(&bare, true, false).is_ok());
        assert!(refusal(&bare).contains("stateStoreRef field is required"));
        bare.spec = stored("vm-1", "vm-1").spec;
        assert!(destination(&bare, true, true).unwrap_err().message.contains("agent"));
        let warnings = destination(&bare, false, false).unwrap();
        assert_eq!(warnings, ["Warning: referenced GitStateStore \"hub\" does not exist"]);
        assert!(refusal(&stored("new", "")).contains("path field is required"));
        assert!(refusal(&stored("new", "../x")).contains("below the store's top"));
    }

    #[test]
    fn destinations_are_apart() {
        for (path, words) in [
            (
                "clusters/dev",
                "destination path 'clusters/dev' already exists for state store 'hub'",
            ),
            ("clusters/dev/", "already exists for state store 'hub'"),
            ("clusters", "\"clusters/dev\", and one must not hold the other"),
            ("clusters/dev/sub", "one must not hold the other"),
            (".", "one must not hold the other"),
        ] {
            let message = beside(&stored("new", path)).unwrap();
            assert!(message.contains(words), "{path}: {message}");
            assert!(
                message.starts_with("admission webhook \"vdestination.kb.io\" denied"),
                "{message}"
            );
        }
        assert_eq!(beside(&stored("new", "clusters/dev2")), None);
        assert_eq!(beside(&stored("dev", "clusters/dev")), None, "itself");
    }

    #[test]
    fn a_filename_needs_the_mode_that_uses_it() {
        let mut new = stored("dev", "dev");
        new.spec.filepath.filename = Some("all.yaml".into());
        assert!(refusal(&new).contains("aggregatedYAML"));
        new.spec.filepath.mode = FilepathMode::AggregatedYaml;
        assert!(destination(&new, false, true).is_ok());
    }

    #[test]
    fn stores_say_where_they_are_and_hold_no_password() {
        let git = |url: &str| {
            let spec =
                GitStateStoreSpec { url: url.into(), branch: "main".into(), ..Default::default() };
            git_store(&GitStateStore::new("hub", spec))
        };
        assert!(git("https://git.example/x.git").is_ok());
        assert!(git("").unwrap_err().message.contains("spec.url"));
        let leaky = git("https://me:hunter2@git.example/x.git").unwrap_err().message;
        assert!(leaky.contains("Secret") && !leaky.contains("hunter2"), "{leaky}");
        let mut bucket = BucketStateStore::new("pail", Default::default());
        bucket.spec.bucket_name = "b".into();
        bucket.spec.endpoint = "s3.example".into();
        assert!(bucket_store(&bucket).unwrap_err().message.contains("spec.secretRef.name"));
        bucket.spec.auth_method = BucketAuthMethod::Iam;
        assert!(bucket_store(&bucket).is_ok());
    }
}
