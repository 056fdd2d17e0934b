//! One API server as the commands use it: requests by path, answers as JSON, kinds by any name.

use anyhow::{Context as _, Result, bail};
use futures::AsyncBufRead;
use http::{Method, Request, header};
use kube::Client;
use serde_json::Value;

use super::kinds::{self, Kind};
use crate::{args::ClientArgs, client};

/// Asks for the server's own table, and takes the object where it has none.
pub(super) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const JSON: &str = "application/json";

/// A connection, and what is served there.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// The namespace where none is named.
    pub(super) namespace: String,
    kinds: Vec<Kind>,
}

impl Cluster {
    /// Connects as the command line says, and asks which kinds are served.
    pub(crate) async fn connect(args: &ClientArgs, namespace: Option<&str>) -> Result<Self> {
        let client = client::connect(args).await?;
        let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
        let mut cluster = Self::over(client, namespace);
        cluster.refresh().await.context("cannot reach the API: is the hub running?")?;
        Ok(cluster)
    }

    /// A cluster behind a client, before anything was asked.
    fn over(client: Client, namespace: String) -> Self {
        Self { client, namespace, kinds: Vec::new() }
    }

    /// Asks again which kinds are served.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        let mut found = Vec::new();
        for path in ["/api", "/apis"] {
            let document = self.send(Method::GET, path, kinds::ACCEPT, None).await?;
            found.extend(kinds::read(&document));
        }
        self.kinds = found;
        Ok(())
    }

    /// The kind that a user named, if it is served.
    pub(super) fn find(&self, name: &str) -> Option<&Kind> {
        kinds::find(&self.kinds, name)
    }

    /// The kinds of a category, such as `kratix`.
    pub(super) fn category(&self, name: &str) -> Vec<Kind> {
        self.kinds
            .iter()
            .filter(|kind| kind.categories.iter().any(|c| c == name))
            .cloned()
            .collect()
    }

    /// The kind that a user named, or an error that says what to do.
    pub(super) fn kind(&self, name: &str) -> Result<Kind> {
        match self.find(name) {
            Some(kind) => Ok(kind.clone()),
            None => bail!(
                "no kind {name:?} is served here{}: a request's kind comes with its Promise \
                 (muster get promises)",
                kinds::similar(&self.kinds, name)
            ),
        }
    }

    /// The kind of a document, by its apiVersion and kind.
    pub(super) fn kind_of(&self, object: &Value) -> Option<&Kind> {
        let of = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        self.kinds.iter().find(|k| k.kind == of("kind") && k.api_version() == of("apiVersion"))
    }

    /// The path of an object, if its kind is served.
    pub(crate) fn path_of(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<String> {
        let mut served = self.kinds.iter();
        let kind = served.find(|k| k.kind == kind && k.api_version() == api_version)?;
        Some(kind.object_path(namespace, name))
    }

    /// Reads an object or list.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, JSON, None).await
    }

    /// Reads an object; `None` where there is none.
    pub(super) async fn find_object(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what the server prints.
    pub(super) async fn get_table(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, TABLE, None).await
    }

    /// Creates, patches or deletes.
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Value> {
        self.send(method, path, JSON, body).await
    }

    /// Opens a watch or a log.
    pub(super) async fn stream(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<impl AsyncBufRead + Unpin + use<>> {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Vec::new())?;
        let reader = self.client.request_stream(request).await.map_err(told)?;
        Ok(Box::pin(reader))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Value> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::ACCEPT, accept);
        let body = match body {
            Some((media_type, body)) => {
                request = request.header(header::CONTENT_TYPE, media_type);
                body
            }
            None => Vec::new(),
        };
        self.client.request(request.body(body)?).await.map_err(told)
    }
}

/// Whether the API answered that the object is not there.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    status_of(error).is_some_and(|status| status.code == 404)
}

/// The API's own answer in an error.
pub(super) fn status_of(error: &anyhow::Error) -> Option<&kube::core::Status> {
    match error.downcast_ref::<Refused>() {
        Some(Refused(status)) => Some(status),
        None => None,
    }
}

/// The API refused; printed in its words, without a wrapping of ours.
#[derive(Debug)]
struct Refused(Box<kube::core::Status>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Refused {}

fn told(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => Refused(status).into(),
        error => error.into(),
    }
}
