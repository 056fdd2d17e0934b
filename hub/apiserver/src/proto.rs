//! Decodes protobuf request bodies of built-in kinds.

use serde_json::Value;

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The bytes are not a Kubernetes protobuf envelope of a served kind.
    #[error("{0}")]
    Malformed(String),
}

/// Decodes an enveloped message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, DecodeError> {
    let _ = bytes;
    Err(DecodeError::Malformed("protobuf is not served".to_owned()))
}
