//! Paths that are no resources: health, version, discovery, OpenAPI, and what others mount.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    request::Parts,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};

use crate::{
    body::{self, Body, BoxError},
    discovery,
    respond::{self, json_value, page_not_found},
    server::Inner,
    status::Status,
    user::UserInfo,
};

/// The Kubernetes version whose API this is. Some kubectl distributions choose a kubectl by it.
const VERSION: (&str, &str, &str) = ("1", "32", "v1.32.13");

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

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
pub(crate) fn open_to_all(path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" | "/livez" | "/readyz" => Some(respond::text(StatusCode::OK, "ok")),
        "/version" | "/version/" => {
            let (major, minor, git_version) = VERSION;
            Some(json_value(
                StatusCode::OK,
                &json!({
                    "major": major, "minor": minor, "gitVersion": git_version,
                    "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                    "goVersion": "", "compiler": "rustc",
                    "platform": format!("{}/{}", std::env::consts::OS, platform()),
                }),
            ))
        }
        _ => None,
    }
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
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    // Clients offer v2 and v2beta1; v2 is what is served.
    let aggregated = accept.is_some_and(|accept| accept.contains("v=v2;as=APIGroupDiscoveryList"));
    let found = |value: Option<Value>| match value {
        Some(value) => json_value(StatusCode::OK, &value),
        None => page_not_found(),
    };
    let pieces: Vec<&str> = path.trim_matches('/').split('/').collect();
    match pieces.as_slice() {
        ["api"] if aggregated => discovery_list(&discovery::aggregated(&published.kinds, true)),
        ["apis"] if aggregated => discovery_list(&discovery::aggregated(&published.kinds, false)),
        ["api"] => json_value(StatusCode::OK, &discovery::versions()),
        ["apis"] => json_value(StatusCode::OK, &discovery::groups(&published.kinds)),
        ["api", version] => found(discovery::resources(&published.kinds, "", version)),
        ["apis", group] => found(discovery::group(&published.kinds, group)),
        ["apis", group, version] => found(discovery::resources(&published.kinds, group, version)),
        ["openapi", "v3"] => json_value(StatusCode::OK, &published.index),
        ["openapi", "v3", rest @ ..] => {
            let wanted = rest.join("/");
            match published.documents.iter().find(|document| document.path == wanted) {
                Some(document) => openapi(parts, &document.hash, document.body.clone()),
                None => page_not_found(),
            }
        }
        [""] => json_value(StatusCode::OK, &root(server)),
        _ => page_not_found(),
    }
}

fn discovery_list(value: &Value) -> Response<Body> {
    let mut response = json_value(StatusCode::OK, value);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    response
}

/// A document under its hash, so that a client asks again only when it has changed.
fn openapi(parts: &Parts, hash: &str, body: impl Into<Bytes>) -> Response<Body> {
    let etag = format!("\"{hash}\"");
    let known = parts.headers.get(IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
    let mut response = match known {
        true => {
            let mut response = Response::new(body::full(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => respond::json_bytes(StatusCode::OK, body),
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn root(server: &Inner) -> Value {
    let registry = server.registry();
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3"].map(str::to_owned).into();
    for resource in registry.all().filter(|resource| !resource.group.is_empty()) {
        paths.push(format!("/apis/{}", resource.group));
        paths.push(format!("/apis/{}/{}", resource.group, resource.version));
    }
    paths.extend(["/readyz".to_owned(), "/version".to_owned()]);
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}
