//! Answers: in which form the client wants objects, and how they are put into it.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WARNING},
};
use serde_json::{Map, Value, json};

use crate::{
    body::{self, Body},
    registry::Resource,
    status::Status,
    table,
};

/// In which form objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
    /// Rows for people: `meta.k8s.io/v1` Table.
    Table(Include),
    /// Metadata alone: `PartialObjectMetadata` and its list.
    Metadata,
}

/// What a row of a table carries of its object (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Form {
    /// The first acceptable form of an `Accept` header; protobuf answers are not offered.
    pub(crate) fn negotiate(headers: &HeaderMap, include: Option<&str>) -> Result<Form, Status> {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        let include = match include {
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        let mut forms = accept.split(',').filter_map(|offer| form(offer, include));
        forms.next().ok_or_else(|| {
            let message = "only the following media types are accepted: application/json, \
                           application/yaml";
            Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
        })
    }
}

fn form(offer: &str, include: Include) -> Option<Form> {
    let mut parts = offer.split(';').map(str::trim);
    let media = parts.next()?;
    let shown_as = parts.find_map(|part| part.strip_prefix("as="));
    match (media, shown_as) {
        ("application/json" | "application/*" | "*/*", None) => Some(Form::Json),
        ("application/yaml" | "text/yaml", None) => Some(Form::Yaml),
        ("application/json", Some("Table")) if !offer.contains("v1beta1") => {
            Some(Form::Table(include))
        }
        ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
            Some(Form::Metadata)
        }
        _ => None,
    }
}

/// An answer of JSON bytes that are ready.
pub(crate) fn json_bytes(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    typed(code, "application/json", bytes)
}

/// An answer of a JSON value.
pub(crate) fn json_value(code: StatusCode, value: &Value) -> Response<Body> {
    json_bytes(code, value.to_string())
}

/// An answer of text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", text)
}

/// The answer to what is not there, outside of any resource.
pub(crate) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The answer to a refused request.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let mut response = json_value(status.code, &status.to_json());
    if let Some(seconds) = status.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning: 299 - "…"` headers, one for each.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// An answer of a media type.
pub(crate) fn typed(
    code: StatusCode,
    media: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// One object in the form asked for; `bytes` is its JSON.
pub(crate) fn object(
    resource: &Resource,
    form: Form,
    code: StatusCode,
    bytes: Bytes,
) -> Response<Body> {
    if form == Form::Json {
        return json_bytes(code, bytes);
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match form {
        Form::Json => json_bytes(code, bytes),
        Form::Yaml => yaml(code, &value),
        Form::Metadata => json_value(code, &partial(&value)),
        Form::Table(include) => {
            let mut metadata = Map::new();
            let version = &value["metadata"]["resourceVersion"];
            metadata.insert("resourceVersion".to_owned(), version.clone());
            json_value(code, &table_of(resource, &[&value], metadata, include, true))
        }
    }
}

/// A Scale in the form asked for.
pub(crate) fn scale(form: Form, scale: &Value) -> Response<Body> {
    match form {
        Form::Json => json_value(StatusCode::OK, scale),
        Form::Yaml => yaml(StatusCode::OK, scale),
        Form::Metadata => json_value(StatusCode::OK, &partial(scale)),
        Form::Table(include) => {
            let columns = table::builtin_columns("autoscaling", "Scale");
            let table = table_with(&columns, &[scale], Map::new(), include, true);
            json_value(StatusCode::OK, &table)
        }
    }
}

/// A list in the form asked for; each item is an object's JSON.
pub(crate) fn list(
    resource: &Resource,
    form: Form,
    metadata: Map<String, Value>,
    items: &[Bytes],
) -> Response<Body> {
    let parse = |bytes: &Bytes| serde_json::from_slice(bytes).unwrap_or_default();
    match form {
        Form::Json => json_bytes(StatusCode::OK, list_bytes(resource, &metadata, items)),
        Form::Yaml => {
            let bytes = list_bytes(resource, &metadata, items);
            yaml(StatusCode::OK, &serde_json::from_slice(&bytes).unwrap_or_default())
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|item| partial(&parse(item))).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            });
            json_value(StatusCode::OK, &list)
        }
        Form::Table(include) => {
            let items: Vec<Value> = items.iter().map(parse).collect();
            let items: Vec<&Value> = items.iter().collect();
            json_value(StatusCode::OK, &table_of(resource, &items, metadata, include, true))
        }
    }
}

fn list_bytes(resource: &Resource, metadata: &Map<String, Value>, items: &[Bytes]) -> Vec<u8> {
    let length: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut bytes = Vec::with_capacity(length + 256);
    let head = json!({
        "apiVersion": resource.api_version(), "kind": resource.list_kind, "metadata": metadata,
    });
    bytes.extend_from_slice(head.to_string().as_bytes());
    bytes.pop();
    bytes.extend_from_slice(br#","items":["#);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(item);
    }
    bytes.extend_from_slice(b"]}");
    bytes
}

/// The `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A Table; a watch sends the columns with its first event only.
pub(crate) fn table_of(
    resource: &Resource,
    objects: &[&Value],
    metadata: Map<String, Value>,
    include: Include,
    with_columns: bool,
) -> Value {
    table_with(&resource.columns, objects, metadata, include, with_columns)
}

fn table_with(
    columns: &[table::Column],
    objects: &[&Value],
    metadata: Map<String, Value>,
    include: Include,
    with_columns: bool,
) -> Value {
    let rendered = table::render(columns, objects, jiff::Timestamp::now());
    let row = |(cells, &object): (Vec<Value>, &&Value)| {
        let mut row = json!({"cells": cells});
        match include {
            Include::Nothing => {}
            Include::Metadata => row["object"] = partial(object),
            Include::Object => row["object"] = object.clone(),
        }
        row
    };
    let rows: Vec<Value> = rendered.rows.into_iter().zip(objects).map(row).collect();
    let columns = if with_columns { rendered.columns } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn yaml(code: StatusCode, value: &Value) -> Response<Body> {
    match serde_saphyr::to_string(value) {
        Ok(text) => typed(code, "application/yaml", text),
        Err(error) => failure(&Status::internal(format!("cannot write YAML: {error}"))),
    }
}
