//! Sets of fields, as a tree: the form of `FieldsV1` in `managedFields`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use serde_json::{Map, Value, json};

use crate::{field, schema::Node};

/// Deepest set that is read: deeper than any object that the server accepts.
const MAX_DEPTH: usize = 128;

/// A set of paths. Each place may be a member itself and hold members below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) member: bool,
    pub(super) children: BTreeMap<Element, Set>,
}

/// One step of a path in the spelling of `FieldsV1`: `f:NAME` a field, `k:{..}` the item with
/// these keys, `v:VALUE` the item of a set, `i:N` the item at a position. JSON in it is canonical.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element(String);

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    pub(super) fn keys(keys: &BTreeMap<&str, &Value>) -> Self {
        let keys: Map<String, Value> =
            keys.iter().map(|(name, value)| ((*name).to_owned(), canonical(value))).collect();
        Self(format!("k:{}", Value::Object(keys)))
    }

    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{}", canonical(value)))
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self(text.to_owned())),
            "k" | "v" => {
                let value: Value = serde_json::from_str(rest).ok()?;
                Some(Self(format!("{kind}:{}", canonical(&value))))
            }
            "i" => rest.parse::<u64>().ok().map(|n| Self(format!("i:{n}"))),
            _ => None,
        }
    }

    fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// As a part of a path in messages: `.spec`, `[name="a"]`, `[="x"]`, `[3]`.
    pub(super) fn shown(&self) -> String {
        match self.0.split_at(2) {
            ("f:", name) => format!(".{name}"),
            ("k:", keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> =
                    keys.iter().map(|(k, v)| format!("{k}={}", shown(v))).collect();
                format!("[{}]", keys.join(","))
            }
            ("v:", value) => {
                let value: Value = serde_json::from_str(value).unwrap_or_default();
                format!("[={}]", shown(&value))
            }
            (_, index) => format!("[{index}]"),
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), field::quote)
}

/// The same value with the keys of all objects sorted.
fn canonical(value: &Value) -> Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Adds `child` below `element`, unless it is empty.
    pub(super) fn put(&mut self, element: Element, child: Self) {
        if !child.is_empty() {
            self.add(element, Cow::Owned(child));
        }
    }

    pub(super) fn child(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (element, child) in &other.children {
            out.add(element.clone(), Cow::Borrowed(child));
        }
        out
    }

    fn add(&mut self, element: Element, child: Cow<'_, Self>) {
        match self.children.entry(element) {
            Entry::Vacant(place) => {
                place.insert(child.into_owned());
            }
            Entry::Occupied(mut place) => *place.get_mut() = place.get().union(&child),
        }
    }

    /// The members of `self` that are not members of `other`.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let nothing = Self::default();
        let mut out = Self { member: self.member && !other.member, ..Self::default() };
        for (element, child) in &self.children {
            let taken = other.child(element).unwrap_or(&nothing);
            out.put(element.clone(), child.difference(taken));
        }
        out
    }

    /// The members of both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && other.member, ..Self::default() };
        for (element, child) in &self.children {
            if let Some(other) = other.child(element) {
                out.put(element.clone(), child.intersection(other));
            }
        }
        out
    }

    /// With every declared field that has members below it a member too: a field of a struct
    /// lives as long as something in it is owned.
    pub(super) fn with_named_fields(&self, node: Option<&Node>) -> Self {
        let mut out = Self { member: self.member, ..Self::default() };
        for (element, child) in &self.children {
            let name = element.field_name();
            let below = match name {
                Some(name) => node.and_then(|node| node.field(name)),
                None => node.and_then(Node::item),
            };
            let mut child = child.with_named_fields(below);
            let declared = name
                .is_some_and(|name| node.is_some_and(|node| node.properties.contains_key(name)));
            child.member |= declared && !child.children.is_empty();
            out.children.insert(element.clone(), child);
        }
        out
    }

    /// Without the members at these paths of fields.
    pub(super) fn without<P: AsRef<[S]>, S: AsRef<str>>(mut self, paths: &[P]) -> Self {
        for path in paths {
            self.remove(path.as_ref());
        }
        self
    }

    fn remove<S: AsRef<str>>(&mut self, path: &[S]) {
        match path {
            [] => self.member = false,
            [name, rest @ ..] => {
                let element = Element::field(name.as_ref());
                if let Some(child) = self.children.get_mut(&element) {
                    child.remove(rest);
                    if child.is_empty() {
                        self.children.remove(&element);
                    }
                }
            }
        }
    }

    /// All member paths, as messages show them: those of a level before those below it.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        let below = |element: &Element| format!("{path}{}", element.shown());
        let members = self.children.iter().filter(|(_, child)| child.member);
        paths.extend(members.map(|(element, _)| below(element)));
        for (element, child) in &self.children {
            child.collect_paths(&below(element), paths);
        }
    }

    /// Reads `fieldsV1`; `None` if it is not of that form.
    pub(super) fn read(fields: &Value) -> Option<Self> {
        // The root itself is never owned.
        Self::read_at(fields, 0).map(|set| Self { member: false, ..set })
    }

    fn read_at(fields: &Value, depth: usize) -> Option<Self> {
        let map = fields.as_object().filter(|_| depth < MAX_DEPTH)?;
        let mut set = Self { member: map.is_empty(), ..Self::default() };
        for (key, value) in map {
            if key == "." {
                set.member = true;
            } else {
                set.children.insert(Element::parse(key)?, Self::read_at(value, depth + 1)?);
            }
        }
        Some(set)
    }

    /// Writes `fieldsV1`.
    pub(super) fn write(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.0.clone(), child.write());
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let fields = json!({"f:spec": {".": {}, "f:a": {}, "f:l": {
            "k:{\"name\":\"x\"}": {".": {}, "f:name": {}}, "v:1": {}, "i:3": {}}}});
        let set = Set::read(&fields).unwrap();
        assert_eq!(set.write(), fields);
        assert_eq!(
            set.paths(),
            [
                ".spec",
                ".spec.a",
                ".spec.l[3]",
                ".spec.l[name=\"x\"]",
                ".spec.l[=1]",
                ".spec.l[name=\"x\"].name"
            ]
        );
        let other = Set::read(&json!({"f:l": {"k:{\"b\":1,\"a\":2}": {}}})).unwrap();
        assert_eq!(other.write(), json!({"f:l": {"k:{\"a\":2,\"b\":1}": {}}}));
        for bad in
            [json!([]), json!({"x": {}}), json!({"q:a": {}}), json!({"k:x": {}}), json!({"f:a": 1})]
        {
            assert_eq!(Set::read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn set_operations_are_by_member() {
        let a = Set::read(&json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}})).unwrap();
        let b = Set::read(&json!({"f:a": {"f:x": {}}, "f:b": {}})).unwrap();
        assert_eq!(a.union(&b).paths(), [".a", ".b", ".a.x", ".a.y"]);
        assert_eq!(a.difference(&b).paths(), [".a", ".a.y"]);
        assert_eq!(a.intersection(&b).paths(), [".a.x"]);
        assert!(a.difference(&a).is_empty());
    }
}
