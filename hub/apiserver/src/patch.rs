//! The three ways to change part of an object: merge patch (RFC 7386), JSON patch (RFC 6902)
//! and the strategic merge patch of Kubernetes.

#[cfg(test)]
mod properties;
mod strategic;
#[cfg(test)]
mod tests;

use json_patch::{AddOperation, Patch, PatchOperation};
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
    /// The patch is no patch: 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// A strategic merge that says what makes no sense.
    #[error("{0}")]
    Senseless(String),
    /// An operation does not fit the object, such as a failed `test`: 422.
    #[error("the server rejected our request due to an error in our request")]
    Unfit(String),
    /// More operations, bytes, work or depth than allowed: 413.
    #[error("{0}")]
    TooLarge(String),
}

/// RFC 7386: objects are merged, null removes, all else replaces.
pub(crate) fn merge(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    check_kind(patch, Value::is_object, "map[string]interface {}")?;
    json_patch::merge(object, patch);
    Ok(())
}

/// The patch as a whole is what its media type says; `go` is how the message calls that.
fn check_kind(patch: &Value, is: fn(&Value) -> bool, go: &str) -> Result<(), PatchError> {
    let kind = match patch {
        _ if is(patch) => return Ok(()),
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Err(PatchError::Malformed(format!("json: cannot unmarshal {kind} into Go value of type {go}")))
}

/// RFC 6902. On error the object is as it was.
pub(crate) fn json(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    check_kind(patch, Value::is_array, "[]handlers.jsonPatchOp")?;
    let unfit = |error: String| PatchError::Unfit(error);
    let Patch(operations) =
        serde_json::from_value(patch.clone()).map_err(|error| unfit(error.to_string()))?;
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
        let operation = add_if_absent(&patched, operation);
        json_patch::patch(&mut patched, std::slice::from_ref(&operation))
            .map_err(|error| unfit(error.to_string()))?;
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

/// To replace a field that an object does not have is to add it, as in a real server; RFC 6902
/// would refuse that.
fn add_if_absent(object: &Value, operation: PatchOperation) -> PatchOperation {
    let PatchOperation::Replace(replace) = operation else { return operation };
    let parent = replace.path.parent().and_then(|parent| object.pointer(parent.as_str()));
    match parent.is_some_and(Value::is_object) {
        true => PatchOperation::Add(AddOperation { path: replace.path, value: replace.value }),
        false => PatchOperation::Replace(replace),
    }
}
