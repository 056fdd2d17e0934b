//! The API as bytes: requests that no client library would make, and answers as they are.
#![allow(dead_code, reason = "each test program uses a part")]

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use muster_apiserver::{ApiServer, ApiService, Body, UserInfo};
use serde_json::Value;
use tower::Service as _;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// The operator of a server.
#[derive(Clone)]
pub(crate) struct Raw(ApiService);

impl Raw {
    pub(crate) fn new(api: &ApiServer) -> Raw {
        Raw(api.service(UserInfo::admin()))
    }

    /// The code and the body of the answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.response(method, path, media, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The answer to a GET that must succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (code, value) = self.send("GET", path, JSON, &Value::Null).await;
        assert_eq!(code, 200, "{path}: {value}");
        value
    }

    /// The events of a watch, as they come.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let response = self.response("GET", path, JSON, String::new()).await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), read: Vec::new() }
    }

    async fn response(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: String,
    ) -> http::Response<Body> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media);
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let Ok(response) = self.0.clone().call(request).await;
        response
    }
}

/// A watch that is being read.
pub(crate) struct Events {
    body: Body,
    read: Vec<u8>,
}

impl Events {
    /// The next event; `None`: the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.read.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}
