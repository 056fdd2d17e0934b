//! The paths of a kind in OpenAPI v3, with what clients look for: the kind that each operation
//! speaks, and that PATCH knows `fieldValidation` and `dryRun`.

use serde_json::{Map, Value, json};

use super::{DELETE_OPTIONS, SCHEMAS, STATUS, Schemas};
use crate::discovery::{KindInfo, Subresource};

/// A verb of the API, the HTTP method that means it, and how the action is called.
type Action = (&'static str, &'static str, &'static str);

const ON_COLLECTIONS: [Action; 3] = [
    ("list", "get", "list"),
    ("create", "post", "post"),
    ("deletecollection", "delete", "deletecollection"),
];
const ON_ITEMS: [Action; 4] = [
    ("get", "get", "get"),
    ("update", "put", "put"),
    ("patch", "patch", "patch"),
    ("delete", "delete", "delete"),
];
const ON_SUBRESOURCES: [Action; 4] = [
    ("get", "get", "get"),
    ("update", "put", "put"),
    ("patch", "patch", "patch"),
    ("create", "post", "post"),
];

/// The bodies that PATCH takes; the last for built-in kinds only, and kubectl goes by it.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Adds the paths of a kind below `root`.
pub(super) fn add(paths: &mut Map<String, Value>, root: &str, kind: &KindInfo, schemas: &Schemas) {
    let of = |name: &str| schemas.of_kind(&kind.group, &kind.version, name);
    let collection = match kind.namespaced {
        true => format!("/{root}/namespaces/{{namespace}}/{}", kind.plural),
        false => format!("/{root}/{}", kind.plural),
    };
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    let own = Spoken {
        gvk: gvk(&kind.group, &kind.version, &kind.kind),
        title: title(&kind.group, &kind.version),
        name: format!("{scope}{}", kind.kind),
        one: of(&kind.kind),
        many: of(&kind.list_kind),
        deleted: match kind.returns_deleted {
            true => of(&kind.kind),
            false => Some(format!("{SCHEMAS}{STATUS}")),
        },
        patches: if kind.custom { &PATCHES[..3] } else { &PATCHES },
    };
    let mut add = |path: String, item: Option<Value>| {
        if let Some(item) = item {
            paths.insert(path, item);
        }
    };
    if kind.namespaced {
        let all = Spoken { name: format!("{}ForAllNamespaces", kind.kind), ..own.clone() };
        add(format!("/{root}/{}", kind.plural), item(&ON_COLLECTIONS[..1], &kind.verbs, &all, &[]));
    }
    let in_path = match kind.namespaced {
        true => &["name", "namespace"][..],
        false => &["name"],
    };
    add(collection.clone(), item(&ON_COLLECTIONS, &kind.verbs, &own, &in_path[1..]));
    let one = format!("{collection}/{{name}}");
    add(one.clone(), item(&ON_ITEMS, &kind.verbs, &own, in_path));
    for sub in &kind.subresources {
        let spoken = own.of_subresource(sub, schemas);
        add(format!("{one}/{}", sub.name), item(&ON_SUBRESOURCES, &sub.verbs, &spoken, in_path));
    }
}

/// What is spoken of at a path.
#[derive(Clone)]
struct Spoken {
    gvk: Value,
    /// The operations' names, after the verb: the group and version, and the rest.
    title: String,
    name: String,
    /// References to the schemas of what is sent and answered.
    one: Option<String>,
    many: Option<String>,
    deleted: Option<String>,
    patches: &'static [&'static str],
}

impl Spoken {
    fn of_subresource(&self, sub: &Subresource, schemas: &Schemas) -> Spoken {
        Spoken {
            gvk: gvk(&sub.group, &sub.version, &sub.kind),
            name: format!("{}{}", self.name, capital(&sub.name)),
            // A log is text; everything else is an object.
            one: match sub.name.as_str() {
                "log" => None,
                _ => schemas.of_kind(&sub.group, &sub.version, &sub.kind),
            },
            ..self.clone()
        }
    }
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// `CoreV1`, `BatchV1`, `LabExampleComV1`: how operations name a group and version.
fn title(group: &str, version: &str) -> String {
    let group = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    group.split(['.', '-']).chain([version]).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `None`: nothing of it is served.
fn item(actions: &[Action], served: &[String], spoken: &Spoken, in_path: &[&str]) -> Option<Value> {
    let mut item = Map::new();
    for (verb, method, action) in actions {
        if served.iter().any(|served| served == verb) {
            item.insert((*method).to_owned(), operation(action, spoken));
        }
    }
    if item.is_empty() {
        return None;
    }
    if !in_path.is_empty() {
        let parameter = |name: &&str| {
            json!({
                "name": name, "in": "path", "required": true,
                "schema": {"type": "string", "uniqueItems": true},
            })
        };
        item.insert("parameters".to_owned(), in_path.iter().map(parameter).collect());
    }
    Some(Value::Object(item))
}

fn operation(action: &str, spoken: &Spoken) -> Value {
    let Spoken { title, name, .. } = spoken;
    let status = Some(format!("{SCHEMAS}{STATUS}"));
    let (id, answered) = match action {
        "list" => (format!("list{title}{name}"), &spoken.many),
        "post" => (format!("create{title}{name}"), &spoken.one),
        "put" => (format!("replace{title}{name}"), &spoken.one),
        "delete" => (format!("delete{title}{name}"), &spoken.deleted),
        // It is answered with the list; Kubernetes' own documents say Status.
        "deletecollection" => (format!("delete{title}Collection{name}"), &status),
        "get" => (format!("read{title}{name}"), &spoken.one),
        other => (format!("{other}{title}{name}"), &spoken.one),
    };
    let mut ok = json!({"description": "OK"});
    ok["content"] = match answered {
        Some(schema) => json!({"application/json": {"schema": {"$ref": schema}}}),
        None => json!({"text/plain": {"schema": {"type": "string"}}}),
    };
    let mut operation = json!({
        "operationId": id,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": spoken.gvk,
        "parameters": parameters(action),
        "responses": {"200": ok, "401": {"description": "Unauthorized"}},
    });
    if let Some(body) = body(action, spoken) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameters(action: &str) -> Vec<Value> {
    let names: &[&str] = match action {
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "list" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        "deletecollection" => {
            &["dryRun", "fieldSelector", "gracePeriodSeconds", "labelSelector", "propagationPolicy"]
        }
        _ => &[],
    };
    let parameter = |name: &&str| {
        let kind = match *name {
            "allowWatchBookmarks" | "force" | "sendInitialEvents" | "watch" => "boolean",
            "limit" | "gracePeriodSeconds" | "timeoutSeconds" => "integer",
            _ => "string",
        };
        json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
    };
    names.iter().map(parameter).collect()
}

fn body(action: &str, spoken: &Spoken) -> Option<Value> {
    match action {
        "post" | "put" => {
            let schema = json!({"$ref": spoken.one.as_ref()?});
            Some(json!({"required": true, "content": {"application/json": {"schema": schema}}}))
        }
        "patch" => {
            let schema =
                json!({"schema": {"description": "A patch of the kind that its media type says."}});
            let content: Map<String, Value> =
                spoken.patches.iter().map(|media| ((*media).to_owned(), schema.clone())).collect();
            Some(json!({"required": true, "content": content}))
        }
        "delete" | "deletecollection" => {
            let schema = json!({"$ref": format!("{SCHEMAS}{DELETE_OPTIONS}")});
            Some(json!({"content": {"application/json": {"schema": schema}}}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_as_clients_are_generated() {
        assert_eq!(title("", "v1"), "CoreV1");
        assert_eq!(title("rbac.authorization.k8s.io", "v1"), "RbacAuthorizationV1");
        assert_eq!(title("my-lab.example.com", "v1beta1"), "MyLabExampleComV1beta1");
    }
}
