//! OpenAPI v2 in protobuf: the schemas, which is what kubectl reads.
//!
//! Answers of the API are JSON everywhere else. kubectl asks for this one in protobuf alone, and
//! without it says of a kind that is not there that validation failed, instead of that there is
//! no such kind.

use serde_json::{Map, Value};

/// Field numbers of `Document` in gnostic's `OpenAPIv2.proto`.
const SWAGGER: u32 = 1;
const INFO: u32 = 2;
const PATHS: u32 = 8;
const DEFINITIONS: u32 = 9;

/// `swagger` without its paths.
pub(super) fn document(swagger: &Value) -> Vec<u8> {
    let mut document = Message::default();
    document.text(SWAGGER, swagger["swagger"].as_str().unwrap_or_default());
    let mut info = Message::default();
    info.text(1, swagger["info"]["title"].as_str().unwrap_or_default());
    info.text(2, swagger["info"]["version"].as_str().unwrap_or_default());
    document.message(INFO, info);
    document.message(PATHS, Message::default());
    let definitions = swagger["definitions"].as_object();
    document.message(DEFINITIONS, definitions.map(named_schemas).unwrap_or_default());
    document.0
}

/// Schemas by name, as `Definitions` and `Properties` have them.
fn named_schemas(schemas: &Map<String, Value>) -> Message {
    let mut all = Message::default();
    for (name, value) in schemas {
        let mut named = Message::default();
        named.text(1, name);
        named.message(2, schema(value));
        all.message(1, named);
    }
    all
}

fn schema(given: &Value) -> Message {
    let mut message = Message::default();
    for (key, value) in given.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("$ref", Value::String(text)) => message.text(1, text),
            ("format", Value::String(text)) => message.text(2, text),
            ("title", Value::String(text)) => message.text(3, text),
            ("description", Value::String(text)) => message.text(4, text),
            ("multipleOf", Value::Number(number)) => message.double(6, number),
            ("maximum", Value::Number(number)) => message.double(7, number),
            ("exclusiveMaximum", Value::Bool(flag)) => message.number(8, (*flag).into()),
            ("minimum", Value::Number(number)) => message.double(9, number),
            ("exclusiveMinimum", Value::Bool(flag)) => message.number(10, (*flag).into()),
            ("pattern", Value::String(text)) => message.text(13, text),
            ("uniqueItems", Value::Bool(flag)) => message.number(16, (*flag).into()),
            ("required", Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| message.text(19, name));
            }
            ("enum", Value::Array(values)) => {
                values.iter().for_each(|value| message.message(20, any(value)));
            }
            ("additionalProperties", value) => message.message(21, additional(value)),
            ("type", Value::String(name)) => {
                let mut types = Message::default();
                types.text(1, name);
                message.message(22, types);
            }
            ("items", value) => {
                let mut items = Message::default();
                items.message(1, schema(value));
                message.message(23, items);
            }
            ("properties", Value::Object(properties)) => {
                message.message(25, named_schemas(properties));
            }
            ("example", value) => message.message(30, any(value)),
            (name, value) if name.starts_with("x-") => {
                let mut named = Message::default();
                named.text(1, name);
                named.message(2, any(value));
                message.message(31, named);
            }
            (name, value) => {
                if let (Some(field), Some(number)) = (count(name), value.as_u64()) {
                    message.number(field, number);
                }
            }
        }
    }
    message
}

/// Fields that limit a count.
fn count(name: &str) -> Option<u32> {
    Some(match name {
        "maxLength" => 11,
        "minLength" => 12,
        "maxItems" => 14,
        "minItems" => 15,
        "maxProperties" => 17,
        "minProperties" => 18,
        _ => return None,
    })
}

fn additional(value: &Value) -> Message {
    let mut additional = Message::default();
    match value {
        Value::Bool(flag) => additional.number(2, (*flag).into()),
        other => additional.message(1, schema(other)),
    }
    additional
}

/// Any value, as YAML, of which JSON is a part.
fn any(value: &Value) -> Message {
    let mut any = Message::default();
    any.text(2, &value.to_string());
    any
}

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u32 = 0;
    const FIXED64: u32 = 1;
    const LENGTH: u32 = 2;

    fn number(&mut self, field: u32, number: u64) {
        self.varint((field << 3 | Self::VARINT).into());
        self.varint(number);
    }

    fn double(&mut self, field: u32, number: &serde_json::Number) {
        self.varint((field << 3 | Self::FIXED64).into());
        self.0.extend(number.as_f64().unwrap_or_default().to_le_bytes());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, message: Message) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint((field << 3 | Self::LENGTH).into());
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_has_the_bytes_that_its_definition_says() {
        let given = json!({"type": "string", "maxLength": 300, "x-a": [1]});
        let expected = [
            &[0xb2, 0x01, 8, 0x0a, 6][..], // type (22): values (1)
            b"string",
            &[0x58, 0xac, 0x02],        // maxLength (11): 300
            &[0xfa, 0x01, 12, 0x0a, 3], // vendor_extension (31): name (1)
            b"x-a",
            &[0x12, 5, 0x12, 3], // its value (2): yaml (2)
            b"[1]",
        ];
        assert_eq!(schema(&given).0, expected.concat());
    }
}
