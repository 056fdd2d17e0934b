//! Paths that are no resources: health, version, discovery, OpenAPI, and what others mount.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY},
    request::Parts,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use crate::{
    body::{self, Body, BoxError},
    discovery, health,
    openapi::Document,
    request::Query,
    respond::{self, json_value, page_not_found},
    server::Inner,
    status::Status,
    user::UserInfo,
};

/// The Kubernetes version whose API this is. Some kubectl distributions choose a kubectl by it.
const VERSION: (&str, &str, &str) = ("1", "32", "v1.32.13");

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const JSON: &str = "application/json";

/// What never changes may be kept for a year, the most that HTTP knows.
const KEEP_HOURS: i32 = 365 * 24;

const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// A handler of all paths below a prefix, for authenticated users. Which of them may do what is
/// its own business.
pub trait Mounted: Send + Sync {
    /// The longest body that it takes, in bytes.
    fn body_bytes_max(&self) -> usize;

    /// Answers a request. The user of a pod's token carries the pod's name and uid in `extra`.
    fn serve(&self, user: UserInfo, request: Request<Bytes>)
    -> BoxFuture<'static, Response<Bytes>>;
}

pub(crate) async fn mounted<B>(
    handler: Arc<dyn Mounted>,
    user: UserInfo,
    parts: Parts,
    body: B,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let max = handler.body_bytes_max();
    let bytes = match Limited::new(body, max).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {max}");
            let code = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Status::new(code, "RequestEntityTooLarge", message));
        }
        Err(error) => {
            return Err(Status::bad_request(format!("cannot read the body: {error}")));
        }
    };
    let response = handler.serve(user, Request::from_parts(parts, bytes)).await;
    Ok(response.map(body::full))
}

/// Health and version, which anyone may ask.
pub(crate) fn open_to_all(server: &Inner, parts: &Parts) -> Option<Response<Body>> {
    let path = parts.uri.path();
    if path != "/version" && path != "/version/" {
        return health::answer(server, path, parts.uri.query().unwrap_or_default());
    }
    let (major, minor, git_version) = VERSION;
    let version = json!({
        "major": major, "minor": minor, "gitVersion": git_version,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    });
    Some(json_value(StatusCode::OK, &version))
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Discovery and OpenAPI of the kinds served now.
pub(crate) fn published(server: &Inner, path: &str, parts: &Parts) -> Response<Body> {
    let registry = server.registry();
    let published = registry.published();
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let aggregated = accept.split(',').any(is_aggregated);
    let found = |value: Option<Value>| match value {
        Some(value) => json_value(StatusCode::OK, &value),
        None => page_not_found(),
    };
    let pieces: Vec<&str> = path.trim_matches('/').split('/').collect();
    match pieces.as_slice() {
        [root @ ("api" | "apis")] if aggregated => {
            let list = published.aggregated(*root == "api");
            let mut response = tagged(parts, AGGREGATED, &list.hash, &list.body);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
            response
        }
        ["api"] => json_value(StatusCode::OK, &discovery::versions()),
        ["apis"] => json_value(StatusCode::OK, &discovery::groups(&published.kinds)),
        ["api", version] => found(discovery::resources(&published.kinds, "", version)),
        ["apis", group] => found(discovery::group(&published.kinds, group)),
        ["apis", group, version] => found(discovery::resources(&published.kinds, group, version)),
        ["openapi", "v2"] => match published.swagger(accept) {
            Some(form) => tagged(parts, form.media, &form.hash, &form.body),
            None => not_acceptable(),
        },
        ["openapi", "v3"] => {
            let index = published.index();
            tagged(parts, JSON, &index.hash, &index.body)
        }
        ["openapi", "v3", rest @ ..] => {
            let wanted = rest.join("/");
            match published.documents().iter().find(|document| document.path == wanted) {
                Some(document) => openapi(parts, document),
                None => page_not_found(),
            }
        }
        [""] => json_value(StatusCode::OK, &root(server)),
        _ => page_not_found(),
    }
}

/// Whether an offer of `Accept` is aggregated discovery. Clients offer v2 and v2beta1; v2 is what
/// is served.
fn is_aggregated(offer: &str) -> bool {
    let wanted = ["application/json", "g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
    let given: Vec<&str> = offer.split(';').map(str::trim).collect();
    wanted.iter().all(|part| given.contains(part))
}

/// One document of OpenAPI v3. Under its hash, which the index names, it never changes.
fn openapi(parts: &Parts, document: &Document) -> Response<Body> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let asked = query.get("hash").filter(|hash| !hash.is_empty());
    if asked.is_some_and(|hash| hash != document.hash) {
        let mut moved = Response::new(body::full(Bytes::new()));
        *moved.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(url) = HeaderValue::from_str(&document.url()) {
            moved.headers_mut().insert(LOCATION, url);
        }
        return moved;
    }
    let mut response = tagged(parts, JSON, &document.hash, &document.body);
    if asked.is_some() {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let expires = (Timestamp::now() + KEEP_HOURS.hours()).strftime(HTTP_DATE).to_string();
        if let Ok(expires) = HeaderValue::from_str(&expires) {
            headers.insert(EXPIRES, expires);
        }
    }
    response
}

/// A body under its hash, so that a client fetches it again only when it has changed.
fn tagged(parts: &Parts, media: &'static str, hash: &str, body: &Bytes) -> Response<Body> {
    let etag = format!("\"{hash}\"");
    let known = parts.headers.get(IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
    let mut response = match known {
        true => {
            let mut response = Response::new(body::full(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => respond::typed(StatusCode::OK, media, body.clone()),
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// The answer to who takes no form that there is; outside of resources it has no body.
fn not_acceptable() -> Response<Body> {
    let mut response = Response::new(body::full(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
    response
}

fn root(server: &Inner) -> Value {
    let registry = server.registry();
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/openapi/v2", "/openapi/v3"].map(str::to_owned).into();
    for resource in registry.all().filter(|resource| !resource.group.is_empty()) {
        paths.push(format!("/apis/{}", resource.group));
        paths.push(format!("/apis/{}/{}", resource.group, resource.version));
    }
    paths.extend(health::paths());
    paths.push("/version".to_owned());
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}
