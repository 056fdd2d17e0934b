//! The emitter against what Go's library wrote, case by case.

use serde::Deserialize;
use serde_json::{Value, json};

use super::to_yaml;

#[derive(Deserialize)]
struct Fixture {
    json: Value,
    yaml: String,
}

#[test]
fn writes_what_the_go_library_writes() {
    let text = include_str!("../../fixtures/yaml/fixtures.json");
    let fixtures: Vec<Fixture> = serde_json::from_str(text).unwrap();
    assert!(fixtures.len() > 500, "only {} fixtures", fixtures.len());
    let wrong: Vec<_> = fixtures
        .iter()
        .filter(|fixture| to_yaml(&fixture.json) != fixture.yaml)
        .map(|f| format!("{}\n  go: {:?}\nhere: {:?}", f.json, f.yaml, to_yaml(&f.json)))
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn sorts_keys_whose_numbers_overflow() {
    let keys = ["a99999999999999999999999", "a99999999999999999999998", "a1", "a0"];
    let object: serde_json::Map<_, _> = keys.iter().map(|k| ((*k).to_owned(), json!(1))).collect();
    assert_eq!(to_yaml(&Value::Object(object)).lines().count(), 4);
}
