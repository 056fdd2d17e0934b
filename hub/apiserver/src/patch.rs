//! The three ways to change part of an object: merge patch (RFC 7386), JSON patch (RFC 6902)
//! and the strategic merge patch of Kubernetes.

mod strategic;
#[cfg(test)]
mod tests;

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

pub(crate) use strategic::strategic;

/// Most operations in one JSON patch (the limit of kube-apiserver).
const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the copies of one JSON patch may add (the limit of kube-apiserver), so that
/// a small patch cannot double an object again and again.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Most items of arrays that the operations of one JSON patch may move: an insertion at the front
/// of a long array moves all of it.
const MAX_MOVED: usize = 20_000_000;

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    /// The patch itself makes no sense: 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// An operation does not fit the object, such as a failed `test`: 422.
    #[error("the server rejected our request due to an error in our request")]
    Unfit(#[from] json_patch::PatchError),
    /// More operations or copied bytes than allowed: 413.
    #[error("{0}")]
    TooLarge(String),
}

/// RFC 7386: objects are merged, null removes, all else replaces.
pub(crate) fn merge(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

/// RFC 6902. On error the object is as it was.
pub(crate) fn json(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Patch(operations) =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Malformed(e.to_string()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut patched = object.clone();
    let (mut copied, mut moved) = (0, 0);
    for operation in operations {
        moved += moves(&patched, &operation);
        if moved > MAX_MOVED {
            return Err(PatchError::TooLarge(format!(
                "the operations of the JSON patch move more than {MAX_MOVED} items of arrays"
            )));
        }
        if let PatchOperation::Copy(copy) = &operation
            && let Some(source) = patched.pointer(copy.from.as_str())
        {
            copied += source.to_string().len();
            if copied > MAX_COPIED {
                return Err(PatchError::TooLarge(format!(
                    "the copies of the JSON patch add more than {MAX_COPIED} bytes"
                )));
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(&operation))?;
    }
    *object = patched;
    Ok(())
}

/// How many items an operation may move: those of the arrays that it adds to or removes from.
fn moves(object: &Value, operation: &PatchOperation) -> usize {
    let around = |path: &str| {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        object.pointer(parent).and_then(Value::as_array).map_or(0, Vec::len)
    };
    match operation {
        PatchOperation::Add(add) => around(add.path.as_str()),
        PatchOperation::Remove(remove) => around(remove.path.as_str()),
        PatchOperation::Move(way) => around(way.from.as_str()) + around(way.path.as_str()),
        PatchOperation::Copy(copy) => around(copy.path.as_str()),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
}
