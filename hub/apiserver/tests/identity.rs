//! Who is who, from outside: certificates, tokens, impersonation, and the audit log, with the
//! real `kubectl` and with bare connections.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/kubectl.rs"]
mod kubectl;
#[path = "shared/people.rs"]
mod people;
#[path = "shared/raw.rs"]
mod raw;

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use http_body_util::BodyExt as _;
use muster_apiserver::{ApiServer, AuditConfig, CERTIFICATES_PATH, Config};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use home::Home;
use kubectl::Kubectl;
use people::{READER, certified, served, served_by, write_kubeconfig};
use raw::{Door, get};

async fn audited() -> (Kubectl, Door) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let audit = Some(AuditConfig { path, own_clients: false });
    let config = Config { audit, ..Config::new(dir.path()) };
    let api = ApiServer::open(config).await.unwrap();
    served_by(Home { api, dir }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_makes_a_user_in_groups() {
    let (kubectl, admin) = served().await;
    kubectl.ok_with("apply -f -", READER).await;
    let ann = certified(&admin, "ann", &["first", "second"], 600).await.unwrap();
    let path = kubectl.home.dir.path().join("ann.kubeconfig");
    write_kubeconfig(&ann, &path);
    let ann_says = format!("--kubeconfig={}", path.display());
    let whoami = kubectl.ok(&format!("{ann_says} auth whoami -o jsonpath={{.status}}")).await;
    let whoami: Value = serde_json::from_str(&whoami).unwrap();
    let expected =
        json!({"username": "ann", "groups": ["first", "second", "system:authenticated"]});
    assert_eq!(whoami["userInfo"], expected);
    kubectl.ok(&format!("{ann_says} get configmaps")).await;
    let refused = kubectl.refused(&format!("{ann_says} get secrets"), "").await;
    assert!(refused.contains("User \"ann\" cannot list resource \"secrets\""), "{refused}");
    let other = certified(&admin, "bob", &["first"], 600).await.unwrap();
    let (code, body) = other.get("/api/v1/namespaces/default/configmaps").await;
    assert_eq!(code, 403, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_given_only_to_who_may_impersonate() {
    let (kubectl, admin) = served().await;
    let eve = certified(&admin, "eve", &["makers"], 600).await.unwrap();
    let refused = certified(&eve, "ann", &[], 600).await.err().unwrap();
    assert!(refused.contains("cannot post path \"/client-certificates\""), "{refused}");
    kubectl
        .ok_with(
            "apply -f -",
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: makers}
rules:
- {nonResourceURLs: [/client-certificates], verbs: [post]}
- {apiGroups: [""], resources: [users], verbs: [impersonate], resourceNames: [ann, mallory]}
- {apiGroups: [""], resources: [groups], verbs: [impersonate], resourceNames: [devs, "system:masters"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: makers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: makers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: makers}]
"#,
        )
        .await;
    certified(&eve, "ann", &["devs"], 600).await.unwrap();
    let refusals = [
        ("bob", vec![], "cannot impersonate resource \"users\""),
        ("ann", vec!["ops"], "cannot impersonate resource \"groups\""),
        ("ann", vec!["system:masters"], "by members of it alone"),
        ("system:serviceaccount:default:default", vec![], "kubectl create token"),
        ("ann", vec!["system:unauthenticated"], "is not for certificates"),
        ("", vec![], "names of users and groups"),
        ("a\nb", vec![], "names of users and groups"),
    ];
    for (user, groups, expected) in refusals {
        let refused = certified(&eve, user, &groups, 600).await.err().unwrap();
        assert!(refused.contains(expected), "{user}: {refused}");
    }
    for life in [0, -5, 91 * 24 * 3600, i64::MAX] {
        let refused = certified(&admin, "ann", &[], life).await.err().unwrap();
        assert!(refused.contains("expirationSeconds"), "{refused}");
    }
    certified(&admin, "root", &["system:masters"], 600).await.unwrap();
    let body = json!({"user": "ann", "signingRequest": "-----BEGIN nonsense"}).to_string();
    let (code, body) = admin.post(CERTIFICATES_PATH, body).await;
    assert_eq!(code, 400, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_ends_on_open_connections_too() {
    let (kubectl, admin) = served().await;
    let short = certified(&admin, "root", &["system:masters"], 8).await.unwrap();
    let list = "/api/v1/namespaces/default/configmaps";
    let mut one = short.http1().await;
    let mut two = short.http2().await;
    assert_eq!(one.send_request(get(list)).await.unwrap().status(), 200);
    let watch = two.send_request(get(&format!("{list}?watch=true"))).await.unwrap();
    assert_eq!(watch.status(), 200);
    // The watch says what there is, and then ends by itself: with the certificate.
    let _ = watch.into_body().collect().await;
    assert_eq!(two.send_request(get(list)).await.unwrap().status(), 401);
    // A certificate says its end in whole seconds, so new connections may end a little later.
    home::until("the handshake is refused", async || handshake_refused(&short).await).await;
    let path = kubectl.home.dir.path().join("short.kubeconfig");
    write_kubeconfig(&short, &path);
    let refused =
        kubectl.refused(&format!("--kubeconfig={} get configmaps", path.display()), "").await;
    assert!(refused.contains("expired certificate"), "{refused}");
}

/// Whether not even health is answered. (In TLS 1.3 a client learns only after its own end of the
/// handshake that it is refused.)
async fn handshake_refused(door: &Door) -> bool {
    let Ok(mut stream) = door.connect(b"http/1.1").await else { return true };
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.is_err() || stream.read_u8().await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_more_than_health_and_version() {
    let (_kubectl, admin) = served().await;
    let nobody = admin.nobody();
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(open).await.0, 200, "{open}");
    }
    // A check of that name there is not; no path leads out of the checks.
    assert_eq!(nobody.get("/healthz/../api").await, (404, "404 page not found\n".to_owned()));
    let closed = [
        "/",
        "/api",
        "/apis",
        "/api/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/metrics",
        "/api/v1/namespaces",
        "/api/v1/namespaces/default/secrets",
        "/nothing",
        "//api",
        CERTIFICATES_PATH,
    ];
    for path in closed {
        let (code, body) = nobody.get(path).await;
        assert_eq!(code, 401, "{path}: {body}");
        assert!(body.contains("Unauthorized") && !body.contains("default"), "{path}: {body}");
    }
    let forged = [
        ("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),
        ("authorization", "Basic YWRtaW46YWRtaW4="),
        ("impersonate-user", "system:admin"),
        ("x-remote-user", "system:admin"),
    ];
    for (name, value) in forged {
        let mut request = get("/api/v1/namespaces");
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(nobody.send(request).await.0, 401, "{name}");
    }
    // A certificate of another authority does not even get through the handshake.
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::default().self_signed(&key).unwrap().pem();
    let stranger = Door { identity: Some((own, key.serialize_pem())), ..admin };
    assert!(handshake_refused(&stranger).await);
    assert!(!handshake_refused(&nobody).await, "who shows none gets to know the health");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_audiences_and_end_with_what_they_are_bound_to() {
    let (kubectl, admin) = served().await;
    kubectl.ok("create serviceaccount bot").await;
    kubectl.ok("create secret generic s --from-literal=k=v").await;
    let review = async |token: &str, audiences: &[&str]| {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token.trim(), "audiences": audiences},
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let (code, body) = admin.post(path, body.to_string()).await;
        assert_eq!(code, 201, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["status"].clone()
    };
    let vault = kubectl.ok("create token bot --audience=vault --audience=other").await;
    let status = review(&vault, &["vault", "unknown"]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:bot");
    assert_ne!(review(&vault, &[]).await["authenticated"], true, "it is not for the API");
    let bearer = |token: &str| {
        let mut request = get("/api/v1/namespaces/default/configmaps");
        let value = format!("Bearer {}", token.trim());
        request.headers_mut().insert("authorization", value.parse().unwrap());
        request
    };
    assert_eq!(admin.nobody().send(bearer(&vault)).await.0, 401);

    let bound = "create token bot --bound-object-kind=Secret --bound-object-name=s --duration=15m";
    let bound = kubectl.ok(bound).await;
    assert_eq!(review(&bound, &[]).await["authenticated"], true);
    assert_eq!(admin.nobody().send(bearer(&bound)).await.0, 403, "known, without rights");
    kubectl.ok("delete secret s").await;
    let dead = review(&bound, &[]).await;
    assert_ne!(dead["authenticated"], true);
    assert!(dead["error"].as_str().unwrap().contains("Secret no longer exists"), "{dead}");
    assert_eq!(admin.nobody().send(bearer(&bound)).await.0, 401);
    kubectl.ok("create secret generic s --from-literal=k=v").await;
    assert_ne!(review(&bound, &[]).await["authenticated"], true, "another of the same name");

    let free = kubectl.ok("create token bot").await;
    kubectl.ok("delete serviceaccount bot").await;
    kubectl.ok("create serviceaccount bot").await;
    assert_ne!(review(&free, &[]).await["authenticated"], true, "another account");
    let (code, _) =
        admin.post("/apis/authentication.k8s.io/v1/tokenreviews", r#"{"spec": {}}"#).await;
    assert_eq!(code, 400, "no token, no review");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_requests_are_answered_as_kubernetes_does() {
    let (kubectl, admin) = served().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let ask = async |spec: Value| {
        let (code, body) = admin.post(path, json!({"spec": spec}).to_string()).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (code, plain) = ask(json!({})).await;
    assert_eq!(code, 201);
    assert_eq!(plain["kind"], "TokenRequest");
    let spec = json!({
        "audiences": ["https://kubernetes.default.svc.cluster.local"],
        "expirationSeconds": 3600, "boundObjectRef": null,
    });
    assert_eq!(plain["spec"], spec);
    let message = |body: &Value| body["message"].as_str().unwrap().to_owned();
    let (code, short) = ask(json!({"expirationSeconds": 599})).await;
    assert_eq!(code, 422);
    assert!(message(&short).contains("may not specify a duration less than 10 minutes"));
    let (code, _) = ask(json!({"expirationSeconds": (1_i64 << 32) + 1})).await;
    assert_eq!(code, 422);
    let node = json!({"kind": "Deployment", "apiVersion": "apps/v1", "name": "n"});
    let (code, refused) = ask(json!({"boundObjectRef": node})).await;
    assert_eq!(code, 400);
    assert!(message(&refused).contains("cannot bind token to object of type apps/v1"));
    let pod = |name| json!({"kind": "Pod", "apiVersion": "v1", "name": name});
    assert_eq!(ask(json!({"boundObjectRef": pod("none")})).await.0, 404);
    let pods = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {serviceAccountName: other, containers: [{name: c, image: i}]}
";
    kubectl.ok("create serviceaccount other").await;
    kubectl.ok_with("apply -f -", pods).await;
    let (code, refused) = ask(json!({"boundObjectRef": pod("p")})).await;
    assert_eq!(code, 400);
    assert!(message(&refused).contains("different serviceaccount"), "{refused}");
    let mut wrong = pod("p");
    wrong["uid"] = "0".into();
    assert_eq!(ask(json!({"boundObjectRef": wrong})).await.0, 409);
    let shortened = kubectl.call("create token default --duration=1000h", "").await;
    assert!(shortened.ok && shortened.err.contains("shortened to 172800"), "{}", shortened.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_needs_a_right_for_each_part() {
    let (kubectl, admin) = served().await;
    let deputy = certified(&admin, "deputy", &[], 600).await.unwrap();
    kubectl
        .ok_with(
            "apply -f -",
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: deputies}
rules:
- {apiGroups: [""], resources: [users], verbs: [impersonate], resourceNames: [ann]}
- {apiGroups: [""], resources: [groups], verbs: [impersonate], resourceNames: [devs]}
- {apiGroups: [authentication.k8s.io], resources: [uids], verbs: [impersonate], resourceNames: ["7"]}
- apiGroups: [authentication.k8s.io]
  resources: [userextras/reason.example.com]
  verbs: [impersonate]
  resourceNames: [lunch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: deputies}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: deputies}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: deputy}]
"#,
        )
        .await;
    kubectl.ok("create rolebinding d --clusterrole=edit --user=deputy").await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = async |headers: &[(&str, &[u8])]| {
        let mut request = raw::with_body("POST", path, "application/json", "{}");
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            let value = http::HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        let (code, body) = deputy.send(request).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (code, all) = ask(&[
        ("impersonate-user", b"ann"),
        ("impersonate-group", b"devs"),
        ("impersonate-uid", b"7"),
        ("impersonate-extra-reason.example.com", b"lunch"),
    ])
    .await;
    assert_eq!(code, 201, "{all}");
    let expected = json!({
        "username": "ann", "uid": "7", "groups": ["devs", "system:authenticated"],
        "extra": {"reason.example.com": ["lunch"]},
    });
    assert_eq!(all["status"]["userInfo"], expected);
    // As `edit` he may speak for accounts of that namespace, and of no other.
    let bot = [("impersonate-user", &b"system:serviceaccount:default:default"[..])];
    let (code, account) = ask(&bot).await;
    assert_eq!(code, 201);
    let groups = &account["status"]["userInfo"]["groups"];
    assert_eq!(groups[1], "system:serviceaccounts:default");
    type Headers<'h> = &'h [(&'h str, &'h [u8])];
    let refusals: [(Headers, u16); 9] = [
        (&[("impersonate-user", b"bob")], 403),
        (&[("impersonate-user", b"system:serviceaccount:kube-system:default")], 403),
        (&[("impersonate-user", b"ann"), ("impersonate-group", b"ops")], 403),
        (&[("impersonate-user", b"ann"), ("impersonate-group", b"system:masters")], 403),
        (&[("impersonate-user", b"ann"), ("impersonate-uid", b"8")], 403),
        (&[("impersonate-user", b"ann"), ("impersonate-extra-scope", b"x")], 403),
        (&[("impersonate-user", b"ann"), ("impersonate-extra-reason.example.com", b"war")], 403),
        (&[("impersonate-group", b"devs")], 400),
        // What cannot be read is not taken for absent.
        (&[("impersonate-user", b"\xff\xfe")], 400),
    ];
    for (headers, expected) in refusals {
        let (code, body) = ask(headers).await;
        assert_eq!(code, expected, "{headers:?}: {body}");
    }
}

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what_and_no_secrets() {
    let (kubectl, admin) = audited().await;
    let path = kubectl.home.dir.path().join("audit.log");
    kubectl.ok("create secret generic s --from-literal=k=open-sesame").await;
    kubectl.ok("create serviceaccount bot").await;
    let token = kubectl.ok("create token bot").await;
    kubectl.refused("get secrets --as=ann --as-group=devs", "").await;
    let broken = r#"{"kind": "Secret", "data": {"k": "open-sesame"#;
    assert_eq!(admin.post("/api/v1/namespaces/default/secrets", broken).await.0, 400);
    assert_eq!(admin.nobody().get("/api/v1/namespaces/default/secrets?limit=7").await.0, 401);
    assert_eq!(admin.nobody().get("/healthz").await.0, 200);
    certified(&admin, "ann", &["devs"], 600).await.unwrap();
    let mut sender = admin.http1().await;
    let list = "/api/v1/namespaces/default/configmaps";
    let mut request = get(&format!("{list}?watch=true&timeoutSeconds=1"));
    request.headers_mut().insert("audit-id", "mine".parse().unwrap());
    let watch = sender.send_request(request).await.unwrap();
    assert_eq!(watch.headers()["audit-id"], "mine");
    let _ = watch.into_body().collect().await;
    kubectl.home.api.close().await;

    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["open-sesame", "b3Blbi1zZXNhbWU", token.trim()] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let events = events(&path);
    let of = |wanted: &dyn Fn(&Value) -> bool| -> Vec<&Value> {
        events.iter().filter(|event| wanted(event)).collect()
    };
    let created = of(&|e| e["verb"] == "create" && e["objectRef"]["resource"] == "secrets");
    assert_eq!(created.len(), 2, "the one that was made, and the broken one");
    let made = created[0];
    assert_eq!(made["kind"], "Event");
    assert_eq!(made["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(made["stage"], "ResponseComplete");
    assert_eq!(made["user"]["username"], "muster-admin");
    assert_eq!(made["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(made["objectRef"]["namespace"], "default");
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(made["userAgent"].as_str().unwrap().starts_with("kubectl"));
    let refused = of(&|e| e["impersonatedUser"]["username"] == "ann");
    let refused = refused.last().unwrap();
    assert_eq!(refused["user"]["username"], "muster-admin");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let strangers = of(&|e| e["responseStatus"]["code"] == 401);
    assert_eq!(strangers.len(), 1);
    assert_eq!(strangers[0]["user"], json!({}));
    assert!(of(&|e| e["requestURI"] == "/healthz").is_empty());
    let signed = of(&|e| e["requestURI"] == CERTIFICATES_PATH);
    let note = signed[0]["annotations"]["audit.muster.dev/certificate-for"].as_str().unwrap();
    assert!(note.starts_with("user \"ann\", groups [\"devs\"], until "), "{note}");
    let stages: Vec<&Value> = of(&|e| e["auditID"] == "mine").iter().map(|e| &e["stage"]).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_in_its_own_time() {
    let (_kubectl, admin) = served().await;
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(admin.get(&format!("{path}?timeout=30s")).await.0, 200);
    assert_eq!(admin.get(&format!("{path}?timeout=soon")).await.0, 400);
    // A body that never comes.
    let mut stream = admin.connect(b"http/1.1").await.unwrap();
    let head = format!(
        "POST {path}?timeout=1s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..read.unwrap().unwrap()]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
}
