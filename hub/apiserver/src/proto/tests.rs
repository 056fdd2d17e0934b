//! Bodies in protobuf, as Go clients send them.

use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What Go's own encoder made of objects, beside their JSON.
fn samples() -> Vec<(Vec<u8>, Value)> {
    let samples: Vec<Value> = serde_json::from_str(include_str!("samples.json")).unwrap();
    let sample = |sample: &Value| {
        let bytes = STANDARD.decode(sample["protobuf"].as_str().unwrap()).unwrap();
        (bytes, sample["json"].clone())
    };
    samples.iter().map(sample).collect()
}

/// Go's JSON writes empty structs and null times, which say nothing.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map = map.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            Value::Object(
                map.filter(|(key, v)| !(v.is_null() || (*v == json!({}) && key != "f:spec")))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

#[test]
fn decodes_what_go_encodes() {
    for (bytes, expected) in samples() {
        let decoded = decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", expected["kind"]));
        assert_eq!(decoded, without_empty(&expected), "{}", expected["kind"]);
    }
}

#[test]
fn refuses_what_it_does_not_know() {
    assert_eq!(decode(b"{}"), Err(DecodeError::NotAnEnvelope));
    let unknown = b"k8s\0\x0a\x0c\x0a\x04g/v1\x12\x04Kind";
    assert_eq!(
        decode(unknown),
        Err(DecodeError::UnknownKind { api_version: "g/v1".to_owned(), kind: "Kind".to_owned() })
    );
    let (bytes, _) = samples().remove(0);
    assert!(matches!(decode(&bytes[..20]), Err(DecodeError::Malformed(_))));
}

proptest! {
    #[test]
    fn damaged_messages_never_panic(which in 0_usize..6, at in 0_usize..400, byte in any::<u8>()) {
        let (mut bytes, _) = samples().remove(which);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = decode(&bytes);
        let _ = decode(&bytes[..at.min(bytes.len())]);
    }
}
