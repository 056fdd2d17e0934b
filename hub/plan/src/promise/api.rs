//! The request API of a Promise: the author's CRD, checked, and rewritten into the one that is
//! installed.

use std::collections::BTreeMap;

use muster_api::labels;
use serde_json::{Map, Value, json};

/// Longest name of a request: it becomes a label value.
const NAME_LEN_MAX: usize = 63;
/// The columns that answer "done, where, healthy?" beside the author's.
const OWN_COLUMNS: [(&str, &str); 2] =
    [("DESTINATION", ".status.placements.destination"), ("HEALTH", ".status.placements.health")];

/// The request API of a Promise.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestApi {
    /// Its group.
    pub group: String,
    /// The version that is stored, which pipelines see.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Its plural.
    pub plural: String,
    /// The author's CRD.
    crd: Value,
}

/// What is wrong with `spec.api`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It is something else.
    #[error(
        "spec.api is not a CustomResourceDefinition: apiVersion must be apiextensions.k8s.io/v1 and \
         kind CustomResourceDefinition, not {api_version} {kind}"
    )]
    NotCrd {
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// Requests live in namespaces.
    #[error("promise api needs to be namespace scoped; spec.api.spec.scope cannot be: {0}")]
    Scope(String),
    /// A field that everything else needs.
    #[error("invalid CRD: spec.api.{field}: {cause}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl RequestApi {
    /// Reads `spec.api`.
    pub fn read(crd: &Value) -> Result<Self, ApiError> {
        let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/apiVersion") != "apiextensions.k8s.io/v1"
            || text("/kind") != "CustomResourceDefinition"
        {
            let shown = |key: &str| crd.get(key).map_or("nothing".to_owned(), Value::to_string);
            return Err(ApiError::NotCrd { api_version: shown("apiVersion"), kind: shown("kind") });
        }
        let wrong = |field: &str, cause: &str| {
            Err(ApiError::Field { field: field.to_owned(), cause: cause.to_owned() })
        };
        let scope = text("/spec/scope");
        if scope != "Namespaced" {
            return Err(ApiError::Scope(scope.to_owned()));
        }
        for field in ["/metadata/name", "/spec/group", "/spec/names/kind", "/spec/names/plural"] {
            if text(field).is_empty() {
                return wrong(&field[1..].replace('/', "."), "Required value");
            }
        }
        if crd.pointer("/metadata/labels").is_some_and(|labels| !labels.is_object()) {
            return wrong("metadata.labels", "Invalid value: it is not a map of text to text");
        }
        let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let stored = versions.into_iter().flatten().find(|version| version["storage"] == true);
        let Some(version) = stored.and_then(|version| version["name"].as_str()) else {
            return wrong("spec.versions", "Required value: one version must have storage: true");
        };
        Ok(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("/spec/names/kind").to_owned(),
            plural: plural.to_owned(),
            crd: crd.clone(),
        })
    }

    /// The name of its CRD.
    pub fn crd_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// `group/version` in lower case, as a Promise's status shows it.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The CRD to install: a status subresource with our schema, columns, and the Promise's label.
    pub fn installed(&self, promise: &str) -> Value {
        let mut crd = self.crd.clone();
        crd["metadata"]["labels"][labels::PROMISE_NAME] = json!(promise);
        let versions = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
        for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
            rewrite(version);
        }
        crd
    }

    /// The schemas by version, as they are installed.
    pub fn schemas(&self, promise: &str) -> BTreeMap<String, Value> {
        let crd = self.installed(promise);
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let named = versions.into_iter().flatten().filter_map(|version| {
            let name = version["name"].as_str()?.to_owned();
            Some((name, version.pointer("/schema/openAPIV3Schema")?.clone()))
        });
        named.collect()
    }
}

/// What of the author's CRD may not change once it is installed, and did: Kratix's list.
pub fn immutable_changes(new: &Value, old: &Value) -> Vec<String> {
    ["/metadata/name", "/kind", "/apiVersion", "/spec/names"]
        .into_iter()
        .filter_map(|field| {
            let (now, then) = (new.pointer(field), old.pointer(field));
            let changed = now.unwrap_or(&Value::Null) != then.unwrap_or(&Value::Null);
            let value = now.map_or("null".to_owned(), Value::to_string);
            let field = field[1..].replace('/', ".");
            changed.then(|| format!("spec.api.{field}: Invalid value: {value}: field is immutable"))
        })
        .collect()
}

fn rewrite(version: &mut Map<String, Value>) {
    version.insert("subresources".to_owned(), with_status(version.get("subresources")));
    let mut columns = match version.get("additionalPrinterColumns") {
        Some(Value::Array(columns)) if !columns.is_empty() => columns.clone(),
        Some(other) if !other.is_null() && !other.is_array() => return,
        _ => vec![
            column("message", ".status.message"),
            column("status", r#".status.conditions[?(@.type=="Reconciled")].message"#),
        ],
    };
    for (name, path) in OWN_COLUMNS {
        let taken =
            |held: &Value| held["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name));
        if !columns.iter().any(taken) {
            columns.push(column(name, path));
        }
    }
    version.insert("additionalPrinterColumns".to_owned(), Value::Array(columns));
    // A version without a schema stays one: the API refuses it.
    let Some(schema) = version.get_mut("schema").and_then(|it| it.get_mut("openAPIV3Schema"))
    else {
        return;
    };
    if !takes_fields(schema) {
        return;
    }
    let written = schema["properties"]["status"].take();
    schema["properties"]["status"] = status_schema(&written);
    let metadata = &mut schema["properties"]["metadata"];
    if metadata.is_null() {
        *metadata = json!({ "type": "object" });
    }
    metadata["properties"]["name"] = json!({ "type": "string", "maxLength": NAME_LEN_MAX });
}

/// Whether fields can be put into a schema; where not, the API refuses it.
fn takes_fields(schema: &Value) -> bool {
    let is_map = |pointer| schema.pointer(pointer).is_none_or(|it: &Value| it.is_object());
    let below = ["/properties", "/properties/metadata", "/properties/metadata/properties"];
    schema.is_object() && below.into_iter().all(is_map)
}

/// The author's other subresources (scale) stay.
fn with_status(written: Option<&Value>) -> Value {
    let mut subresources = written.filter(|v| v.is_object()).cloned().unwrap_or_else(|| json!({}));
    subresources["status"] = json!({});
    subresources
}

fn column(name: &str, path: &str) -> Value {
    json!({ "name": name, "type": "string", "jsonPath": path })
}

/// The author's fields stay beside ours, which win. What is required of the whole does not: the hub
/// and each pipeline write a part of it.
fn status_schema(written: &Value) -> Value {
    let mut schema = own_status_schema();
    if let Some(description) = written.get("description") {
        schema["description"] = description.clone();
    }
    let written = written["properties"].as_object().into_iter().flatten();
    for (name, field) in written {
        if schema["properties"].get(name).is_none() {
            schema["properties"][name] = field.clone();
        }
    }
    schema
}

fn own_status_schema() -> Value {
    let (text, number) =
        (json!({ "type": "string" }), json!({ "type": "integer", "format": "int64" }));
    let moment = json!({ "type": "string", "format": "datetime" });
    let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let list = |properties: Value| {
        let items = json!({
            "type": "object",
            "properties": properties,
            "x-kubernetes-preserve-unknown-fields": true,
        });
        json!({ "type": "array", "items": items })
    };
    let pipelines = list(json!({
        "name": text, "phase": text, "message": text, "nextRetryAt": text,
        "attempts": number, "lastTransitionTime": moment,
    }));
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "message": text,
            "observedGeneration": number,
            "workflows": number,
            "workflowsSucceeded": number,
            "workflowsFailed": number,
            "conditions": list(json!({
                "type": text, "status": text, "reason": text, "message": text,
                "lastTransitionTime": moment,
            })),
            "kratix": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": { "workflows": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "lastSuccessfulConfigureWorkflowTime": text,
                        "pipelines": pipelines,
                        "suspendedGeneration": number,
                    },
                } },
            },
            "placements": free,
            "healthStatus": free,
            "outputs": free,
        },
    })
}
