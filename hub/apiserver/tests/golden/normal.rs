//! What differs from run to run is replaced in answers: uids, times, versions, generated names.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use regex::{Captures, Regex};
use serde_json::{Value, json};

use crate::case::{Answer, Content};

/// Headers that clients act on; others differ by server and by request.
const HEADERS: [&str; 5] = ["content-type", "warning", "retry-after", "allow", "location"];

static UID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
});
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z").unwrap()
});
/// Versions in messages of lists and watches.
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(resource version: [0-9]+ \(|current: |in record \()[0-9]+").unwrap()
});
static AGE: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([0-9]+[smhd])+$").unwrap());
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+").unwrap());

/// What earlier cases kept: values are shown by their names.
pub(crate) type Kept = BTreeMap<String, String>;

pub(crate) fn substitute(text: &str, kept: &Kept) -> String {
    let mut text = text.to_owned();
    for (name, value) in kept {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

pub(crate) fn answer(raw: Answer, kept: &Kept, only: &[String]) -> Answer {
    let shown = |(name, value): (String, String)| (name, words(&value, kept));
    let wanted = |(name, _): &(String, String)| HEADERS.contains(&name.as_str());
    let mut headers: Vec<_> = raw.headers.into_iter().filter(wanted).map(shown).collect();
    headers.sort();
    let body = match raw.body {
        Content::Text(text) => Content::Text(words(&text, kept)),
        Content::Json(values) => {
            let reduced = values.into_iter().map(|value| match only {
                [] => value,
                only => only.iter().map(|path| (path.clone(), find(&value, path))).collect(),
            });
            let normal = reduced.map(|mut value| {
                normalise("", &mut value, kept);
                order_causes(&mut value);
                value
            });
            Content::Json(normal.collect())
        }
    };
    Answer { code: raw.code, headers, body }
}

/// A part of a value: a JSON pointer in whose lists `name=x` finds the item of that name.
pub(crate) fn find(value: &Value, pointer: &str) -> Value {
    let mut place = value;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/");
        let found = match place {
            Value::Array(items) => match step.split_once('=') {
                Some((field, wanted)) => items.iter().find(|item| item[field] == wanted),
                None => step.parse().ok().and_then(|index: usize| items.get(index)),
            },
            other => other.get(step.as_str()),
        };
        let Some(found) = found else { return Value::Null };
        place = found;
    }
    place.clone()
}

fn normalise(field: &str, value: &mut Value, kept: &Kept) {
    match value {
        Value::Object(fields) => {
            shorten_name(fields);
            order_managers(fields);
            for (name, value) in fields {
                normalise(name, value, kept);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(field, item, kept)),
        Value::String(text) => *text = string(field, text, kept),
        _ => {}
    }
}

/// Managers are listed by the second of their last write, which two runs need not share.
fn order_managers(metadata: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(managers)) = metadata.get_mut("managedFields") else { return };
    let by = |entry: &Value| {
        ["operation", "subresource", "manager"].map(|field| entry[field].to_string())
    };
    managers.sort_by_key(by);
}

/// A real server finds errors in another order each time: they are put in one, in the list of causes
/// and in the message that lists them.
fn order_causes(status: &mut Value) {
    let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) else {
        return;
    };
    let text = |cause: &Value| {
        let part = |name: &str| cause[name].as_str().unwrap_or_default().to_owned();
        let field = if part("field").is_empty() { "<nil>".to_owned() } else { part("field") };
        format!("{field}: {}", part("message"))
    };
    causes.sort_by_key(text);
    let mut texts: Vec<String> = causes.iter().map(text).collect();
    texts.dedup();
    let Some(message) = status["message"].as_str() else { return };
    if let Some((start, managers)) = message.split_once("\nconflicts with ") {
        let mut managers: Vec<&str> = managers.split("\nconflicts with ").collect();
        managers.sort_unstable();
        status["message"] =
            [start, &managers.join("\nconflicts with ")].join("\nconflicts with ").into();
        return;
    }
    let Some((start, list)) = message.split_once(" is invalid: [") else { return };
    let ordered = texts.join(", ");
    let same = list.len() == ordered.len() + 1 && texts.iter().all(|text| list.contains(text));
    if same {
        status["message"] = format!("{start} is invalid: [{ordered}]").into();
    }
}

/// A generated name ends differently each time.
fn shorten_name(metadata: &mut serde_json::Map<String, Value>) {
    let Some(prefix) = metadata.get("generateName").and_then(Value::as_str) else { return };
    let shown = format!("{prefix}<random>");
    if let Some(name) = metadata.get_mut("name") {
        *name = shown.into();
    }
}

fn string(field: &str, text: &str, kept: &Kept) -> String {
    match field {
        "resourceVersion" if !text.is_empty() => {
            let name = kept.iter().find(|(_, value)| *value == text);
            name.map_or("<version>".to_owned(), |(name, _)| format!("${{{name}}}"))
        }
        "continue" if !text.is_empty() => token_of_list(text),
        "cells" if AGE.is_match(text) => "<age>".to_owned(),
        "storageVersionHash" | "hash" => "<hash>".to_owned(),
        _ => words(text, kept),
    }
}

/// Free text: what is known by name is named, the rest is made alike.
fn words(text: &str, kept: &Kept) -> String {
    let uid = |found: &Captures| {
        let name = kept.iter().find(|(_, value)| **value == found[0]);
        name.map_or("<uid>".to_owned(), |(name, _)| format!("${{{name}}}"))
    };
    let text = TOKEN.replace_all(text, "<token>");
    let text = UID.replace_all(&text, uid);
    let text = TIME.replace_all(&text, |found: &Captures| match found.get(1) {
        Some(_) => "<time with fraction>",
        None => "<time>",
    });
    VERSION.replace_all(&text, "$1<version>").into_owned()
}

fn token_of_list(token: &str) -> String {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    let parsed = decoded.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    match parsed {
        None => "<unreadable token>".to_owned(),
        Some(mut page) => {
            page["rv"] = json!("<version>");
            page.to_string()
        }
    }
}

/// Where two answers differ, one line each.
pub(crate) fn differences(expected: &Answer, actual: &Answer) -> Vec<String> {
    let mut all = Vec::new();
    if expected.code != actual.code {
        all.push(format!("code: {} expected, {} answered", expected.code, actual.code));
    }
    if expected.headers != actual.headers {
        all.push(format!("headers: {:?} expected, {:?}", expected.headers, actual.headers));
    }
    match (&expected.body, &actual.body) {
        (Content::Json(expected), Content::Json(actual)) => {
            compare("", &json!(expected), &json!(actual), &mut all);
        }
        (expected, actual) if expected != actual => {
            all.push(format!("body: {expected:?} expected, {actual:?}"));
        }
        _ => {}
    }
    all
}

fn compare(path: &str, expected: &Value, actual: &Value, all: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, value) in before {
                compare(&format!("{path}/{name}"), value, now.get(name).unwrap_or(&ABSENT), all);
            }
            for (name, value) in now.iter().filter(|(name, _)| !before.contains_key(*name)) {
                all.push(format!("{path}/{name}: not expected: {value}"));
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (index, (before, now)) in before.iter().zip(now).enumerate() {
                compare(&format!("{path}/{index}"), before, now, all);
            }
        }
        (before, now) if before != now || std::ptr::eq(now, &raw const ABSENT) => {
            all.push(format!("{path}:\n      expected {before}\n      answered {now}"));
        }
        _ => {}
    }
}

static ABSENT: Value = Value::Null;
