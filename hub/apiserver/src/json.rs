//! Reads JSON and YAML documents from clients into [`Value`]s, keeping account of duplicate keys.
//!
//! Kubernetes lets the last of two equal keys win and reports the repetition according to
//! `fieldValidation`; `serde_json` would drop it silently, hence a visitor of our own, which
//! serves both syntaxes.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::field;

/// Deepest nesting of arrays and objects: what `serde_json` reads. What is stored is read again.
pub(crate) const DEPTH_MAX: usize = 127;

/// Most events that the aliases of a YAML document may repeat: some hundred bytes of aliases of
/// aliases would else become a million values.
const ALIASED_EVENTS_MAX: usize = 20_000;

/// How many duplicate keys of one document are reported; more would only swell the answer.
const MAX_DUPLICATES: usize = 100;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The bytes are not JSON, or nested deeper than 128 levels (serde_json's limit).
    #[error("{}", words(.0))]
    Json(#[from] serde_json::Error),
    /// The bytes are not YAML, or exceed the parser's budget (aliases, depth, nodes).
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// The text is not UTF-8.
    #[error("the document is not UTF-8: {0}")]
    Encoding(#[from] std::str::Utf8Error),
    /// YAML that, as JSON, could not be read again.
    #[error("the document is nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// The words of Go's reader where they say as much as ours.
fn words(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads one JSON document; the second part lists repeated keys as `duplicate field "spec.a"`.
pub(crate) fn read_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), ReadError> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        Seed { path: String::new(), duplicates: &duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, duplicates.into_inner()))
}

/// Reads one YAML document (JSON is YAML too); duplicates as in [`read_strict`].
pub(crate) fn read_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), ReadError> {
    let text = std::str::from_utf8(bytes)?;
    // Clients mostly send JSON as YAML, and its own reader knows it better and faster.
    if text.trim_start().starts_with('{')
        && let Ok(read) = read_strict(bytes)
    {
        return Ok(read);
    }
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED_EVENTS_MAX },
    };
    let duplicates = RefCell::new(Vec::new());
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| {
        Seed { path: String::new(), duplicates: &duplicates }.deserialize(de)
    })
    .map_err(|e| ReadError::Yaml(e.to_string()))?;
    match depth(&value) > DEPTH_MAX {
        true => Err(ReadError::Depth),
        false => Ok((value, duplicates.into_inner())),
    }
}

/// How deep arrays and objects are nested in a value that is itself not deeper than a few hundred
/// levels (what any reader here lets through).
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Builds a [`Value`] while remembering where it is.
struct Seed<'a> {
    path: String,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = field::index(&self.path, items.len());
            match seq.next_element_seed(Seed { path, duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let path = field::child(&self.path, &key);
            let seed = Seed { path: path.clone(), duplicates: self.duplicates };
            let value = map.next_value_seed(seed)?;
            if object.insert(key, value).is_some() {
                self.remember_duplicate(&path);
            }
        }
        Ok(Value::Object(object))
    }
}

impl Seed<'_> {
    fn remember_duplicate(&self, path: &str) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() >= MAX_DUPLICATES {
            return;
        }
        let text = format!("duplicate field {}", field::quote(path));
        if !duplicates.contains(&text) {
            duplicates.push(text);
        }
    }
}

/// A mapping key: YAML allows numbers and booleans, which become their text.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a string, number or boolean")
    }

    fn visit_str<E>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }

    fn visit_string<E>(self, v: String) -> Result<String, E> {
        Ok(v)
    }

    fn visit_bool<E>(self, v: bool) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_i64<E>(self, v: i64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_u64<E>(self, v: u64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_f64<E>(self, v: f64) -> Result<String, E> {
        Ok(v.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_duplicates_with_paths_and_keeps_the_last() {
        let text = br#"{"a":1,"a":2,"spec":{"l":[{"x":1},{"x":1,"x":2,"x":3}]}}"#;
        let (value, duplicates) = read_strict(text).unwrap();
        assert_eq!(value, json!({"a": 2, "spec": {"l": [{"x": 1}, {"x": 3}]}}));
        assert_eq!(duplicates, [r#"duplicate field "a""#, r#"duplicate field "spec.l[1].x""#]);
    }

    #[test]
    fn reads_yaml_as_kubernetes_does() {
        let text = b"a: yes\nb: [1, 2.5, ~, 'x']\nc: {1: one, true: t}\nb: 0x10\nd: 2024-01-01\ne: \"1\"\n";
        let (value, duplicates) = read_yaml(text).unwrap();
        assert_eq!(
            value,
            json!({"a": true, "b": 16, "c": {"1": "one", "true": "t"}, "d": "2024-01-01", "e": "1"})
        );
        assert_eq!(duplicates, [r#"duplicate field "b""#]);
    }

    #[test]
    fn depth_is_that_of_serde_json() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let (deepest, _) = read_strict(nested(DEPTH_MAX).as_bytes()).unwrap();
        assert_eq!(depth(&deepest), DEPTH_MAX);
        assert!(read_strict(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert_eq!(depth(&json!({"a": {}, "b": [1, {"c": null}]})), 3);
    }

    #[test]
    fn aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..7 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        assert!(read_yaml(text.as_bytes()).is_err());
    }

    #[test]
    fn refuses_what_is_not_a_document() {
        assert!(read_strict(b"{").is_err());
        assert!(read_strict(b"{} {}").is_err());
        assert!(read_strict("[".repeat(1000).as_bytes()).is_err());
        assert!(read_yaml(b"a: [").is_err());
        assert!(read_yaml(&[0xff, 0xfe, 0x00]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_strict(&bytes);
            let _ = read_yaml(&bytes);
        }

        #[test]
        fn yaml_reads_json(text in r#"\{"[a-z]{1,3}":(-?[1-9][0-9]{0,4}|"[a-z ]{0,6}"|true|null|\[1,"x"\])\}"#) {
            prop_assert_eq!(read_strict(text.as_bytes()).unwrap(), read_yaml(text.as_bytes()).unwrap());
        }
    }
}
