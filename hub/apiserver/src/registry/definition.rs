//! CustomResourceDefinitions: their rules, and what they are compiled to.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{DEFINITIONS, Definition, Generation, Resource, Rules, Scale, api_version};
use crate::{
    discovery::version_rank,
    field::FieldError,
    names::{self, NameRule},
    schema::Schema,
    store::{Object, State},
    table,
};

/// Keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The resources of one definition.
pub(crate) struct Compiled {
    pub(super) resources: Vec<Arc<Resource>>,
    generation: Option<i64>,
    uid: String,
    annotations: Arc<BTreeMap<String, String>>,
}

/// Compiles a stored definition; takes `earlier` where nothing that matters has changed. `None`:
/// its names are not accepted, so it serves nothing.
pub(super) fn compile(object: &Object, earlier: Option<&Arc<Compiled>>) -> Option<Arc<Compiled>> {
    let value = object.value();
    let generation = value["metadata"]["generation"].as_i64();
    let annotations = Arc::new(annotations(&value));
    if let Some(earlier) = earlier
        && earlier.generation == generation
        && earlier.uid == object.meta.uid
        && earlier.annotations == annotations
    {
        return Some(earlier.clone());
    }
    if !condition_holds(&value, "Established") {
        return None;
    }
    let spec = &value["spec"];
    let versions = spec["versions"].as_array()?;
    let stored = versions.iter().find(|version| version["storage"] == true)?["name"].as_str()?;
    let served = versions.iter().filter(|version| version["served"] == true);
    let resources = served
        .filter_map(|version| resource((object, &annotations), spec, version, stored))
        .map(Arc::new)
        .collect();
    let uid = object.meta.uid.clone();
    Some(Arc::new(Compiled { resources, generation, uid, annotations }))
}

/// All but what kubectl keeps there: the whole definition once more.
fn annotations(definition: &Value) -> BTreeMap<String, String> {
    let all = definition["metadata"]["annotations"].as_object().into_iter().flatten();
    let short = all.filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"));
    short.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn resource(
    (object, annotations): (&Object, &Arc<BTreeMap<String, String>>),
    spec: &Value,
    version: &Value,
    stored: &str,
) -> Option<Resource> {
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(text).collect()
    };
    let group = text(&spec["group"])?;
    let kind = text(&names["kind"])?;
    let schema = &version["schema"]["openAPIV3Schema"];
    let version_name = text(&version["name"])?;
    let deprecated = (version["deprecated"] == true).then(|| {
        text(&version["deprecationWarning"]).unwrap_or_else(|| {
            let instead = successor(spec, &version_name)
                .map(|other| format!("; use {group}/{other} {kind}"))
                .unwrap_or_default();
            format!("{group}/{version_name} {kind} is deprecated{instead}")
        })
    });
    let paths = version["selectableFields"].as_array().into_iter().flatten();
    let selectable = paths
        .filter_map(|field| Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned()))
        .collect();
    Some(Resource {
        store: object.key.name.as_str().into(),
        stored_as: api_version(&group, stored),
        list_kind: text(&names["listKind"]).unwrap_or_else(|| format!("{kind}List")),
        plural: text(&names["plural"])?,
        returns_deleted: false,
        singular: text(&names["singular"]).unwrap_or_else(|| kind.to_lowercase()),
        short_names: list(&names["shortNames"]),
        categories: list(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        schema: Arc::new(Schema::from_crd(schema, "").ok()?),
        columns: table::columns_from_crd(&version["additionalPrinterColumns"]),
        has_status: version["subresources"]["status"].is_object(),
        scale: scale(&version["subresources"]["scale"]),
        extra: &[],
        selectable,
        rules: Rules::Generic,
        names: NameRule::Subdomain,
        generation: Generation::OnChange,
        deprecated,
        runs_nowhere: false,
        defined_by: Some(Definition {
            name: object.key.name.clone(),
            since: object.revision,
            published: Arc::new(schema.clone()),
            annotations: annotations.clone(),
        }),
        group,
        version: version_name,
        kind,
    })
}

/// The version to use instead of a deprecated one: the newest that is served and not deprecated.
fn successor<'s>(spec: &'s Value, deprecated: &str) -> Option<&'s str> {
    let versions = spec["versions"].as_array().into_iter().flatten();
    let good = versions.filter(|v| v["served"] == true && v["deprecated"] != true);
    let names = good.filter_map(|version| version["name"].as_str());
    let newest = names.min_by_key(|name| version_rank(name))?;
    (version_rank(newest) < version_rank(deprecated)).then_some(newest)
}

fn scale(value: &Value) -> Option<Scale> {
    let path = |field: &str| value[field].as_str().map(str::to_owned);
    Some(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        label_selector: path("labelSelectorPath"),
    })
}

/// Fills in what may be left out of a definition.
pub(crate) fn default(definition: &mut Value) {
    let spec = &mut definition["spec"];
    if let Some(kind) = spec["names"]["kind"].as_str().map(str::to_owned) {
        if spec["names"]["singular"].as_str().unwrap_or_default().is_empty() {
            spec["names"]["singular"] = kind.to_lowercase().into();
        }
        if spec["names"]["listKind"].as_str().unwrap_or_default().is_empty() {
            spec["names"]["listKind"] = format!("{kind}List").into();
        }
    }
    if !spec["conversion"].is_object() && spec.is_object() {
        spec["conversion"] = json!({"strategy": "None"});
    }
}

/// Has a definition that is to go wait for its objects.
pub(crate) fn hold(definition: &mut Value) {
    let finalizers = &mut definition["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(held) if held.iter().any(|finalizer| finalizer == CLEANUP) => {}
        Some(held) => held.push(CLEANUP.into()),
        None => *finalizers = json!([CLEANUP]),
    }
}

/// The rules of a definition beyond the schema of its kind.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let mut errors = Vec::new();
    if !names::is_dotted(&group) {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", &spec["group"], detail));
    }
    if definition["metadata"]["name"] != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &definition["metadata"]["name"], detail));
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        let supported = ["None"];
        let strategy = &spec["conversion"]["strategy"];
        errors.push(FieldError::not_supported("spec.conversion.strategy", strategy, &supported));
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "must be false in order to use defaults in the schema";
        let value = &spec["preserveUnknownFields"];
        errors.push(FieldError::invalid("spec.preserveUnknownFields", value, detail));
    }
    let scopes = ["Cluster", "Namespaced"];
    if !scopes.contains(&text(&spec["scope"]).as_str()) {
        errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &scopes));
    }
    errors.extend(check_versions(spec));
    if let Some(old) = old {
        errors.extend(check_unchanged(spec, &old["spec"]));
        errors.extend(check_stored(spec, &old["status"]));
    }
    errors
}

fn check_versions(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, version) in versions.iter().enumerate() {
        // Kubernetes speaks of the schema of an only version as its old API did.
        let path = match versions.len() {
            1 => "spec.validation.openAPIV3Schema".to_owned(),
            _ => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
            errors.push(FieldError::required(path, "schemas are required"));
        } else if let Err(found) = Schema::from_crd(schema, &path) {
            errors.extend(found);
        }
        let path = format!("spec.versions[{index}].additionalPrinterColumns");
        errors.extend(table::check_columns(&version["additionalPrinterColumns"], &path));
    }
    let mut names: Vec<&str> = versions.iter().filter_map(|v| v["name"].as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", &spec["versions"], detail));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &spec["versions"], detail));
    }
    errors
}

/// What objects may be stored as must go on being a version.
fn check_stored(spec: &Value, status: &Value) -> Vec<FieldError> {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = status["storedVersions"].as_array().into_iter().flatten().enumerate();
    let gone = stored.filter(|(_, name)| !versions.iter().any(|version| version["name"] == **name));
    let error = |(at, name): (usize, &Value)| {
        let path = format!("status.storedVersions[{at}]");
        FieldError::invalid(path, name, "must appear in spec.versions")
    };
    gone.map(error).collect()
}

fn check_unchanged(spec: &Value, old: &Value) -> Vec<FieldError> {
    let fixed = [
        ("spec.group", &spec["group"], &old["group"]),
        ("spec.scope", &spec["scope"], &old["scope"]),
        ("spec.names.kind", &spec["names"]["kind"], &old["names"]["kind"]),
        ("spec.names.plural", &spec["names"]["plural"], &old["names"]["plural"]),
    ];
    let changed = fixed.into_iter().filter(|(_, new, old)| new != old);
    changed.map(|(field, new, _)| FieldError::invalid(field, new, "field is immutable")).collect()
}

/// Judges the names of a definition against all others, and writes the verdict into its status.
pub(crate) fn establish(definition: &mut Value, state: &State, now: &str) {
    let conflicts = conflicts(definition, state);
    let names = definition["spec"]["names"].clone();
    let storage = definition["spec"]["versions"]
        .as_array()
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .map(|version| version["name"].clone())
        .unwrap_or_default();
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let status = &mut definition["status"];
    let mut stored = status["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    status["storedVersions"] = stored.into();
    match conflicts {
        None => {
            status["acceptedNames"] = names;
            set_condition(
                status,
                &Condition {
                    kind: "NamesAccepted",
                    holds: true,
                    reason: "NoConflicts",
                    message: "no conflicts found",
                },
                now,
            );
            let accepted = "the initial names have been accepted";
            set_condition(
                status,
                &Condition {
                    kind: "Established",
                    holds: true,
                    reason: "InitialNamesAccepted",
                    message: accepted,
                },
                now,
            );
        }
        Some(why) => {
            if !status["acceptedNames"].is_object() {
                status["acceptedNames"] = json!({"plural": "", "kind": ""});
            }
            set_condition(
                status,
                &Condition {
                    kind: "NamesAccepted",
                    holds: false,
                    reason: "Conflict",
                    message: &why,
                },
                now,
            );
            if !conditions_of(status).any(|condition| condition["type"] == "Established") {
                let not_yet = "not all names are accepted";
                set_condition(
                    status,
                    &Condition {
                        kind: "Established",
                        holds: false,
                        reason: "NotAccepted",
                        message: not_yet,
                    },
                    now,
                );
            }
        }
    }
}

fn conflicts(definition: &Value, state: &State) -> Option<String> {
    let spec = &definition["spec"];
    let own = &definition["metadata"]["name"];
    let all = |spec: &Value| -> Vec<String> {
        let names = &spec["names"];
        let short = names["shortNames"].as_array().into_iter().flatten();
        let named = [&names["plural"], &names["singular"]];
        named.into_iter().chain(short).filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let wanted = all(spec);
    for other in state.list(DEFINITIONS, None, None).map(|object| object.value()) {
        let same_group = other["spec"]["group"] == spec["group"];
        if other["metadata"]["name"] == *own
            || !same_group
            || !condition_holds(&other, "Established")
        {
            continue;
        }
        let taken = all(&other["spec"]);
        if let Some(name) = wanted.iter().find(|name| taken.contains(name)) {
            return Some(format!("{name:?} is already in use"));
        }
        if other["spec"]["names"]["kind"] == spec["names"]["kind"] {
            return Some(format!("{} is already in use", spec["names"]["kind"]));
        }
    }
    None
}

/// The condition of that type is `True`.
pub(crate) fn condition_holds(object: &Value, kind: &str) -> bool {
    let mut conditions = conditions_of(&object["status"]);
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn conditions_of(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

/// One condition of a status.
pub(crate) struct Condition<'a> {
    pub kind: &'a str,
    pub holds: bool,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Sets a condition in a status, keeping the time of the last transition.
pub(crate) fn set_condition(status: &mut Value, condition: &Condition, now: &str) {
    let Condition { kind, holds, reason, message } = *condition;
    let verdict = if holds { "True" } else { "False" };
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let old = conditions.iter().position(|condition| condition["type"] == kind);
    let since = old
        .map(|index| &conditions[index])
        .filter(|condition| condition["status"] == verdict)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .unwrap_or(now);
    let condition = json!({
        "type": kind, "status": verdict, "lastTransitionTime": since, "reason": reason,
        "message": message,
    });
    match old {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}
