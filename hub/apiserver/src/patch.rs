//! The three ways to change part of an object: merge patch (RFC 7386), JSON patch (RFC 6902)
//! and the strategic merge patch of Kubernetes.

#[cfg(test)]
mod properties;
mod strategic;
#[cfg(test)]
mod tests;

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::json::{DEPTH_MAX, depth};
pub(crate) use strategic::strategic;

/// Most operations in one JSON patch (the limit of kube-apiserver).
const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the copies of one JSON patch may add (the limit of kube-apiserver), so that
/// a small patch cannot double an object again and again.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Most work of one JSON patch, in bytes moved and in items of lists that make or take room: ten
/// thousand operations at the head of a list of a million would be minutes.
const MAX_WORK: usize = 64 * 1024 * 1024;

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    /// The patch itself makes no sense: 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// An operation does not fit the object, such as a failed `test`: 422.
    #[error("the server rejected our request due to an error in our request")]
    Unfit(#[from] json_patch::PatchError),
    /// More operations, bytes, work or depth than allowed: 413.
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
    let mut spent = Spent::default();
    for operation in operations {
        spent.count(&patched, &operation)?;
        json_patch::patch(&mut patched, std::slice::from_ref(&operation))?;
    }
    *object = patched;
    Ok(())
}

/// What the operations of a JSON patch have come to.
#[derive(Default)]
struct Spent {
    copied: usize,
    work: usize,
}

impl Spent {
    /// Refuses the operation that goes beyond a limit, before it is done.
    fn count(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        let path = operation.path();
        let size = |value: &Value| value.to_string().len();
        let source = |from: &str| object.pointer(from);
        let placed = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Copy(copy) => {
                let source = source(copy.from.as_str());
                self.copied += source.map_or(0, size);
                source
            }
            PatchOperation::Move(moved) => {
                let source = source(moved.from.as_str());
                self.work += source.map_or(0, size);
                source
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        let list = path.parent().and_then(|list| source(list.as_str())).and_then(Value::as_array);
        self.work += list.map_or(0, Vec::len);
        if placed.is_some_and(|value| path.count() + depth(value) > DEPTH_MAX) {
            let text = format!("the JSON patch nests values deeper than {DEPTH_MAX} levels");
            return Err(PatchError::TooLarge(text));
        }
        if self.copied > MAX_COPIED {
            let text = format!("the copies of the JSON patch add more than {MAX_COPIED} bytes");
            return Err(PatchError::TooLarge(text));
        }
        if self.work > MAX_WORK {
            let text = format!("the JSON patch moves more than {MAX_WORK} bytes and items");
            return Err(PatchError::TooLarge(text));
        }
        Ok(())
    }
}
