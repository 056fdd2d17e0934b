//! One pipeline, read so that no word of its author is passed over: a field that nobody knows is
//! refused by its whole path, however deep it stands.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_api::{KRATIX_GROUP, Pipeline, VERSION, pipeline::PipelineContainer};
use serde_json::Value;

use super::{Action, Scope};
use crate::unknown;

/// Where a pipeline stands in its Promise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) action: Action,
    pub(super) index: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, action, index } = self;
        write!(f, "spec.workflows.{}.{}[{index}]", scope.as_str(), action.as_str())
    }
}

/// Reads a pipeline, or says what is wrong with it and where.
pub(super) fn pipeline(value: &Value, place: &Place) -> Result<Pipeline, String> {
    let (scope, action) = (place.scope.as_str(), place.action.as_str());
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    let failed = |cause: String| Err(format!("failed parsing {scope}.{action} pipeline: {cause}"));
    let (kind, api_version) = (text("/kind"), text("/apiVersion"));
    if kind != "Pipeline" || api_version != format!("{KRATIX_GROUP}/{VERSION}") {
        return failed(format!(
            "unsupported pipeline {name:?} with APIVersion \"{kind}/{api_version}\": {place} must \
             have kind Pipeline and apiVersion {KRATIX_GROUP}/{VERSION}"
        ));
    }
    let unreadable = |at: &str, error: serde_json::Error| {
        failed(format!("failed unmarshalling pipeline {name}: {place}{at}: {error}"))
    };
    // One by one first, because the whole would not say which.
    let containers = value.pointer("/spec/containers").and_then(Value::as_array);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        if let Err(error) = serde_json::from_value::<PipelineContainer>(container.clone()) {
            return unreadable(&format!(".spec.containers[{index}]"), error);
        }
    }
    let read: Pipeline = match serde_json::from_value(value.clone()) {
        Ok(read) => read,
        Err(error) => return unreadable("", error),
    };
    let metadata: ObjectMeta = match serde_json::from_value(value["metadata"].clone()) {
        Ok(metadata) => metadata,
        Err(error) => return unreadable(".metadata", error),
    };
    let mut understood = serde_json::to_value(&read).unwrap_or_default();
    understood["metadata"] = serde_json::to_value(&metadata).unwrap_or_default();
    match unknown::field(value, &understood) {
        None => Ok(read),
        Some(path) => {
            let field = path.rsplit('.').next().unwrap_or_default();
            failed(format!(
                "failed unmarshalling pipeline {name}: json: unknown field {field:?}: there is no \
                 {place}{path}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written() -> Value {
        json!({
            "apiVersion": "platform.kratix.io/v1alpha1",
            "kind": "Pipeline",
            "metadata": { "name": "run", "creationTimestamp": null, "labels": { "a": "b" } },
            "spec": {
                "containers": [{
                    "name": "one", "image": "box", "resources": { "limits": { "cpu": 1 } },
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
                "volumes": [{ "name": "data", "emptyDir": {} }],
                "rbac": { "permissions": [{
                    "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"],
                }] },
            },
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut value = written();
        change(&mut value);
        let place = Place { scope: Scope::Resource, action: Action::Configure, index: 1 };
        pipeline(&value, &place).unwrap_err()
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_by_its_path() {
        let place = Place { scope: Scope::Resource, action: Action::Configure, index: 1 };
        assert!(pipeline(&written(), &place).is_ok(), "{:?}", pipeline(&written(), &place));
        let at = |pointer: &str| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            refused(|value| value.pointer_mut(parent).unwrap()[key] = json!("x"))
        };
        for (pointer, path) in [
            ("/colour", "[1].colour"),
            ("/metadata/colour", "[1].metadata.colour"),
            ("/spec/affinity", "[1].spec.affinity"),
            ("/spec/containers/0/imagge", "[1].spec.containers[0].imagge"),
            (
                "/spec/containers/0/volumeMounts/0/mountpath",
                "[1].spec.containers[0].volumeMounts[0].mountpath",
            ),
            ("/spec/volumes/0/emtpyDir", "[1].spec.volumes[0].emtpyDir"),
            ("/spec/rbac/permissions/0/verb", "[1].spec.rbac.permissions[0].verb"),
        ] {
            let told = at(pointer);
            let field = pointer.rsplit('/').next().unwrap();
            assert!(told.contains(&format!("json: unknown field {field:?}")), "{told}");
            assert!(told.ends_with(&format!("spec.workflows.resource.configure{path}")), "{told}");
        }
    }

    #[test]
    fn another_kind_or_version_is_told_in_the_words_of_kratix() {
        let told = refused(|value| value["kind"] = json!("Pipelines"));
        let words = "failed parsing resource.configure pipeline: unsupported pipeline \"run\" with \
                     APIVersion \"Pipelines/platform.kratix.io/v1alpha1\"";
        assert!(told.starts_with(words), "{told}");
        let told = refused(|value| value["spec"]["containers"][0]["env"] = json!("x"));
        assert!(told.contains("configure[1].spec.containers[0]: invalid type"), "{told}");
    }
}
