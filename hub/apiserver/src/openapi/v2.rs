//! OpenAPI v2: all documents as one, in the words of the older version, for clients that ask for
//! it (kubectl does so for kinds that are not there).
//!
//! Version 2 has no `nullable`, no alternatives and no values of several types: what cannot be
//! said is left out, so that clients take more for valid than the server does, never less.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{API_VERSION, Document, SCHEMAS, hash, packed};

const DEFINITIONS: &str = "#/definitions/";

/// The media types of the packed form: today's, and one that older clients ask for.
const PACKED: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// A document of version 2 in one form.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) media: &'static str,
    pub(crate) hash: String,
    pub(crate) body: Bytes,
}

impl Form {
    fn new(media: &'static str, body: Vec<u8>) -> Form {
        Form { media, hash: hash(&body), body: body.into() }
    }
}

/// The forms of one set of kinds, each made when it is first asked for.
#[derive(Default)]
pub(crate) struct Forms {
    json: OnceLock<Form>,
    packed: OnceLock<Form>,
}

impl Forms {
    /// The first form that `accept` names; `None`: there is none.
    pub(crate) fn negotiate(&self, accept: &str, documents: &[Document]) -> Option<&Form> {
        accept.split(',').find_map(|offer| {
            let media = offer.split(';').next()?.trim();
            if PACKED.contains(&media) {
                let packed = || Form::new(PACKED[0], packed::document(&document(documents)));
                return Some(self.packed.get_or_init(packed));
            }
            let json = || Form::new("application/json", document(documents).to_string().into());
            matches!(media, "application/json" | "application/*" | "*/*")
                .then(|| self.json.get_or_init(json))
        })
    }
}

/// All documents as one.
fn document(documents: &[Document]) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for document in documents {
        let Ok(document) = serde_json::from_slice::<Value>(&document.body) else { continue };
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
            if !definitions.contains_key(name) {
                definitions.insert(name.clone(), simplified(schema));
            }
        }
    }
    paths.sort_keys();
    definitions.sort_keys();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey", "name": "authorization", "in": "header",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// A schema in the words of version 2.
fn simplified(schema: &Value) -> Value {
    let Value::Object(given) = schema else { return schema.clone() };
    let mut kept = Map::new();
    for (key, value) in given {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(target)) => Value::String(target.replace(SCHEMAS, DEFINITIONS)),
            ("allOf", value) => match value.pointer("/0/$ref").and_then(Value::as_str) {
                // Version 3 cannot say more beside a reference, version 2 can.
                Some(target) => {
                    kept.insert("$ref".to_owned(), target.replace(SCHEMAS, DEFINITIONS).into());
                    continue;
                }
                None => continue,
            },
            ("oneOf" | "anyOf" | "not" | "default" | "nullable", _) => continue,
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), simplified(schema)))
                .collect::<Map<_, _>>()
                .into(),
            ("items" | "additionalProperties", schema) => simplified(schema),
            (_, value) => value.clone(),
        };
        kept.insert(key.clone(), value);
    }
    if !given.contains_key("type") && is_either_scalar(given) {
        kept.insert("type".to_owned(), "string".into());
    }
    leave_open(&mut kept, given);
    kept.into()
}

/// A quantity, or a number or name, of the built-in kinds: a string, for version 2.
fn is_either_scalar(schema: &Map<String, Value>) -> bool {
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    let plain = |one: &Value| one.as_object().is_some_and(|one| one.keys().eq(["type"]));
    alternatives.is_some_and(|all| all.iter().all(plain))
}

/// Takes away what kubectl would hold against values that are valid: the type of what may be null
/// or anything, fields that are not all, and that what may be null must be there.
fn leave_open(kept: &mut Map<String, Value>, given: &Map<String, Value>) {
    let is = |key: &str| given.get(key) == Some(&Value::Bool(true));
    let (nullable, unknown) = (is("nullable"), is("x-kubernetes-preserve-unknown-fields"));
    if nullable || unknown {
        kept.remove("items");
        kept.remove("properties");
    }
    let typed = kept.get("type").and_then(Value::as_str);
    let untyped = nullable
        || is("x-kubernetes-int-or-string")
        || (unknown && typed == Some("object"))
        || (typed == Some("array") && !kept.contains_key("items"));
    if untyped {
        kept.remove("type");
    }
    let may_be_null = |name: &Value| {
        let property = name.as_str().and_then(|name| given.get("properties")?.get(name));
        property.and_then(|schema| schema.get("nullable")) == Some(&Value::Bool(true))
    };
    if let Some(Value::Array(required)) = kept.get_mut("required") {
        required.retain(|name| !may_be_null(name));
        if required.is_empty() {
            kept.remove("required");
        }
    }
}

fn path_item(item: &Value) -> Value {
    let members = item.as_object().into_iter().flatten();
    let member = |(key, value): (&String, &Value)| {
        let value = match key.as_str() {
            "parameters" => parameters(value).into(),
            _ => operation(value),
        };
        (key.clone(), value)
    };
    members.map(member).collect::<Map<_, _>>().into()
}

fn operation(operation: &Value) -> Value {
    let mut all = parameters(&operation["parameters"]);
    let body = operation["requestBody"]["content"].as_object();
    if let Some((_, content)) = body.and_then(|content| content.iter().next()) {
        let required = operation["requestBody"]["required"] == true;
        let mut parameter = json!({"name": "body", "in": "body"});
        parameter["schema"] = simplified(&content["schema"]);
        if required {
            parameter["required"] = true.into();
        }
        all.push(parameter);
    }
    let mut answer = json!({"description": "OK"});
    let content = operation["responses"]["200"]["content"].as_object();
    let content = content.and_then(|content| content.iter().next());
    if let Some((_, content)) = content {
        answer["schema"] = simplified(&content["schema"]);
    }
    let consumes: Vec<&String> = body.into_iter().flat_map(Map::keys).collect();
    json!({
        "operationId": operation["operationId"],
        "x-kubernetes-action": operation["x-kubernetes-action"],
        "x-kubernetes-group-version-kind": operation["x-kubernetes-group-version-kind"],
        "consumes": consumes,
        "produces": [content.map_or("application/json", |(media, _)| media)],
        "parameters": all,
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
    })
}

/// Parameters say their type beside their name, not in a schema.
fn parameters(parameters: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let members = parameter.as_object().into_iter().flatten();
        let mut flat: Map<String, Value> = members
            .filter(|(key, _)| *key != "schema")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        flat.extend(parameter["schema"].as_object().cloned().unwrap_or_default());
        Value::Object(flat)
    };
    parameters.as_array().into_iter().flatten().map(flat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_version_2_cannot_say_is_left_open() {
        let given = json!({
            "type": "object",
            "required": ["size", "maybe"],
            "properties": {
                // Fields may be named as keywords are.
                "default": {"type": "integer", "default": 3},
                "size": {"type": "integer", "minimum": 1},
                "maybe": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
                "list": {"type": "array", "x-kubernetes-preserve-unknown-fields": true},
                "either": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
                "meta": {"allOf": [{"$ref": "#/components/schemas/a.Meta"}], "description": "m"},
                "amount": {"oneOf": [{"type": "string"}, {"type": "number"}]},
            },
        });
        let expected = json!({
            "type": "object",
            "required": ["size"],
            "properties": {
                "default": {"type": "integer"},
                "size": {"type": "integer", "minimum": 1},
                "maybe": {},
                "port": {"x-kubernetes-int-or-string": true},
                "free": {"x-kubernetes-preserve-unknown-fields": true},
                "list": {"x-kubernetes-preserve-unknown-fields": true},
                "either": {"type": "object"},
                "meta": {"$ref": "#/definitions/a.Meta", "description": "m"},
                "amount": {"type": "string"},
            },
        });
        assert_eq!(simplified(&given), expected);
    }
}
