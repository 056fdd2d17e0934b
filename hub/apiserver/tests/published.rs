//! What the API tells about itself: discovery, OpenAPI of both versions, and health, with what
//! clients need to keep it; and that long answers shrink for who takes that.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/kubectl.rs"]
mod kubectl;
#[path = "shared/raw.rs"]
mod raw;

use std::io::Read as _;

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use kube::api::{Api, PostParams};
use muster_apiserver::{ApiService, UserInfo};
use serde_json::Value;
use tower::ServiceExt as _;

use home::{Home, config_map, until, widgets};
use kubectl::Kubectl;
use raw::Door;

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.headers))
            .to_str()
            .unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn get(service: ApiService, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = service.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { code: parts.status, headers: parts.headers, body }
}

/// Asks as the administrator, from within.
async fn ask(home: &Home, path: &str, headers: &[(&str, &str)]) -> Answer {
    get(home.api.service(UserInfo::admin()), path, headers).await
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let home = Home::new().await;
    let discovery =
        ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    for (path, accept) in [
        ("/apis", discovery),
        ("/api", discovery),
        ("/openapi/v2", ("accept", "application/json")),
        ("/openapi/v3", ("accept", "*/*")),
        ("/openapi/v3/api/v1", ("accept", "application/json")),
    ] {
        let first = ask(&home, path, &[accept]).await;
        assert_eq!(first.code, StatusCode::OK, "{path}");
        let etag = first.header("etag");
        assert!(etag.starts_with('"') && etag.len() == 130, "{path}: {etag}");
        let second = ask(&home, path, &[accept, ("if-none-match", etag)]).await;
        assert_eq!((second.code, second.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(second.header("etag"), etag);
    }
    let before = ask(&home, "/apis", &[discovery]).await;
    widgets(&home.client()).await;
    let known = ("if-none-match", before.header("etag"));
    let after = ask(&home, "/apis", &[discovery, known]).await;
    assert_eq!(after.code, StatusCode::OK, "another kind is served");
    assert!(after.text().contains("lab.example.com"));
}

#[tokio::test]
async fn a_document_under_its_hash_may_be_kept() {
    let home = Home::new().await;
    let index = ask(&home, "/openapi/v3", &[]).await.json();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = ask(&home, &url, &[]).await;
    assert_eq!(document.header("cache-control"), "public, immutable");
    assert!(document.header("expires").ends_with(" GMT"));
    let bare = ask(&home, "/openapi/v3/api/v1", &[]).await;
    assert_eq!(bare.header("cache-control"), "no-cache, private");
    assert_eq!(bare.body, document.body);
    let old = ask(&home, "/openapi/v3/api/v1?hash=OLD", &[]).await;
    assert_eq!((old.code, old.header("location")), (StatusCode::MOVED_PERMANENTLY, &*url));
}

#[tokio::test]
async fn every_reference_of_the_older_document_resolves() {
    let home = Home::new().await;
    widgets(&home.client()).await;
    let document = ask(&home, "/openapi/v2", &[]).await.json();
    assert_eq!(document["swagger"], "2.0");
    let text = document.to_string();
    let mut references = 0;
    for reference in text.split("\"#/definitions/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["definitions"].get(name).is_some(), "{name} is missing");
        references += 1;
    }
    assert!(references > 300);
    assert!(!text.contains("#/components/"));
    let widget = &document["definitions"]["com.example.lab.v1.Widget"];
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert_eq!(
        widget["properties"]["spec"]["properties"]["replicas"],
        serde_json::json!({"type": "integer"})
    );
    let path = "/apis/lab.example.com/v1/namespaces/{namespace}/widgets/{name}";
    let patch = &document["paths"][path]["patch"];
    assert_eq!(patch["operationId"], "patchLabExampleComV1NamespacedWidget");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["in"] == "body"));

    let packed = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = ask(&home, "/openapi/v2", &[("accept", packed)]).await;
    assert_eq!(answer.header("content-type"), packed.replace("@", "."));
    let unknown = ask(&home, "/openapi/v2", &[("accept", "application/cbor")]).await;
    assert_eq!(unknown.code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn health_is_told_as_a_whole_and_in_parts() {
    let home = Home::new().await;
    // Anyone may ask.
    let ask = async |path: &str| get(home.api.door(), path, &[]).await;
    for path in ["/healthz", "/livez", "/readyz", "/livez/ping", "/livez/store", "/readyz/shutdown"]
    {
        let answer = ask(path).await;
        assert_eq!((answer.code, answer.text()), (StatusCode::OK, "ok"), "{path}");
    }
    let verbose = ask("/readyz?verbose").await;
    assert_eq!(verbose.text(), "[+]ping ok\n[+]store ok\n[+]shutdown ok\nreadyz check passed\n");
    let excluding = ask("/livez?verbose&exclude=store&exclude=etcd").await;
    let warned = "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: \
                  no matches for \"etcd\"\nlivez check passed\n";
    assert_eq!(excluding.text(), warned);
    assert_eq!(ask("/livez/nope").await.code, StatusCode::NOT_FOUND);

    home.api.close().await;
    // The writer's thread ends a moment after it has closed the database.
    let report = "[+]ping ok\n[-]store failed: reason withheld\n[-]shutdown failed: reason \
                  withheld\nreadyz check failed\n";
    until("both are told", async || ask("/readyz").await.text() == report).await;
    assert_eq!(ask("/readyz").await.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask("/livez?exclude=store").await.code, StatusCode::OK);
}

#[tokio::test]
async fn long_answers_shrink_for_clients_on_connections() {
    let home = Home::new().await;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::default_namespaced(home.client());
    maps.create(&PostParams::default(), &config_map("long", &"x".repeat(300_000))).await.unwrap();
    let (_, kubeconfig) = home.serve().await;
    let door = Door::of(&std::fs::read_to_string(kubeconfig).unwrap());
    let fetch = async |path: &str, packed: bool| {
        let mut request = raw::get(path);
        if packed {
            request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
        }
        let answer = door.http1().await.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let encoding = answer.headers().get("content-encoding").cloned();
        (encoding, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let lists = "/api/v1/namespaces/default/configmaps";
    for path in ["/openapi/v2", lists] {
        let (encoding, plain) = fetch(path, false).await;
        assert_eq!(encoding, None);
        let (encoding, packed) = fetch(path, true).await;
        assert_eq!(encoding.unwrap(), "gzip");
        assert!(packed.len() * 2 < plain.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain, "the same document");
    }
    let watch = format!("{lists}?watch=true&resourceVersion=0&timeoutSeconds=1");
    for path in ["/api", &*watch] {
        assert_eq!(fetch(path, true).await.0, None, "{path} is short, or goes on");
    }
    // Within the process there is nothing to save.
    let headers = [("accept-encoding", "gzip")];
    let inside = ask(&home, lists, &headers).await;
    assert!(!inside.headers.contains_key("content-encoding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_the_older_document() {
    let kubectl = Kubectl::new().await;
    let unknown = "apiVersion: nope.example.com/v1\nkind: Nope\nmetadata: {name: x}\n";
    let refused = kubectl.refused("create -f -", unknown).await;
    let told = "no matches for kind \"Nope\" in version \"nope.example.com/v1\"";
    assert!(refused.contains(told) && refused.contains("ensure CRDs are installed"), "{refused}");
    let fields = kubectl.ok("explain pods.spec --output plaintext-openapiv2").await;
    assert!(fields.contains("activeDeadlineSeconds") && fields.contains("-required-"), "{fields}");
    widgets(&kubectl.home.client()).await;
    let custom = kubectl.ok("explain widgets.spec.size --output plaintext-openapiv2").await;
    assert!(custom.contains("FIELD:    size <integer>"), "{custom}");
}
