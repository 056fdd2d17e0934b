//! What is measured, and on what: the same for every server.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Access, Ask},
    load::{Times, Watchers, ask_all},
    servers::Server,
    table::Figure,
};

const OBJECTS_PATH: &str = "/apis/bench.example.com/v1/namespaces/bench/gadgets";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

/// What a server does after its start, before its idle memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// Many clients at once.
const MANY: usize = 16;

/// Which phases run, and how much of each.
pub(crate) struct Plan {
    pub(crate) measuring: bool,
    only: Vec<String>,
    /// Each figure is the median of so many.
    rounds: usize,
    /// Objects, when all are there.
    objects: usize,
    /// Requests of one client in a round, and of many.
    few: usize,
    many: usize,
    watchers: Vec<usize>,
    changes: usize,
}

impl Plan {
    pub(crate) fn new(measuring: bool, only: Vec<String>) -> Plan {
        let plan = Plan {
            measuring,
            only,
            rounds: 3,
            objects: 10_000,
            few: 300,
            many: 2_000,
            watchers: vec![100, 1_000],
            changes: 100,
        };
        match measuring {
            true => plan,
            false => {
                let watchers = vec![5];
                Plan { rounds: 1, objects: 40, few: 4, many: 16, watchers, changes: 2, ..plan }
            }
        }
    }

    fn has(&self, phase: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == phase)
    }
}

/// Starts, and memory when nothing happens.
pub(crate) async fn start<S: Server>(plan: &Plan) -> Result<Vec<Figure>> {
    let (mut starts, mut memories) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let dir = tempfile::tempdir()?;
        let (server, took) = S::start(dir.path()).await?;
        starts.push(took);
        if plan.measuring {
            tokio::time::sleep(SETTLE).await;
        }
        memories.push(server.memory()?);
    }
    Ok(vec![
        Figure::time("start to ready, empty", median(starts)),
        Figure::memory("memory, idle", median(memories)),
    ])
}

/// Everything.
pub(crate) async fn all<S: Server>(plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if plan.has("start") {
        figures.extend(start::<S>(plan).await?);
    }
    let dir = tempfile::tempdir()?;
    let (server, _) = S::start(dir.path()).await?;
    let access = server.access();
    prepare(access).await?;
    figures.extend(create(plan, access).await?);
    figures.push(Figure::memory("memory, all objects", server.memory()?));
    figures.extend(each(plan, access).await?);
    if plan.has("list") {
        figures.extend(lists(plan, access).await?);
    }
    if plan.has("watch") {
        let local = tokio::task::LocalSet::new();
        figures.extend(local.run_until(watches(plan, access)).await?);
    }
    figures.push(Figure::memory("memory, after all that", server.memory()?));
    if plan.has("restart") {
        drop(server);
        let (server, took) = S::start(dir.path()).await?;
        figures.push(Figure::time("start to ready, all objects", took));
        figures.push(Figure::memory("memory, started with them", server.memory()?));
        if plan.has("delete") {
            figures.extend(deletes(plan, server.access()).await?);
        }
    }
    Ok(figures)
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

/// Makes the definition and the namespace, and waits until objects can be made.
async fn prepare(access: &Access) -> Result<()> {
    let mut connection = access.connect().await?;
    let post = |path: &str, value: &Value| Ask::with(Method::POST, path, (JSON, bytes(value)));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    connection.ask(&post("/api/v1/namespaces", &namespace)).await?;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    connection.ask(&post(definitions, &definition())).await?;
    let begun = Instant::now();
    while let Err(error) = connection.ask(&create_of("first")).await {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = Ask { method: Method::DELETE, ..Ask::get(format!("{OBJECTS_PATH}/first")) };
    connection.ask(&first).await.map(drop)
}

fn bytes(value: &Value) -> Bytes {
    value.to_string().into()
}

fn definition() -> Value {
    let text = json!({"type": "string", "maxLength": 4096});
    let part = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "name": text, "image": text,
            "replicas": {"type": "integer", "minimum": 0, "default": 1},
        },
    });
    let spec = json!({
        "type": "object", "required": ["title"],
        "properties": {
            "title": text, "note": text, "enabled": {"type": "boolean"},
            "size": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
            "tier": {"type": "string", "enum": ["small", "large"], "default": "small"},
            "settings": {"type": "object", "additionalProperties": {"type": "string"}},
            "parts": {
                "type": "array", "items": part, "maxItems": 20,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            },
        },
    });
    let status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    let columns = json!([
        {"name": "Title", "type": "string", "jsonPath": ".spec.title"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.bench.example.com"},
        "spec": {
            "group": "bench.example.com", "scope": "Namespaced",
            "names": {
                "plural": "gadgets", "singular": "gadget", "kind": "Gadget",
                "listKind": "GadgetList",
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}}, "additionalPrinterColumns": columns,
            }],
        },
    })
}

/// An object of about 1 KB.
fn object(name: &str, size: usize) -> Value {
    let part = |name: &str| {
        let image = format!("registry.example.com/{name}:1.2.3");
        json!({"name": name, "image": image, "replicas": 2})
    };
    let bucket = name.bytes().last().unwrap_or_default() % 10;
    json!({
        "apiVersion": "bench.example.com/v1", "kind": "Gadget",
        "metadata": {"name": name, "labels": {"app": "bench", "bucket": format!("b{bucket}")}},
        "spec": {
            "title": format!("gadget {name}"), "size": size, "enabled": true, "tier": "large",
            "note": "x".repeat(400),
            "settings": {"region": "eu-west-1", "owner": "team-a", "window": "sunday"},
            "parts": [part("web"), part("worker"), part("cache")],
        },
    })
}

fn create_of(name: &str) -> Ask {
    let path = format!("{OBJECTS_PATH}?fieldManager=bench");
    Ask::with(Method::POST, path, (JSON, bytes(&object(name, 1))))
}

fn name(index: usize) -> String {
    format!("gadget-{index:05}")
}

/// Makes all objects: a part of them timed with one client, a part with many.
async fn create(plan: &Plan, access: &Access) -> Result<Vec<Figure>> {
    let asks = |range: Range<usize>| range.map(|index| create_of(&name(index))).collect();
    let mut made = 0;
    let mut figures = Vec::new();
    for (connections, count) in [(1, plan.few), (MANY, plan.many)] {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let range = made..(made + count).min(plan.objects);
            made = range.end;
            rounds.push(ask_all(access, connections, asks(range)).await?);
        }
        figures.push(rate("create", connections, rounds));
    }
    ask_all(access, MANY, asks(made..plan.objects)).await?;
    Ok(figures)
}

fn rate(what: &str, connections: usize, mut rounds: Vec<Times>) -> Figure {
    let clients = if connections == 1 { "client" } else { "clients" };
    rounds.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
    let middle = rounds.swap_remove(rounds.len() / 2);
    Figure::rate(&format!("{what}, {connections} {clients}"), &middle)
}

/// Reads and changes of single objects.
async fn each(plan: &Plan, access: &Access) -> Result<Vec<Figure>> {
    let path = |index: usize| format!("{OBJECTS_PATH}/{}", name(index));
    let get = |index: usize, _| Ask::get(path(index));
    let patch = |index: usize, size: usize| {
        let body = (MERGE, bytes(&json!({"spec": {"size": size}})));
        Ask::with(Method::PATCH, format!("{}?fieldManager=bench", path(index)), body)
    };
    let apply = |index: usize, size: usize| {
        let path = format!("{}?fieldManager=bench-apply&force=true", path(index));
        Ask::with(Method::PATCH, path, (APPLY, bytes(&object(&name(index), size))))
    };
    let mut figures = Vec::new();
    if plan.has("get") {
        figures.extend(timed(plan, access, "get", get).await?);
    }
    if plan.has("patch") {
        figures.extend(timed(plan, access, "merge patch", patch).await?);
    }
    if plan.has("apply") {
        figures.extend(timed(plan, access, "apply", apply).await?);
    }
    Ok(figures)
}

/// Asks of each of the first objects, in rounds, with one client and with many.
async fn timed(
    plan: &Plan,
    access: &Access,
    what: &str,
    ask: impl Fn(usize, usize) -> Ask,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (connections, count) in [(1, plan.few), (MANY, plan.many)] {
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            // Each round its own values, so that each changes something.
            let size = 10 + round + connections * plan.rounds;
            let asks = (0..count).map(|index| ask(index % plan.objects, size)).collect();
            rounds.push(ask_all(access, connections, asks).await?);
        }
        figures.push(rate(what, connections, rounds));
    }
    Ok(figures)
}

async fn lists(plan: &Plan, access: &Access) -> Result<Vec<Figure>> {
    let labelled = format!("{OBJECTS_PATH}?labelSelector=bucket%3Db3");
    let all = Ask::get(OBJECTS_PATH);
    let mut connection = access.connect().await?;
    let mut figures = Vec::new();
    for (what, ask) in [
        ("list all, JSON", all.clone()),
        ("list all, Table", Ask { accept: TABLE, ..all }),
        ("list a tenth by label", Ask::get(labelled)),
    ] {
        let mut times = Vec::new();
        let mut length = 0;
        // The first fills caches on either side.
        for _ in 0..=2 * plan.rounds {
            let begun = Instant::now();
            length = connection.ask(&ask).await?;
            times.push(begun.elapsed());
        }
        times.remove(0);
        let what = format!("{what} ({:.1} MB)", length as f64 / 1e6);
        figures.push(Figure::time(&what, median(times)));
    }
    Ok(figures)
}

/// One change after the other, each when all watchers have seen the one before.
async fn watches(plan: &Plan, access: &Access) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &count in &plan.watchers {
        let mut writer = access.connect().await?;
        let newest = Ask::get(format!("{OBJECTS_PATH}?limit=1"));
        let version = writer.field(&newest, "/metadata/resourceVersion").await?;
        let watch = Ask::get(format!("{OBJECTS_PATH}?watch=1&resourceVersion={version}"));
        let watchers = Watchers::start(access, count, &watch).await?;
        let mut each = Vec::new();
        let begun = Instant::now();
        for change in 1..=plan.changes {
            let begun = Instant::now();
            writer.ask(&create_of(&format!("seen-by-{count}-{change}"))).await?;
            watchers.reach(count * change).await?;
            each.push(begun.elapsed());
        }
        let times = Times::new(each, begun.elapsed());
        watchers.stop().await;
        figures.push(Figure::events(&format!("events, {count} watchers"), count, &times));
    }
    Ok(figures)
}

async fn deletes(plan: &Plan, access: &Access) -> Result<Vec<Figure>> {
    let mut gone = 0;
    let mut figures = Vec::new();
    for (connections, count) in [(1, plan.few), (MANY, plan.many)] {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let range = gone..(gone + count).min(plan.objects);
            gone = range.end;
            let path = |index| format!("{OBJECTS_PATH}/{}", name(index));
            let ask = |index| Ask { method: Method::DELETE, ..Ask::get(path(index)) };
            rounds.push(ask_all(access, connections, range.map(ask).collect()).await?);
        }
        figures.push(rate("delete", connections, rounds));
    }
    Ok(figures)
}
