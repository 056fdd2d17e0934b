//! Built-in kinds, which have defaults and lists with keys of their own, applied by several.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/within.rs"]
mod within;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use home::Home;
use within::{APPLY, JSON, Raw};

const CASES: u32 = 48;

/// A kind: where its objects are, and what every one states.
struct Kind {
    api_version: &'static str,
    kind: &'static str,
    path: &'static str,
    base: fn() -> Value,
    /// What may be stated besides: a merge patch each.
    parts: fn() -> Vec<Value>,
}

const KINDS: [Kind; 4] = [
    // A pod's fields are mostly fixed; those of a template are not.
    Kind {
        api_version: "batch/v1",
        kind: "CronJob",
        path: "/apis/batch/v1/namespaces/default/cronjobs",
        base: || {
            let pod = json!({
                "restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}],
            });
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": in_template(&pod)}}})
        },
        parts: || {
            let in_pod = |pod| json!({"spec": {"jobTemplate": {"spec": in_template(&pod)}}});
            vec![
                json!({"metadata": {"labels": {"x": ""}, "annotations": {"n": ""}}}),
                json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}}),
                json!({"spec": {"suspend": false, "successfulJobsHistoryLimit": 0}}),
                json!({"spec": {"jobTemplate": {"metadata": {"annotations": {"q": "r"}}}}}),
                in_pod(json!({"terminationGracePeriodSeconds": 0, "dnsPolicy": "Default"})),
                in_pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
                in_pod(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})),
                // A `fieldRef` is compared as a whole, with the default that it has got: who leaves
                // the default out changes it.
                in_pod(json!({"initContainers": [{"name": "b", "image": "j", "ports": [
                    {"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"},
                ], "env": [{"name": "E", "value": ""}, {"name": "F", "valueFrom": {
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]})),
            ]
        },
    },
    Kind {
        api_version: "v1",
        kind: "Service",
        path: "/api/v1/namespaces/default/services",
        base: || json!({"spec": {"ports": [{"port": 1}]}}),
        parts: || {
            vec![
                json!({"spec": {"selector": {"a": "b"}}}),
                json!({"spec": {"type": "ClusterIP", "externalIPs": ["10.0.0.1"]}}),
                json!({"metadata": {"annotations": {"x": "y"}}}),
            ]
        },
    },
    Kind {
        api_version: "v1",
        kind: "Secret",
        path: "/api/v1/namespaces/default/secrets",
        base: || json!({"metadata": {"labels": {"base": ""}}}),
        parts: || {
            // `stringData` and server-side apply do not go together, says Kubernetes' reference.
            vec![
                json!({"data": {"a": "aGk="}}),
                json!({"data": {"b": ""}}),
                json!({"type": "Opaque"}),
                json!({"metadata": {"labels": {"x": "y"}}}),
            ]
        },
    },
    Kind {
        api_version: "v1",
        kind: "ServiceAccount",
        path: "/api/v1/namespaces/default/serviceaccounts",
        base: || json!({"metadata": {"labels": {"base": ""}}}),
        parts: || {
            vec![
                json!({"automountServiceAccountToken": false}),
                json!({"secrets": [{"name": "s"}, {"name": "t"}]}),
                json!({"imagePullSecrets": [{"name": "p"}]}),
                json!({"metadata": {"finalizers": ["example.com/f"]}}),
            ]
        },
    },
];

fn in_template(pod: &Value) -> Value {
    json!({"template": {"spec": pod}})
}

/// Which parts each of two appliers states.
fn stated() -> impl Strategy<Value = (usize, u8, u8)> {
    (0..KINDS.len(), any::<u8>(), any::<u8>())
}

#[test]
fn what_is_applied_is_kept_until_its_last_owner_lets_it_go() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = runtime.block_on(Home::new());
    let raw = Raw::new(&home.api);
    let names = std::cell::Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let run = TestRunner::new(config).run(&stated(), |(kind, one, other)| {
        names.set(names.get() + 1);
        let object = Applied { raw: &raw, kind: &KINDS[kind], name: format!("o{}", names.get()) };
        runtime.block_on(object.live(one, other));
        Ok(())
    });
    run.unwrap();
}

struct Applied<'a> {
    raw: &'a Raw,
    kind: &'a Kind,
    name: String,
}

impl Applied<'_> {
    async fn live(&self, one: u8, other: u8) {
        let (one, other) = (self.config(one), self.config(other));
        let first = self.apply("one", &one).await;
        assert_eq!(self.apply("one", &one).await, first, "applied again");
        let both = self.apply("other", &other).await;
        self.assert_there(&both, &one);
        self.assert_there(&both, &other);
        // Written back as it is, by someone who does not apply: no change, and no owner.
        let path = format!("{}/{}?fieldManager=someone", self.kind.path, self.name);
        assert_eq!(self.raw.send("PUT", &path, JSON, &both).await, (200, both.clone()));
        let left = self.apply("one", &self.config(0)).await;
        self.assert_there(&left, &other);
        assert_eq!(self.apply("other", &other).await, left, "the other owns it already");
        // What both have let go of is as if it had never been stated.
        let bare = self.apply("other", &self.config(0)).await;
        let fresh = Applied { name: format!("{}-fresh", self.name), ..*self };
        let fresh = fresh.apply("one", &fresh.config(0)).await;
        for field in ["spec", "data", "secrets", "imagePullSecrets", "type"] {
            assert_eq!(bare[field], fresh[field], "{field} of {}", self.kind.kind);
        }
        for field in ["labels", "annotations", "finalizers"] {
            assert_eq!(bare["metadata"][field], fresh["metadata"][field], "{field}");
        }
    }

    fn config(&self, parts: u8) -> Value {
        let mut config = (self.kind.base)();
        for (at, part) in (self.kind.parts)().iter().enumerate() {
            if parts & (1 << at) != 0 {
                json_patch::merge(&mut config, part);
            }
        }
        config["apiVersion"] = self.kind.api_version.into();
        config["kind"] = self.kind.kind.into();
        config["metadata"]["name"] = self.name.as_str().into();
        config
    }

    async fn apply(&self, manager: &str, config: &Value) -> Value {
        let path = format!("{}/{}?fieldManager={manager}", self.kind.path, self.name);
        let path = format!("{path}&fieldValidation=Strict");
        let (code, answer) = self.raw.send("PATCH", &path, APPLY, config).await;
        assert!([200, 201].contains(&code), "{config}: {answer}");
        answer
    }

    /// Everything stated is there.
    fn assert_there(&self, object: &Value, config: &Value) {
        assert!(holds(object, config), "{object} lacks something of {config}");
    }
}

fn holds(object: &Value, stated: &Value) -> bool {
    match (object, stated) {
        (Value::Object(object), Value::Object(stated)) => stated
            .iter()
            .all(|(name, stated)| object.get(name).is_some_and(|value| holds(value, stated))),
        (Value::Array(items), Value::Array(stated)) => {
            stated.iter().all(|stated| items.iter().any(|item| holds(item, stated)))
        }
        (value, stated) => value == stated,
    }
}
