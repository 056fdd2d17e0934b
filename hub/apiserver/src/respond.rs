//! Answers: in which form the client wants objects, and how they are put into it.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WARNING},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    body::{self, Body},
    registry::Resource,
    status::Status,
    table::{self, Column, Wanted},
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
        let wanted = match include {
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        let mut forms = accept.split(',').filter_map(|offer| form(offer, wanted));
        let known = ["None", "Object", "Metadata"];
        if let Some(include) = include.filter(|include| !known.contains(include))
            && accept.contains("as=Table")
        {
            return Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \
                 {include:?}: must be 'Metadata', 'Object', 'None', or empty"
            )));
        }
        forms.next().ok_or_else(|| {
            // Protobuf is accepted in bodies; a real server's message names it, and so does this.
            let message = "only the following media types are accepted: application/json, \
                           application/yaml, application/vnd.kubernetes.protobuf";
            Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
        })
    }
}

fn form(offer: &str, include: Include) -> Option<Form> {
    let mut parts = offer.split(';').map(str::trim);
    let media = parts.next()?;
    let parameter =
        |name: &str| parts.clone().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (shown_as, version) = (parameter("as"), parameter("v").unwrap_or("v1"));
    match (media, shown_as) {
        ("application/json" | "application/*" | "*/*", None) => Some(Form::Json),
        ("application/yaml" | "text/yaml", None) => Some(Form::Yaml),
        ("application/json", Some("Table")) if version == "v1" => Some(Form::Table(include)),
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

/// Warnings of one answer, together: clients limit the headers that they read (apiserver
/// `truncateAtTotalRunes`).
const WARNINGS_BYTES_MAX: usize = 4096;

/// Adds `Warning: 299 - "…"` headers, one for each.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut room = WARNINGS_BYTES_MAX;
    for warning in warnings {
        room = room.saturating_sub(warning.len());
        if room == 0 {
            break;
        }
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
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
    let value = || -> Value { serde_json::from_slice(&bytes).unwrap_or_default() };
    match form {
        Form::Json => json_bytes(code, bytes),
        Form::Yaml => yaml(code, &value()),
        Form::Metadata => json_bytes(code, partial(&bytes)),
        Form::Table(include) => {
            let version = value()["metadata"]["resourceVersion"].take();
            json_bytes(code, table_of(&resource.columns, &bytes, Some(version), include, true))
        }
    }
}

/// A Scale in the form asked for.
pub(crate) fn scale(form: Form, scale: &Value) -> Response<Body> {
    match form {
        Form::Json => json_value(StatusCode::OK, scale),
        Form::Yaml => yaml(StatusCode::OK, scale),
        Form::Metadata => json_bytes(StatusCode::OK, partial(scale.to_string().as_bytes())),
        Form::Table(include) => {
            let columns = table::builtin_columns("autoscaling", "Scale");
            let bytes = scale.to_string().into_bytes();
            json_bytes(StatusCode::OK, table_of(&columns, &bytes, None, include, true))
        }
    }
}

/// A list in the form asked for; each item is an object's JSON, put into its form while it is sent.
pub(crate) fn list(
    resource: &Arc<Resource>,
    form: Form,
    metadata: Map<String, Value>,
    items: Vec<Bytes>,
) -> Response<Body> {
    let (head, field) = match form {
        Form::Json | Form::Yaml => {
            let (version, kind) = (resource.api_version(), &resource.list_kind);
            let head = match resource.is_custom() {
                true => json!({"apiVersion": version, "kind": kind, "metadata": metadata}),
                false => json!({"kind": kind, "apiVersion": version, "metadata": metadata}),
            };
            (head, "items")
        }
        Form::Metadata => {
            let kind = "PartialObjectMetadataList";
            (json!({"kind": kind, "apiVersion": META, "metadata": metadata}), "items")
        }
        Form::Table(_) => (table_head(&resource.columns, metadata, true), "rows"),
    };
    let (resource, now) = (resource.clone(), Timestamp::now());
    let wanted = Wanted::by(&resource.columns);
    let items = items.into_iter().map(move |item| match form {
        Form::Json | Form::Yaml => listed(&resource, item),
        Form::Metadata => partial(&item).into(),
        Form::Table(include) => row(&resource.columns, &wanted, &item, include, now).into(),
    });
    let pieces = pieces(&head, field, items);
    if form == Form::Yaml {
        let bytes = pieces.collect::<Vec<Bytes>>().concat();
        return yaml(StatusCode::OK, &serde_json::from_slice(&bytes).unwrap_or_default());
    }
    let mut response = Response::new(body::pieces(pieces));
    let media = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// An object within a list: of a built-in kind, the list says what its items are.
fn listed(resource: &Resource, item: Bytes) -> Bytes {
    match resource.without_type(&item).filter(|_| !resource.is_custom()) {
        Some(rest) => [b"{", rest].concat().into(),
        None => item,
    }
}

/// The version of the forms that show objects of any kind.
const META: &str = "meta.k8s.io/v1";

/// The JSON of an object `head` with a further field, the list of `items`.
fn pieces<I: Iterator<Item = Bytes>>(
    head: &Value,
    field: &str,
    items: I,
) -> impl Iterator<Item = Bytes> + use<I> {
    let head = head.to_string();
    let open = format!("{},\"{field}\":[", head.strip_suffix('}').unwrap_or(&head));
    let separated = items.enumerate().flat_map(|(index, item)| {
        let comma = (index > 0).then(|| Bytes::from_static(b","));
        comma.into_iter().chain([item])
    });
    let close = Bytes::from_static(b"]}");
    std::iter::once(Bytes::from(open)).chain(separated).chain([close])
}

/// The `PartialObjectMetadata` of an object, both as JSON.
pub(crate) fn partial(object: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let outer: Option<Outer> = serde_json::from_slice(object).ok();
    let metadata = outer.map_or("{}", |outer| outer.metadata.get());
    format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{META}","metadata":{metadata}}}"#)
        .into_bytes()
}

/// The Table of one object, as JSON; a watch sends the columns with its first event only.
pub(crate) fn table_of(
    columns: &[Column],
    object: &[u8],
    version: Option<Value>,
    include: Include,
    with_columns: bool,
) -> Vec<u8> {
    let version = version.map(|version| ("resourceVersion".to_owned(), version));
    let head = table_head(columns, version.into_iter().collect(), with_columns);
    let row = row(columns, &Wanted::by(columns), object, include, Timestamp::now());
    pieces(&head, "rows", [row.into()].into_iter()).collect::<Vec<Bytes>>().concat()
}

fn table_head(columns: &[Column], metadata: Map<String, Value>, with_columns: bool) -> Value {
    let columns = with_columns.then(|| table::definitions(columns));
    json!({"kind": "Table", "apiVersion": META, "metadata": metadata, "columnDefinitions": columns})
}

fn row(
    columns: &[Column],
    wanted: &Wanted,
    object: &[u8],
    include: Include,
    now: Timestamp,
) -> Vec<u8> {
    let value = wanted.read(object);
    let cells = Value::Array(table::cells(columns, &value, now));
    let mut row = format!(r#"{{"cells":{cells}"#).into_bytes();
    match include {
        Include::Nothing => row.extend(br#","object":null"#),
        Include::Metadata => row.extend([br#","object":"#, partial(object).as_slice()].concat()),
        Include::Object => row.extend([br#","object":"#, object].concat()),
    }
    row.push(b'}');
    row
}

fn yaml(code: StatusCode, value: &Value) -> Response<Body> {
    match serde_saphyr::to_string(value) {
        Ok(text) => typed(code, "application/yaml", text),
        Err(error) => failure(&Status::internal(format!("cannot write YAML: {error}"))),
    }
}
