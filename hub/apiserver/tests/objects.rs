//! What is written is what is read: any object, by any way of reading, and over a restart.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/within.rs"]
mod within;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Number, Value, json};

use home::Home;
use within::{APPLY, JSON, MERGE, Raw};

const WIDGETS: &str = "/apis/lab.example.com/v1/namespaces/default/widgets";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

const CASES: u32 = 64;

/// Any JSON: all kinds of numbers, and texts that need care.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter_map("JSON has no others", |n| { Number::from_f64(n).map(Value::Number) }),
        "(\\PC|[\"\\\\\u{0}\n\u{2028}😀]){0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c./ü$]{0,3}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// The name of an object, its collection, and what was last answered of it.
type Kept = Vec<(String, &'static str, Value)>;

#[test]
fn what_is_written_is_what_is_read() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = runtime.block_on(lab());
    let raw = Raw::new(&home.api);
    let kept = std::cell::RefCell::new(Kept::new());
    let annotations = prop::collection::btree_map("[a-z]{1,3}", "\\PC{0,5}", 0..3);
    let bytes = prop::collection::vec(any::<u8>(), 0..9);
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let strategy = (value(), value(), annotations, bytes);
    let run = TestRunner::new(config).run(&strategy, |(one, other, annotations, bytes)| {
        let name = format!("o{}", kept.borrow().len());
        let metadata = json!({"name": name, "annotations": annotations});
        let written = runtime.block_on(async {
            let free = write_free(&raw, &metadata, &one, &other).await;
            let secret =
                json!({"metadata": metadata, "stringData": {"text": format!("{bytes:?}")}});
            let (code, secret) = raw.send("POST", SECRETS, JSON, &secret).await;
            assert_eq!(code, 201, "{secret}");
            [(name.clone(), WIDGETS, free), (name, SECRETS, secret)]
        });
        kept.borrow_mut().extend(written);
        Ok(())
    });
    run.unwrap();
    let kept = kept.into_inner();
    runtime.block_on(async {
        read(&raw, &kept).await;
        let home = home.reopen().await;
        read(&Raw::new(&home.api), &kept).await;
    });
}

/// Creates an object with anything in it, and changes it in two ways.
async fn write_free(raw: &Raw, metadata: &Value, one: &Value, other: &Value) -> Value {
    let (version, kind) = ("lab.example.com/v1", "Widget");
    let spec = json!({"any": {"v": one}});
    let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
    let (code, made) =
        raw.send("POST", &format!("{WIDGETS}?fieldValidation=Strict"), JSON, &object).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["any"]["v"], *one, "created");
    let path = format!("{WIDGETS}/{}", metadata["name"].as_str().unwrap());
    // What is sent back as it came is no change: nothing of it looks different.
    let (code, same) = raw.send("PUT", &path, JSON, &made).await;
    assert_eq!((code, &same), (200, &made));
    let patch = json!({"spec": {"list": [other]}});
    let (code, patched) = raw.send("PATCH", &path, MERGE, &patch).await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!(patched["spec"]["list"][0], *other, "patched");
    assert_eq!(patched["spec"]["any"]["v"], *one, "left alone");
    let spec = json!({"applied": {"v": [one, other]}});
    let named = json!({"name": metadata["name"]});
    let applied = json!({"apiVersion": version, "kind": kind, "metadata": named, "spec": spec});
    let (code, applied) =
        raw.send("PATCH", &format!("{path}?fieldManager=m"), APPLY, &applied).await;
    assert_eq!(code, 200, "{applied}");
    assert_eq!(applied["spec"]["applied"]["v"], json!([one, other]), "applied");
    assert_eq!(applied["metadata"]["annotations"], patched["metadata"]["annotations"]);
    applied
}

/// Each object alone, in a list, and in a watch.
async fn read(raw: &Raw, kept: &Kept) {
    for collection in [WIDGETS, SECRETS] {
        let list = raw.get(collection).await;
        let items = list["items"].as_array().unwrap();
        let watch = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let mut events = raw.watch(&format!("{collection}?{watch}")).await;
        let mut watched = Vec::new();
        while watched.len() < items.len() {
            watched.push(events.next().await.unwrap()["object"].clone());
        }
        for (name, _, object) in kept.iter().filter(|(_, of, _)| *of == collection) {
            assert_eq!(raw.get(&format!("{collection}/{name}")).await, *object);
            let same = |item: &&Value| item["metadata"]["name"] == name.as_str();
            assert_eq!(items.iter().find(same).unwrap()["spec"], object["spec"]);
            assert_eq!(watched.iter().find(same).unwrap(), object);
        }
    }
}

async fn lab() -> Home {
    let home = Home::new().await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let anything = json!({"x-kubernetes-preserve-unknown-fields": true, "nullable": true});
    let mut definition = serde_json::to_value(home::widget_definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
        "type": "object", "properties": {"spec": {"type": "object", "properties": {
            "any": free, "applied": free, "list": {"type": "array", "items": anything},
        }}},
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) = Raw::new(&home.api).send("POST", path, JSON, &definition).await;
    assert_eq!(code, 201, "{answer}");
    home
}

#[tokio::test]
async fn what_no_type_holds_and_what_is_too_much_is_refused() {
    let home = lab().await;
    let raw = Raw::new(&home.api);
    let mistyped = json!({"metadata": {"name": "n"}, "spec": "text"});
    let (code, answer) = raw.send("POST", "/api/v1/namespaces", JSON, &mistyped).await;
    assert_eq!(code, 400, "{answer}");
    assert_eq!(
        answer["message"],
        "Namespace in version \"v1\" cannot be handled as a Namespace: json: cannot unmarshal \
         string into Go struct field Namespace.spec of type object"
    );
    let labels = json!({"metadata": {"name": "w", "labels": ["a"]}});
    assert_eq!(raw.send("POST", WIDGETS, JSON, &labels).await.0, 400, "metadata of custom kinds");
    // More warnings than an answer has room for headers.
    let mut unknown = json!({"metadata": {"name": "m"}});
    for n in 0..40_000 {
        unknown[format!("f{n}")] = n.into();
    }
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(raw.send("POST", maps, JSON, &unknown).await.0, 201);
    // Longer than what the database says the length of a name with.
    let role = json!({"metadata": {"name": "r".repeat(70_000)}, "rules": []});
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    assert_eq!(raw.send("POST", roles, JSON, &role).await.0, 422);
    // With its managedFields it would be nested deeper than what can be read again.
    let deep: Value =
        serde_json::from_str(&("{\"a\":".repeat(122) + "1" + &"}".repeat(122))).unwrap();
    let deep = json!({"metadata": {"name": "d"}, "spec": {"any": deep}});
    assert_eq!(raw.send("POST", WIDGETS, JSON, &deep).await.0, 400);
    let home = home.reopen().await;
    assert_eq!(Raw::new(&home.api).get(&format!("{maps}/m")).await["metadata"]["name"], "m");
}
