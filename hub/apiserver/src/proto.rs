//! Decodes protobuf request bodies of built-in kinds into JSON.
//!
//! Go clients send these for built-in kinds and take a refusal for an error (kubectl `create
//! configmap`, for one); answers are always JSON. The wire format is read by a table of
//! messages, so that no generated code is needed.

mod table;
#[cfg(test)]
mod tests;
mod wire;

use base64::Engine as _;
use serde_json::{Map, Value};

use table::{Field, Kind, Message, Shape};
use wire::{Reader, Wire};

/// What every enveloped message begins with (`k8s.io/apimachinery` runtime/serializer/protobuf).
const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages: deeper than any built-in kind.
const MAX_DEPTH: usize = 64;

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Not `k8s\0` and an envelope.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NotAnEnvelope,
    /// A kind that has no protobuf form here, such as a custom resource.
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf; send JSON")]
    UnknownKind { api_version: String, kind: String },
    /// The envelope says that its content is packed in another way.
    #[error("content encoding {0:?} is not supported in protobuf messages")]
    Encoding(String),
    /// The bytes end early, or a field is not of the type that it should be.
    #[error("malformed protobuf message: {0}")]
    Malformed(String),
}

/// Decodes an enveloped message into the JSON form of its kind, with `apiVersion` and `kind`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, DecodeError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAnEnvelope)?;
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = Default::default();
    let mut reader = Reader::new(envelope);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some(field) = meta.next()? {
                    match field {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(DecodeError::Encoding(utf8(encoding)?));
            }
            _ => {}
        }
    }
    let Some(message) = table::root(&api_version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    read_message(message, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// Reads a message's fields into an object.
fn read_message(
    message: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::Malformed(format!("nested deeper than {MAX_DEPTH} messages")));
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        // Fields that are newer than this server are skipped, as protobuf intends.
        let Some(field) = message.field(number) else { continue };
        match (&field.kind, &field.shape, wire) {
            (Kind::Message(nested), _, Wire::Bytes(bytes)) if field.is_inline() => {
                read_message(table::message(*nested), bytes, object, depth + 1)?;
            }
            (_, Shape::List, wire) => {
                let place = object.entry(&field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = place {
                    read_items(field, wire, items, depth)?;
                }
            }
            (_, Shape::Map, Wire::Bytes(bytes)) => {
                let (key, value) = read_entry(field, bytes, depth)?;
                let place = object.entry(&field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = place {
                    map.insert(key, value);
                }
            }
            (_, Shape::Map, _) => return Err(unexpected(field)),
            (_, shape, wire) => {
                let value = read_value(field, wire, depth)?;
                // Go writes zeros of fields that are no pointers, which JSON leaves out.
                if *shape == Shape::Pointer || !is_zero(&value) {
                    object.insert(field.name.clone(), value);
                }
            }
        }
    }
    Ok(())
}

fn read_items(
    field: &Field,
    wire: Wire<'_>,
    items: &mut Vec<Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    match (&field.kind, wire) {
        // Packed numbers.
        (Kind::Int | Kind::Bool, Wire::Bytes(bytes)) => {
            let mut reader = Reader::new(bytes);
            while let Some(number) = reader.next_varint()? {
                items.push(read_value(field, Wire::Varint(number), depth)?);
            }
        }
        (_, wire) => items.push(read_value(field, wire, depth)?),
    }
    Ok(())
}

/// An entry of a map: a message of key and value.
fn read_entry(field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some(entry) = reader.next()? {
        match entry {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => value = Some(read_value(field, wire, depth)?),
            _ => {}
        }
    }
    // An absent value is the zero of its type, which is an empty run of bytes but for numbers.
    let value = match value {
        Some(value) => value,
        None => read_value(field, Wire::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

fn read_value(field: &Field, wire: Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match (&field.kind, wire) {
        (Kind::String, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Kind::Bytes, Wire::Bytes(bytes)) => {
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
        // Varints are two's complement of 64 bits, for 32-bit fields too.
        (Kind::Int, Wire::Varint(number)) => number.cast_signed().into(),
        (Kind::Bool, Wire::Varint(number)) => (number != 0).into(),
        (Kind::Message(nested), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            read_message(table::message(*nested), bytes, &mut object, depth + 1)?;
            Value::Object(object)
        }
        (Kind::Time, Wire::Bytes(bytes)) => read_time(bytes, false)?,
        (Kind::MicroTime, Wire::Bytes(bytes)) => read_time(bytes, true)?,
        (Kind::Quantity, Wire::Bytes(bytes)) => {
            first_text(bytes, 1)?.map_or_else(|| "0".into(), Value::String)
        }
        (Kind::IntOrString, Wire::Bytes(bytes)) => read_int_or_string(bytes)?,
        (Kind::Raw, Wire::Bytes(bytes)) => match first_text(bytes, 1)?.filter(|t| !t.is_empty()) {
            Some(json) => serde_json::from_str(&json)
                .map_err(|e| DecodeError::Malformed(format!("{}: {e}", field.name)))?,
            None => Value::Object(Map::new()),
        },
        (Kind::Items, Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some(item) = reader.next()? {
                if let (1, Wire::Bytes(text)) = item {
                    items.push(Value::String(utf8(text)?));
                }
            }
            items.into()
        }
        _ => return Err(unexpected(field)),
    })
}

fn read_time(bytes: &[u8], with_micros: bool) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next()? {
        match field {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).unwrap_or_default();
    let time = jiff::Timestamp::new(seconds, nanos)
        .map_err(|e| DecodeError::Malformed(format!("time: {e}")))?;
    let format = if with_micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string().into())
}

fn read_int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next()? {
        match field {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// The text of one field of a message.
fn first_text(bytes: &[u8], wanted: u32) -> Result<Option<String>, DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let (true, Wire::Bytes(text)) = (number == wanted, wire) {
            return utf8(text).map(Some);
        }
    }
    Ok(None)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

fn utf8(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|e| DecodeError::Malformed(e.to_string()))
}

fn unexpected(field: &Field) -> DecodeError {
    DecodeError::Malformed(format!("field {} has another wire type", field.name))
}
