//! Bodies: JSON, YAML and protobuf.

use serde_json::Value;

use super::assert_readable;
use crate::{json, proto, schema::Schema};

/// Our reader accepts what `serde_json` does, as the same value.
pub(super) fn json(input: &[u8]) {
    let ours = json::read_strict(input);
    let theirs = serde_json::from_slice::<Value>(input);
    match (ours, theirs) {
        (Ok((value, _)), Ok(expected)) => {
            assert_eq!(value, expected);
            assert_readable(&value);
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("one of them refuses it: {ours:?}, {theirs:?}"),
    }
}

/// Whatever comes of YAML can be stored.
pub(super) fn yaml(input: &[u8]) {
    if let Ok((value, _)) = json::read_yaml(input) {
        assert_readable(&value);
    }
}

/// A message of a built-in kind becomes an object that its schema can look at.
pub(super) fn protobuf(input: &[u8]) {
    let Ok(mut value) = proto::decode(input) else { return };
    assert_readable(&value);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&value["apiVersion"]), text(&value["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    if let Some(schema) = Schema::builtin(group, version, &kind) {
        schema.prune(&mut value);
        schema.default(&mut value);
        schema.validate(&value, None);
    }
}
