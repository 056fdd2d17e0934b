//! What one request can do: bodies, patches, selectors, rules.

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    raw::{Door, get, text, with_body},
    victim::Victim,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WIDGETS: &str = "/apis/lab.example.com/v1/namespaces/default/widgets";
const MIB: usize = 1024 * 1024;

/// Several at once; all get an answer, which is the code.
async fn all_at_once(door: &Door, requests: Vec<Request<Full<Bytes>>>) -> Vec<u16> {
    let codes = requests.into_iter().map(|request| async {
        let (code, _) = door.send(request).await;
        code
    });
    join_all(codes).await
}

pub(crate) async fn bodies_that_are_too_long(victim: &Victim) {
    let map = |length: usize| {
        json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(length)}}).to_string()
    };
    let mut sender = victim.eve.http2().await;
    for length in [3 * MIB + 1, 20 * MIB] {
        let request = with_body("POST", MAPS, "application/json", map(length));
        // The refusal may come before the whole body is sent.
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 413);
        let refused = text(answer).await;
        assert!(refused.contains("limit is 3145728"), "{refused}");
    }
    // The same connection is good for more.
    assert_eq!(sender.send_request(get(MAPS)).await.unwrap().status(), 200);
    // Without a length, as long as the server reads.
    let tasks = (0..20).map(|_| async {
        let mut stream = victim.eve.connect(b"http/1.1").await.unwrap();
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("{:x}\r\n{}\r\n", MIB, " ".repeat(MIB));
        for _ in 0..8 {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).await.unwrap_or_default();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    for answer in join_all(tasks).await {
        // Too long, or too many at once, or cut off in the middle of sending.
        let refused = answer.starts_with("HTTP/1.1 413") || answer.starts_with("HTTP/1.1 429");
        assert!(refused || answer.is_empty(), "{answer}");
    }
    victim.others_are_served().await;
}

pub(crate) async fn documents_that_are_too_deep(victim: &Victim) {
    let deep = |open: &str, close: &str| open.repeat(10_000) + &close.repeat(10_000);
    let nested = format!(r#"{{"metadata":{{"name":"a"}},"data":{}}}"#, deep("{\"a\":", "}"));
    let arrays = format!(r#"{{"metadata":{{"name":"a"}},"data":{}}}"#, deep("[", "]"));
    let open = "[".repeat(3 * MIB - 100);
    let flow = format!("metadata: {{name: a}}\ndata: {}", deep("[", "]"));
    let block: String = (0..1_500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let keys: String = (0..30_000).map(|key| format!("\"{key}\":\"\",")).collect();
    let keys =
        format!(r#"{{"metadata":{{"name":"a"}},"data":{{{}}}}}"#, keys.trim_end_matches(','));
    let same = format!(r#"{{"metadata":{{"name":"a"}},{}"x":1}}"#, "\"x\":1,".repeat(100_000));
    let json = [nested, arrays, open, keys, same];
    let yaml = [flow, block, bomb];
    let mut requests = Vec::new();
    for body in &json {
        requests.push(with_body("POST", MAPS, "application/json", body.clone()));
        let one = format!("{MAPS}/a");
        requests.push(with_body("PATCH", &one, "application/merge-patch+json", body.clone()));
        let strategic = "application/strategic-merge-patch+json";
        requests.push(with_body("PATCH", &one, strategic, body.clone()));
    }
    for body in yaml.iter().chain(&json) {
        requests.push(with_body("POST", MAPS, "application/yaml", body.clone()));
        let apply = format!("{MAPS}/a?fieldManager=eve");
        requests.push(with_body("PATCH", &apply, "application/apply-patch+yaml", body.clone()));
    }
    // One after the other: together they are refused for their number.
    for request in requests {
        let what = format!("{} {:?}", request.method(), request.headers()["content-type"]);
        let (code, body) = victim.eve.send(request).await;
        assert!((200..500).contains(&code), "{what}: {code} {body}");
    }
    // Deep protobuf: lists of managers within lists do not nest, but lengths may lie.
    let lies: [&[u8]; 3] =
        [b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"k8s\0\x12\x80\x80\x80\x80\x10", b"k8s\0"];
    for lie in lies {
        let media = "application/vnd.kubernetes.protobuf";
        let (code, _) = victim.eve.send(with_body("POST", MAPS, media, lie)).await;
        assert_eq!(code, 400);
    }
    victim.others_are_served().await;
}

pub(crate) async fn patches_that_multiply(victim: &Victim) {
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(victim.define_widgets(spec).await.0, 201);
    let list: Vec<u8> = vec![1; 500_000];
    let widget = json!({
        "apiVersion": "lab.example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"list": list, "text": "x".repeat(MIB)},
    });
    assert_eq!(victim.eve.post(WIDGETS, widget.to_string()).await.0, 201);
    let one = format!("{WIDGETS}/w");
    let patch = |operations: serde_json::Value| {
        with_body("PATCH", &one, "application/json-patch+json", operations.to_string())
    };
    let many = |operation: serde_json::Value, count: usize| vec![operation; count].into();
    let doubling: Vec<_> = (0..40)
        .map(|level| {
            let (from, path) = (format!("/spec/c{level}"), format!("/spec/c{}/x", level + 1));
            let parent = format!("/spec/c{}", level + 1);
            [
                json!({"op": "add", "path": parent, "value": {}}),
                json!({"op": "copy", "from": if level == 0 { "/spec/text" } else { &from }, "path": path}),
                json!({"op": "copy", "from": path, "path": format!("{parent}/y")}),
            ]
        })
        .collect::<Vec<_>>()
        .concat();
    let refused = [
        patch(many(json!({"op": "test", "path": "/kind", "value": "Widget"}), 10_001)),
        patch(many(json!({"op": "copy", "from": "/spec/text", "path": "/spec/more"}), 10_000)),
        patch(many(json!({"op": "remove", "path": "/spec/list/0"}), 10_000)),
        patch(many(json!({"op": "add", "path": "/spec/list/0", "value": 1}), 10_000)),
        patch(doubling.into()),
    ];
    for request in refused {
        let (code, body) = victim.eve.send(request).await;
        assert_eq!(code, 413, "{body}");
    }
    let (code, _) = victim.eve.send(patch(json!({"op": "add"}))).await;
    assert_eq!(code, 400);
    let fine = patch(many(json!({"op": "add", "path": "/spec/list/-", "value": 1}), 20));
    assert_eq!(victim.eve.send(fine).await.0, 200);
    victim.others_are_served().await;
}

pub(crate) async fn selectors_and_tokens_that_are_too_long(victim: &Victim) {
    let terms = |count: usize, term: &str| vec![term; count].join(",");
    let selectors = [
        format!("labelSelector={}", terms(10_000, "a%3Db")),
        format!("labelSelector=a+in+({})", terms(20_000, "x")),
        format!("labelSelector={}", "(".repeat(30_000)),
        format!("labelSelector={}", "!".repeat(30_000)),
        format!("fieldSelector={}", terms(3_000, "metadata.name!%3Da")),
        format!("continue={}", "A".repeat(50_000)),
        format!("continue={}", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiIn0"),
        format!("resourceVersion={}", "9".repeat(10_000)),
        format!("limit={}", u64::MAX),
        format!("watch=1&resourceVersion={}&timeoutSeconds=1", u64::MAX),
        format!("watch=1&timeoutSeconds={}0", u64::MAX),
        "x&".repeat(30_000),
    ];
    for selector in selectors {
        let (code, body) = victim.eve.get(&format!("{MAPS}?{selector}")).await;
        let shown = &selector[..selector.len().min(40)];
        // Answered, refused (a revision that is no number as a real server does, with a 500), or,
        // where it has not been yet, told to wait.
        let no_number = code == 500 && body.contains("strconv.ParseUint");
        assert!(code < 500 || code == 504 || no_number, "{shown}: {code} {body}");
    }
    victim.others_are_served().await;
}

pub(crate) async fn patterns_that_backtrack(victim: &Victim) {
    let pattern = |pattern: &str| json!({"type": "object", "properties": {"text": {"type": "string", "pattern": pattern}}});
    for large in [r"^(\w{1000}){1000}$".to_owned(), "a?".repeat(500_000), "(".repeat(100_000)] {
        let (code, body) = victim.define_widgets(pattern(&large)).await;
        assert_eq!(code, 422, "{}", &body[..body.len().min(300)]);
    }
    assert_eq!(victim.define_widgets(pattern("^(([a-z])+.)+[A-Z]([a-z])+$")).await.0, 201);
    let widget = json!({
        "apiVersion": "lab.example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"text": "a".repeat(2 * MIB)},
    });
    let request = || with_body("POST", WIDGETS, "application/json", widget.to_string());
    let codes = all_at_once(&victim.eve, (0..8).map(|_| request()).collect()).await;
    assert!(
        codes.iter().all(|code| [422, 429].contains(code)) && codes.contains(&422),
        "{codes:?}"
    );
    victim.others_are_served().await;
}

pub(crate) async fn rules_that_loop(victim: &Victim) {
    let rules = |rules: &[&str]| {
        let rules: Vec<_> = rules.iter().map(|rule| json!({"rule": rule})).collect();
        json!({
            "type": "object", "x-kubernetes-validations": rules,
            "properties": {"list": {"type": "array", "items": {"type": "integer"}}},
        })
    };
    let deep = [
        "(".repeat(10_000) + "true" + &")".repeat(10_000),
        "!".repeat(50_000) + "true",
        "[".repeat(10_000) + &"]".repeat(10_000),
        "true && ".repeat(20_000) + "true",
    ];
    let nested = [("(", ")"), ("[", "]"), ("{1:", "}"), ("f(", ")")];
    let nested = nested.map(|(open, close)| open.repeat(240) + "1" + &close.repeat(240) + " == 1");
    let chained =
        ["1 + ", "true ? 1 : ", "self.list.size() - "].map(|part| part.repeat(300) + "1 > 0");
    for deep in deep.into_iter().chain(nested).chain(chained) {
        let (code, body) = victim.define_widgets(rules(&[&deep])).await;
        assert_eq!(code, 422, "{}: {}", &deep[..20], &body[..body.len().min(300)]);
    }
    let loops = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c > 0)))";
    // As deep as may be: it is evaluated with each object.
    let long = "1 + ".repeat(240) + "1 > 0";
    assert_eq!(victim.define_widgets(rules(&[loops, &long])).await.0, 201);
    let widget = |items: usize| {
        let list = vec![1; items];
        let object = json!({
            "apiVersion": "lab.example.com/v1", "kind": "Widget",
            "metadata": {"name": format!("w{items}")}, "spec": {"list": list},
        });
        with_body("POST", WIDGETS, "application/json", object.to_string())
    };
    for items in [101, 10_000, 1_000_000] {
        let (code, body) = victim.eve.send(widget(items)).await;
        assert_eq!(code, 422, "{body}");
        assert!(body.contains("running out of cost budget"), "{body}");
    }
    assert_eq!(victim.eve.send(widget(10)).await.0, 201);
    victim.others_are_served().await;
}

pub(crate) async fn dry_runs_without_end(victim: &Victim) {
    let map = json!({"metadata": {"generateName": "a-"}, "data": {"k": "x".repeat(100_000)}});
    let map = Bytes::from(map.to_string());
    let path = format!("{MAPS}?dryRun=All");
    let clients = (0..40).map(|_| async {
        let mut sender = victim.eve.http1().await;
        let mut codes = Vec::new();
        for _ in 0..25 {
            // A refusal before the body is read ends the connection.
            if sender.ready().await.is_err() {
                sender = victim.eve.http1().await;
            }
            let request = with_body("POST", &path, "application/json", map.clone());
            let answer = sender.send_request(request).await.unwrap();
            codes.push(answer.status().as_u16());
            text(answer).await;
        }
        codes
    });
    let codes = join_all(clients).await.concat();
    assert!(codes.iter().all(|code| [201, 429].contains(code)), "{codes:?}");
    assert!(codes.contains(&201));
    let (_, list) = victim.admin.get(MAPS).await;
    assert!(!list.contains("\"a-"), "nothing was stored");
}
