//! What the tests of the API share: a server in a directory of its own, and a custom kind.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) struct Home {
    pub(crate) api: ApiServer,
    pub(crate) dir: tempfile::TempDir,
}

impl Home {
    pub(crate) async fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
        Home { api, dir }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.api.service(UserInfo::admin()), "default")
    }

    /// Serves the API on a port of its own: the address, and the kubeconfig of its administrator.
    pub(crate) async fn serve(&self) -> (SocketAddr, PathBuf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubeconfig = self.dir.path().join("admin.kubeconfig");
        self.api.write_admin_kubeconfig(&kubeconfig, address).unwrap();
        let api = self.api.clone();
        tokio::spawn(async move { api.serve(listener, CancellationToken::new()).await });
        (address, kubeconfig)
    }

    pub(crate) async fn reopen(self) -> Home {
        let Home { api, dir } = self;
        api.close().await;
        let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
        Home { api, dir }
    }
}

pub(crate) fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"of": "test"}}, "data": {"key": value},
    }))
    .unwrap()
}

pub(crate) fn widget_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "widgets.lab.example.com"},
        "spec": {
            "group": "lab.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "replicas": {"type": "integer", "default": 1},
                    }},
                    "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                }}},
            }],
        },
    }))
    .unwrap()
}

pub(crate) async fn widgets(client: &Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &widget_definition()).await.unwrap();
    Api::default_namespaced_with(client.clone(), &widget_kind())
}

pub(crate) fn widget_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("lab.example.com", "v1", "Widget"))
}

pub(crate) fn widget(name: &str, size: i64) -> DynamicObject {
    DynamicObject::new(name, &widget_kind()).data(json!({"spec": {"size": size}}))
}

pub(crate) fn reason(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.reason,
        other => panic!("not an API error: {other}"),
    }
}

/// Waits until a condition holds; the test's own time limit is the harness's.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}
