//! Server-side apply through the whole API against a model: several managers with random parts of
//! one object, what each owns, what conflicts, and what is left.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/within.rs"]
mod within;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

use home::Home;
use within::{APPLY, JSON, JSON_PATCH, MERGE, Raw};

const WIDGETS: &str = "/apis/lab.example.com/v1/namespaces/default/widgets";

const MANAGERS: [&str; 3] = ["ann", "ben", "cid"];

/// Objects that are tried, with up to a dozen writes each.
const CASES: u32 = 64;

/// A place in `spec` that is owned as one: `n`, `free.a`, `whole`, `set[x]`, `keyed[k].v`.
type Leaf = &'static str;

/// All places, each with the values that it may have.
const LEAVES: [(Leaf, &[&str]); 11] = [
    ("n", &["1", "2", "3"]),
    ("s", &["\"x\"", "\"y\""]),
    ("free.a", &["\"x\"", "\"y\"", "\"\""]),
    ("free.b", &["\"x\"", "\"y\""]),
    ("whole", &["{\"a\":\"x\"}", "{\"b\":\"y\"}", "{}"]),
    ("set[x]", &["\"x\""]),
    ("set[y]", &["\"y\""]),
    ("keyed[k].v", &["1", "2"]),
    ("keyed[l].v", &["1", "2"]),
    ("keyed[l].w", &["1.5", "2.25"]),
    ("list", &["[1]", "[2,1]", "[]"]),
];

/// What can be changed without apply: a merge patch knows no lists.
const PATCHABLE: [Leaf; 5] = ["n", "s", "free.a", "free.b", "whole"];

/// Some places with values.
type Part = BTreeMap<Leaf, Value>;

#[derive(Debug, Clone)]
enum Write {
    Apply {
        manager: usize,
        part: Part,
        force: bool,
    },
    /// By a manager that does not apply; null removes.
    Patch {
        part: Part,
    },
    /// What is there, sent back by someone else.
    PutBack,
}

fn part(leaves: &'static [(Leaf, &[&str])]) -> impl Strategy<Value = Part> {
    let choices = leaves.iter().map(|(leaf, values)| {
        let value = prop::sample::select(values.to_vec());
        prop::option::weighted(0.4, value).prop_map(|value| {
            value.map(|text| (*leaf, serde_json::from_str::<Value>(text).unwrap()))
        })
    });
    choices.collect::<Vec<_>>().prop_map(|parts| parts.into_iter().flatten().collect())
}

fn patch() -> impl Strategy<Value = Part> {
    let removed = prop::collection::btree_set(prop::sample::select(PATCHABLE.to_vec()), 0..2);
    (part(&LEAVES), removed).prop_map(|(mut part, removed)| {
        part.retain(|leaf, value| PATCHABLE.contains(leaf) && *leaf != "whole" && !value.is_null());
        part.extend(removed.into_iter().map(|leaf| (leaf, Value::Null)));
        part
    })
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let apply = (0..MANAGERS.len(), part(&LEAVES), any::<bool>());
    let apply = apply.prop_map(|(manager, part, force)| Write::Apply { manager, part, force });
    let write = prop_oneof![
        6 => apply,
        2 => patch().prop_map(|part| Write::Patch { part }),
        1 => Just(Write::PutBack),
    ];
    prop::collection::vec(write, 1..12)
}

#[test]
fn every_field_is_whose_it_says_and_nothing_is_lost() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_home, raw) = runtime.block_on(lab());
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let names = std::cell::Cell::new(0);
    let run = TestRunner::new(config).run(&writes(), |writes| {
        names.set(names.get() + 1);
        let name = format!("w{}", names.get());
        runtime.block_on(Lived::default().live(&raw, &name, writes));
        Ok(())
    });
    run.unwrap();
}

#[test]
fn managers_of_different_fields_may_come_in_any_order() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_home, raw) = runtime.block_on(lab());
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let names = std::cell::Cell::new(0);
    let strategy = (part(&LEAVES[..5]), part(&LEAVES[5..]));
    let run = TestRunner::new(config).run(&strategy, |(one, other)| {
        names.set(names.get() + 1);
        runtime.block_on(async {
            let mut ends = Vec::new();
            for order in [[(0, &one), (1, &other)], [(1, &other), (0, &one)]] {
                let name = format!("w{}-{}", names.get(), ends.len());
                for (manager, part) in order {
                    let (code, answer) = apply(&raw, &name, manager, part, false).await;
                    assert!(code < 300, "{answer}");
                }
                let object = raw.get(&format!("{WIDGETS}/{name}")).await;
                ends.push((filled(&object["spec"]), owners_of(&object)));
            }
            assert_eq!(ends[0], ends[1]);
        });
        Ok(())
    });
    run.unwrap();
}

#[test]
fn what_a_client_applied_itself_moves_to_server_side_apply() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_home, raw) = runtime.block_on(lab());
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES / 2) };
    let names = std::cell::Cell::new(0);
    let run = TestRunner::new(config).run(&(part(&LEAVES), part(&LEAVES)), |(before, after)| {
        names.set(names.get() + 1);
        runtime.block_on(migrate(&raw, &format!("w{}", names.get()), &before, &after));
        Ok(())
    });
    run.unwrap();
}

/// As kubectl does it: created by an update, then its entry made one of an apply, then applied.
async fn migrate(raw: &Raw, name: &str, before: &Part, after: &Part) {
    let object = json!({
        "apiVersion": "lab.example.com/v1", "kind": "Widget",
        "metadata": {"name": name}, "spec": tree(before),
    });
    let path = format!("{WIDGETS}?fieldManager=kubectl-client-side-apply");
    let (code, made) = raw.send("POST", &path, JSON, &object).await;
    assert_eq!(code, 201, "{made}");
    let one = format!("{WIDGETS}/{name}");
    if let Some(mut entries) = made["metadata"]["managedFields"].as_array().cloned() {
        for entry in &mut entries {
            entry["manager"] = MANAGERS[0].into();
            entry["operation"] = "Apply".into();
        }
        let moved = json!([{"op": "replace", "path": "/metadata/managedFields", "value": entries}]);
        let (code, answer) = raw.send("PATCH", &one, JSON_PATCH, &moved).await;
        assert_eq!(code, 200, "{answer}");
    }
    let (code, answer) = apply(raw, name, 0, after, false).await;
    assert_eq!(code, 200, "nobody else owns anything: {answer}");
    let model = Lived { values: after.clone(), owners: owned_by(after, MANAGERS[0]) };
    model.compare(&answer);
}

async fn lab() -> (Home, Raw) {
    let home = Home::new().await;
    let raw = Raw::new(&home.api);
    let item = json!({"type": "object", "required": ["k"], "properties": {
        "k": {"type": "string"}, "v": {"type": "integer"}, "w": {"type": "number"},
    }});
    let text = json!({"type": "string"});
    let spec = json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "s": {"type": "string"},
        "free": {"type": "object", "additionalProperties": text},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
            "additionalProperties": text},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"], "items": item},
    }});
    let mut definition = serde_json::to_value(home::widget_definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "properties": {"spec": spec}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) = raw.send("POST", path, JSON, &definition).await;
    assert_eq!(code, 201, "{answer}");
    (home, raw)
}

async fn apply(raw: &Raw, name: &str, manager: usize, part: &Part, force: bool) -> (u16, Value) {
    let manager = MANAGERS[manager];
    let path = format!("{WIDGETS}/{name}?fieldManager={manager}&force={force}");
    let applied = json!({
        "apiVersion": "lab.example.com/v1", "kind": "Widget", "metadata": {"name": name},
        "spec": tree(part),
    });
    raw.send("PATCH", &path, APPLY, &applied).await
}

/// The places of a part as the tree that they are of.
fn tree(part: &Part) -> Value {
    let mut spec = json!({});
    for (leaf, value) in part {
        match leaf.split_once(['.', '[']) {
            None => spec[*leaf] = value.clone(),
            Some(("free", name)) => spec["free"][name] = value.clone(),
            Some(("set", _)) => push(&mut spec["set"], value.clone()),
            Some((list, place)) => {
                let (key, field) = place.split_once("].").unwrap();
                let place = &mut spec[list];
                let there = place.as_array().map_or(0, Vec::len);
                let same = (0..there).find(|&at| place[at]["k"] == key);
                match same {
                    Some(at) => place[at][field] = value.clone(),
                    None => push(place, json!({"k": key, field: value})),
                }
            }
        }
    }
    spec
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = json!([item]),
    }
}

/// Without what is empty or a mere key, and with lists in the order of their items: what a
/// structure is when no place of it is left, and which of several orders of items comes out of two
/// appliers, is not what is tried here.
fn filled(value: &Value) -> Value {
    let is_full = |value: &Value| {
        let fields = value.as_object();
        fields.is_none_or(|map| map.keys().any(|name| name != "k"))
    };
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), filled(value)));
            let mut object = Value::Object(fields.filter(|(_, value)| is_full(value)).collect());
            object.sort_all_objects();
            object
        }
        Value::Array(items) if items.iter().all(|item| item.is_object() || item.is_string()) => {
            let mut items: Vec<Value> = items.iter().map(filled).filter(is_full).collect();
            items.sort_by_key(ToString::to_string);
            if items.is_empty() { json!({}) } else { items.into() }
        }
        other => other.clone(),
    }
}

type Owners = BTreeMap<String, BTreeSet<String>>;

fn owned_by(part: &Part, manager: &str) -> Owners {
    part.keys().map(|leaf| ((*leaf).to_owned(), [manager.to_owned()].into())).collect()
}

/// Who owns which place, by the object's managed fields.
fn owners_of(object: &Value) -> Owners {
    let mut owners = Owners::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let manager = entry["manager"].as_str().unwrap();
        let none = Map::new();
        let fields = entry["fieldsV1"]["f:spec"].as_object().unwrap_or(&none);
        // Structures may be owned too, when nothing is left in them.
        let places = leaves(fields, "").into_iter();
        for leaf in places.filter(|leaf| LEAVES.iter().any(|(known, _)| known == leaf)) {
            owners.entry(leaf).or_default().insert(manager.to_owned());
        }
    }
    owners
}

/// The places of a `FieldsV1`; keys of items and structures themselves are no places.
fn leaves(fields: &Map<String, Value>, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, below) in fields {
        let path = match name.split_once(':') {
            Some(("f", "k")) | None => continue,
            Some(("f", name)) if path.is_empty() => name.to_owned(),
            Some(("f", name)) => format!("{path}.{name}"),
            Some(("v", value)) => format!("{path}[{}]", value.trim_matches('"')),
            Some(("k", keys)) => {
                let keys: Value = serde_json::from_str(keys).unwrap();
                format!("{path}[{}]", keys["k"].as_str().unwrap())
            }
            Some(other) => panic!("{other:?} is in no schema here"),
        };
        match below.as_object().unwrap() {
            below if below.is_empty() => found.push(path),
            below => found.extend(leaves(below, &path)),
        }
    }
    found
}

/// What an object should be after what has been done to it.
#[derive(Debug, Default)]
struct Lived {
    values: Part,
    owners: Owners,
}

impl Lived {
    async fn live(mut self, raw: &Raw, name: &str, writes: Vec<Write>) {
        let (code, answer) = apply(raw, name, 0, &Part::new(), false).await;
        assert_eq!(code, 201, "{answer}");
        for write in &writes {
            match write {
                Write::Apply { manager, part, force } => {
                    self.apply(raw, name, (*manager, part), *force).await;
                }
                Write::Patch { part } => self.patch(raw, name, part).await,
                Write::PutBack => {
                    let path = format!("{WIDGETS}/{name}?fieldManager=someone");
                    let object = raw.get(&path).await;
                    let (_, answer) = raw.send("PUT", &path, JSON, &object).await;
                    assert_eq!(answer, object, "nothing was changed");
                }
            }
            let object = raw.get(&format!("{WIDGETS}/{name}")).await;
            self.compare(&object);
        }
        self.let_go(raw, name).await;
    }

    async fn apply(&mut self, raw: &Raw, name: &str, (manager, part): (usize, &Part), force: bool) {
        let before = raw.get(&format!("{WIDGETS}/{name}")).await;
        let (code, answer) = apply(raw, name, manager, part, force).await;
        let me = MANAGERS[manager].to_owned();
        let disputed: BTreeSet<String> = part
            .iter()
            .filter(|(leaf, value)| self.values.get(*leaf).is_some_and(|old| old != *value))
            .filter(|(leaf, _)| self.owners[**leaf].iter().any(|owner| *owner != me))
            .map(|(leaf, _)| (*leaf).to_owned())
            .collect();
        if !force && !disputed.is_empty() {
            assert_eq!(code, 409, "{disputed:?} are owned by others: {answer}");
            let causes = answer["details"]["causes"].as_array().unwrap();
            let fields: BTreeSet<String> =
                causes.iter().map(|cause| place(&cause["field"])).collect();
            assert_eq!(fields, disputed, "{answer}");
            let after = raw.get(&format!("{WIDGETS}/{name}")).await;
            return assert_eq!(after, before, "a refused apply changes nothing");
        }
        assert_eq!(code, 200, "{answer}");
        for (leaf, value) in part {
            let old = self.values.insert(leaf, value.clone());
            let owners = self.owners.entry((*leaf).to_owned()).or_default();
            if old.as_ref() != Some(value) {
                owners.clear();
            }
            owners.insert(me.clone());
        }
        for (leaf, owners) in &mut self.owners {
            if !part.contains_key(leaf.as_str()) && owners.remove(&me) && owners.is_empty() {
                self.values.remove(leaf.as_str());
            }
        }
        self.owners.retain(|_, owners| !owners.is_empty());
        let (code, again) = apply(raw, name, manager, part, false).await;
        assert_eq!((code, &again), (200, &answer), "to apply twice is to apply once");
    }

    async fn patch(&mut self, raw: &Raw, name: &str, part: &Part) {
        let path = format!("{WIDGETS}/{name}?fieldManager=updater");
        let patch = json!({"spec": tree(part)});
        let (code, answer) = raw.send("PATCH", &path, MERGE, &patch).await;
        assert_eq!(code, 200, "{answer}");
        for (leaf, value) in part {
            if value.is_null() {
                self.values.remove(leaf);
                self.owners.remove(*leaf);
            } else if self.values.insert(leaf, value.clone()).as_ref() != Some(value) {
                self.owners.insert((*leaf).to_owned(), ["updater".to_owned()].into());
            }
        }
    }

    /// All managers state nothing any more: only what was patched is left, until it is removed.
    async fn let_go(mut self, raw: &Raw, name: &str) {
        for manager in 0..MANAGERS.len() {
            self.apply(raw, name, (manager, &Part::new()), false).await;
        }
        let rest: Part = self.values.keys().map(|leaf| (*leaf, Value::Null)).collect();
        self.patch(raw, name, &rest).await;
        let object = raw.get(&format!("{WIDGETS}/{name}")).await;
        assert!(self.values.is_empty());
        self.compare(&object);
    }

    fn compare(&self, object: &Value) {
        let (found, wanted) = (filled(&object["spec"]), filled(&tree(&self.values)));
        let found = if found.is_null() { json!({}) } else { found };
        assert_eq!(found, wanted, "{object}");
        assert_eq!(owners_of(object), self.owners, "{object}");
    }
}

/// `.spec.keyed[k="l"].v` as the place that it is here.
fn place(field: &Value) -> String {
    let field = field.as_str().unwrap().strip_prefix(".spec.").unwrap();
    field.replace("k=\"", "").replace("=\"", "").replace('"', "")
}
