//! Which objects do files hold? Every object knows where it stands, so that an error can say it.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Largest file that is read: far above the API's own limit of 3 MiB for an object.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One object of a file.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    /// `promise.yaml` or, where a file holds several, `promise.yaml, document 2`.
    pub(super) place: String,
    /// The object.
    pub(super) object: Value,
}

impl Manifest {
    /// The object's name, if it has one.
    pub(super) fn name(&self) -> &str {
        self.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The object's namespace, if it names one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.object.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// `promise.yaml, document 2: Promise "x"`.
    pub(super) fn title(&self) -> String {
        let kind = self.object["kind"].as_str().unwrap_or_default();
        format!("{}: {kind} {:?}", self.place, self.name())
    }
}

/// The objects of files, of directories of them, or of stdin (`-`), in the order given.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("stdin")?;
            manifests.extend(parse("stdin", &text)?);
        } else if path.is_dir() {
            for file in files_of(path)? {
                manifests.extend(read_file(&file)?);
            }
        } else {
            manifests.extend(read_file(path)?);
        }
    }
    if manifests.is_empty() {
        bail!("there is no object in {}", names(paths));
    }
    Ok(manifests)
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// The YAML and JSON files of a directory, by name; not those of directories below it.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = folder.display();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {name}"))? {
        let path = entry.with_context(|| format!("cannot list {name}"))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Manifest>> {
    let name = path.display().to_string();
    let length = fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if length > FILE_BYTES_MAX {
        bail!("{name}: {length} bytes are over the limit of {FILE_BYTES_MAX}");
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<Vec<Manifest>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("{name}: it is not YAML"))?;
    let several = documents.iter().filter(|document| !document.is_null()).count() > 1;
    let mut manifests = Vec::new();
    for (at, document) in documents.into_iter().enumerate() {
        let place = if several { format!("{name}, document {}", at + 1) } else { name.to_owned() };
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(is_list) => {
                let items = list.remove("items").unwrap_or_default();
                let Value::Array(items) = items else { bail!("{place}: items is not a list") };
                for (at, object) in items.into_iter().enumerate() {
                    manifests.push(checked(format!("{place}, item {}", at + 1), object)?);
                }
            }
            object => manifests.push(checked(place, object)?),
        }
    }
    Ok(manifests)
}

fn is_list(kind: &Value) -> bool {
    kind == "List"
}

fn checked(place: String, object: Value) -> Result<Manifest> {
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        if object.pointer(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            let field = field[1..].replace('/', ".");
            bail!("{place}: {field} is missing: every object needs apiVersion, kind and a name");
        }
    }
    Ok(Manifest { place, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_an_object_stands() {
        let text = "---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n# nothing\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: B, metadata: {name: b}}\n";
        let manifests = parse("x.yaml", text).unwrap();
        let titles: Vec<_> = manifests.iter().map(Manifest::title).collect();
        assert_eq!(titles.len(), 2, "{titles:?}");
        assert!(titles[0].starts_with("x.yaml, document"), "{titles:?}");
        assert!(titles[1].ends_with("item 1: B \"b\""), "{titles:?}");
        let one = parse("y.yaml", "apiVersion: v1\nkind: A\nmetadata: {name: a}\n").unwrap();
        assert_eq!(one[0].title(), "y.yaml: A \"a\"");
    }

    #[test]
    fn names_the_field_that_is_missing_and_the_line_that_is_not_yaml() {
        let error = parse("x.yaml", "kind: A\n").unwrap_err();
        assert!(error.to_string().contains("x.yaml: apiVersion is missing"), "{error}");
        let error = parse("x.yaml", "a: b\n  c: d\n").unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }
}
