//! Whole requests through the whole server, as its operator: `METHOD PATH`, then headers, an empty
//! line and the body; further requests after a zero byte.

use std::cell::RefCell;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::Service as _;

use crate::{ApiServer, Config, UserInfo};

/// A server is replaced after so many inputs, so that what they left behind does not grow.
const INPUTS_MAX: usize = 10_000;

/// Requests of one input.
const REQUESTS_MAX: usize = 8;

/// Sends the requests one after the other; the server never fails by itself.
pub(super) fn request(input: &[u8]) {
    thread_local! {
        static LAB: RefCell<Option<Lab>> = const { RefCell::new(None) };
    }
    LAB.with_borrow_mut(|lab| {
        if lab.as_ref().is_none_or(|lab| lab.inputs >= INPUTS_MAX) {
            *lab = None;
        }
        let lab = lab.get_or_insert_with(Lab::open);
        lab.inputs += 1;
        for text in input.split(|&byte| byte == 0).take(REQUESTS_MAX) {
            lab.send(text);
        }
    });
}

/// A server with a custom kind and some objects.
struct Lab {
    runtime: Runtime,
    api: ApiServer,
    _dir: tempfile::TempDir,
    inputs: usize,
}

impl Lab {
    fn open() -> Lab {
        // Memory where there is some: what is tried here is not the disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a directory for the server");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let opened = runtime.block_on(ApiServer::open(Config::new(dir.path())));
        let lab = Lab { runtime, api: opened.expect("a server"), _dir: dir, inputs: 0 };
        let definition = json!({
            "metadata": {"name": "widgets.lab.example.com"},
            "spec": {
                "group": "lab.example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n",
                    }},
                    "selectableFields": [{"jsonPath": ".spec.s"}],
                    "schema": {"openAPIV3Schema": super::schemas::widget()},
                }],
            },
        });
        lab.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
        for (path, version, kind) in [
            ("/api/v1/namespaces", "v1", "Namespace"),
            ("/api/v1/namespaces/default/configmaps", "v1", "ConfigMap"),
            ("/api/v1/namespaces/default/secrets", "v1", "Secret"),
            ("/apis/lab.example.com/v1/namespaces/default/widgets", "lab.example.com/v1", "Widget"),
        ] {
            let metadata = json!({"name": "a", "labels": {"a": "b"}});
            lab.make(path, &json!({"apiVersion": version, "kind": kind, "metadata": metadata}));
        }
        lab
    }

    fn make(&self, path: &str, object: &Value) {
        let body = format!("POST {path}\ncontent-type: application/json\n\n{object}");
        let code = self.send(body.as_bytes());
        assert_eq!(code, Some(201), "{path}");
    }

    /// The code of the answer, if it was a request at all.
    fn send(&self, text: &[u8]) -> Option<u16> {
        let request = parse(text)?;
        let mut service = self.api.service(UserInfo::admin());
        self.runtime.block_on(async {
            let Ok(response) = service.call(request).await;
            let code = response.status().as_u16();
            let is_json = response
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            // A watch or a log has no end; what it has at once is enough.
            let whole = response.into_body().collect().now_or_never();
            assert!(code != 500, "the server failed: {whole:?}");
            if let Some(Ok(body)) = whole.filter(|_| is_json && code != 204) {
                let body = body.to_bytes();
                let read = serde_json::from_slice::<Value>(&body);
                assert!(body.is_empty() || read.is_ok(), "no JSON: {body:?}");
            }
            Some(code)
        })
    }
}

fn parse(text: &[u8]) -> Option<Request<Full<Bytes>>> {
    let end = text.windows(2).position(|pair| pair == b"\n\n").unwrap_or(text.len());
    let head = std::str::from_utf8(&text[..end]).ok()?;
    let body = text.get(end + 2..).unwrap_or_default();
    let mut lines = head.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = uri.parse::<Uri>().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(request)
}
