//! The static dependencies of a Promise as one file of one Work.

use muster_core::{FileSet, content::FileError, yaml::to_yaml};
use serde_json::Value;

/// The one file of a Promise's static dependencies, as Kratix names it.
pub fn path(promise: &str) -> String {
    format!("static/{promise}-dependencies.yaml")
}

/// The dependencies as files: one file of many documents.
pub fn files(promise: &str, dependencies: &[Value]) -> Result<FileSet, FileError> {
    let documents: Vec<_> = dependencies.iter().map(to_yaml).collect();
    let mut files = FileSet::new();
    files.insert(&path(promise), documents.join("---\n").into_bytes())?;
    Ok(files)
}

/// What is wrong with the list of dependencies: each must say what it is.
pub fn check(dependencies: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, object) in dependencies.iter().enumerate() {
        for (field, pointer) in
            [("apiVersion", "/apiVersion"), ("kind", "/kind"), ("metadata.name", "/metadata/name")]
        {
            let text = object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if text.is_empty() {
                wrong.push(format!("spec.dependencies[{index}].{field}: Required value"));
            }
        }
    }
    wrong
}
