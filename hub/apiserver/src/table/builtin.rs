//! The columns of the built-in kinds, after `pkg/printers/internalversion` of Kubernetes.

use serde_json::{Map, Value, json};

use super::{Cell, Column, age, age_column, name_column, path_column, workload};

/// Columns of a built-in kind; Name and Age for kinds without columns of their own.
pub(crate) fn builtin_columns(group: &str, kind: &str) -> Vec<Column> {
    let mut columns = match (group, kind) {
        ("", "Pod") => workload::pod(),
        ("batch", "Job") => workload::job(),
        ("batch", "CronJob") => workload::cron_job(),
        ("", "Namespace") => vec![path_column("Status", "string", ".status.phase"), age_column()],
        ("", "ConfigMap") => vec![computed("Data", "integer", |o, _| data(o)), age_column()],
        ("", "Secret") => vec![
            path_column("Type", "string", ".type"),
            computed("Data", "integer", |o, _| data(o)),
            age_column(),
        ],
        ("", "ServiceAccount") => {
            vec![computed("Secrets", "integer", |o, _| count(&o["secrets"])), age_column()]
        }
        ("", "Service") => service(),
        ("", "Node") => node(),
        ("", "Event") | ("events.k8s.io", "Event") => return event(),
        ("autoscaling", "Scale") => vec![
            path_column("Desired", "integer", ".spec.replicas"),
            path_column("Available", "integer", ".status.replicas"),
            age_column(),
        ],
        ("coordination.k8s.io", "Lease") => {
            vec![path_column("Holder", "string", ".spec.holderIdentity"), age_column()]
        }
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole")
        | ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            vec![computed("Created At", "date", |o, _| o["metadata"]["creationTimestamp"].clone())]
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(),
        _ => vec![age_column()],
    };
    columns.insert(0, name_column());
    columns
}

/// A column whose value is not at one path.
pub(super) fn computed(
    name: &str,
    kind: &str,
    compute: fn(&Value, jiff::Timestamp) -> Value,
) -> Column {
    Column { cell: Cell::Computed(compute), ..path_column(name, kind, "") }
}

/// The same column, shown only with `-o wide`.
pub(super) fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

/// `<none>` where kubectl shows that for an absent text.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// A text at a path of fields, empty if absent.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    let found = path.iter().try_fold(object, |value, name| value.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list, none if it is absent.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(value: &Value) -> Value {
    let pairs = value.as_object().into_iter().flatten();
    let mut pairs: Vec<String> =
        pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    or_none(&pairs.join(","))
}

fn count(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.len().into(),
        Value::Object(map) => map.len().into(),
        _ => 0.into(),
    }
}

fn data(object: &Value) -> Value {
    let size = |key: &str| object[key].as_object().map_or(0, Map::len);
    (size("data") + size("binaryData")).into()
}

fn event() -> Vec<Column> {
    vec![
        computed("Last Seen", "string", |o, now| {
            seen(
                o,
                &["lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"],
                now,
            )
        }),
        path_column("Type", "string", ".type"),
        path_column("Reason", "string", ".reason"),
        computed("Object", "string", |o, _| {
            let about = about(o);
            format!("{}/{}", text(about, &["kind"]).to_lowercase(), text(about, &["name"])).into()
        }),
        wide(computed("Subobject", "string", |o, _| about(o)["fieldPath"].clone())),
        wide(computed("Source", "string", |o, _| {
            let component = [text(o, &["source", "component"]), text(o, &["reportingController"])];
            component.into_iter().find(|c| !c.is_empty()).unwrap_or_default().into()
        })),
        computed("Message", "string", |o, _| {
            let message = [text(o, &["message"]), text(o, &["note"])];
            message.into_iter().find(|m| !m.is_empty()).unwrap_or_default().trim().into()
        }),
        wide(computed("First Seen", "string", |o, now| {
            seen(o, &["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"], now)
        })),
        wide(computed("Count", "integer", |o, _| {
            let counts = [&o["series"]["count"], &o["count"], &o["deprecatedCount"]];
            counts.into_iter().find(|c| c.is_number()).cloned().unwrap_or_else(|| json!(1))
        })),
        wide(name_column()),
    ]
}

/// How long ago the first of these times was that is set.
fn seen(event: &Value, times: &[&str], now: jiff::Timestamp) -> Value {
    match times.iter().map(|key| text(event, &[key])).find(|time| !time.is_empty()) {
        Some(time) => age::since_text(time, now).into(),
        None => "<unknown>".into(),
    }
}

/// The object that an event is about.
fn about(event: &Value) -> &Value {
    match event.get("regarding") {
        Some(object) => object,
        None => &event["involvedObject"],
    }
}

fn binding() -> Vec<Column> {
    fn subjects(object: &Value, kind: &str) -> Value {
        let of_kind = list(&object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match text(subject, &["namespace"]) {
                "" => text(subject, &["name"]).to_owned(),
                namespace => format!("{namespace}/{}", text(subject, &["name"])),
            })
            .collect();
        names.join(", ").into()
    }
    vec![
        computed("Role", "string", |o, _| {
            format!("{}/{}", text(o, &["roleRef", "kind"]), text(o, &["roleRef", "name"])).into()
        }),
        age_column(),
        wide(computed("Users", "string", |o, _| subjects(o, "User"))),
        wide(computed("Groups", "string", |o, _| subjects(o, "Group"))),
        wide(computed("ServiceAccounts", "string", |o, _| subjects(o, "ServiceAccount"))),
    ]
}

fn service() -> Vec<Column> {
    vec![
        path_column("Type", "string", ".spec.type"),
        computed("Cluster-IP", "string", |o, _| or_none(text(o, &["spec", "clusterIP"]))),
        computed("External-IP", "string", |o, _| {
            let ips: Vec<&str> =
                list(&o["spec"]["externalIPs"]).iter().filter_map(Value::as_str).collect();
            or_none(&ips.join(","))
        }),
        computed("Port(s)", "string", |o, _| {
            let port = |p: &Value| {
                let protocol = Some(text(p, &["protocol"])).filter(|p| !p.is_empty());
                format!("{}/{}", p["port"], protocol.unwrap_or("TCP"))
            };
            let ports: Vec<String> = list(&o["spec"]["ports"]).iter().map(port).collect();
            or_none(&ports.join(","))
        }),
        age_column(),
        wide(computed("Selector", "string", |o, _| labels(&o["spec"]["selector"]))),
    ]
}

fn node() -> Vec<Column> {
    vec![
        computed("Status", "string", |o, _| {
            let ready = list(&o["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
            let mut status = match ready.map(|c| text(c, &["status"])) {
                Some("True") => "Ready".to_owned(),
                Some(_) => "NotReady".to_owned(),
                None => "Unknown".to_owned(),
            };
            if o["spec"]["unschedulable"] == true {
                status.push_str(",SchedulingDisabled");
            }
            status.into()
        }),
        computed("Roles", "string", |o, _| {
            let labels = o["metadata"]["labels"].as_object().into_iter().flatten();
            let roles: Vec<&str> = labels
                .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
                .collect();
            or_none(&roles.join(","))
        }),
        age_column(),
        path_column("Version", "string", ".status.nodeInfo.kubeletVersion"),
    ]
}
