//! Whose is this file? Terraform's, a Kubernetes object, a script, or data for scripts.
//!
//! Below a directory that holds `*.tf` or `*.tf.json` all is Terraform's. Else a YAML document with
//! apiVersion and kind is a Kubernetes object or a script; anything else is data for scripts, listed,
//! never applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use muster_core::{Claim, Contents, Failure, FileSet};
use serde_json::Value;

use crate::script::{self, Script};

/// Most documents in one file set: beyond this an inventory of them is not readable either.
const DOCUMENTS_MAX: usize = 10_000;

/// A file set, taken apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parts {
    /// Kubernetes objects in order of file and document.
    pub objects: Vec<Document<Value>>,
    /// Scripts in order of file and document.
    pub scripts: Vec<Document<Script>>,
    /// The Terraform root module: files by path below its directory. Empty: there is none.
    pub terraform: BTreeMap<String, Vec<u8>>,
    /// The directory of that module; empty for the top.
    pub terraform_root: String,
    /// Everything else, by path.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A document and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<T> {
    /// What it says.
    pub value: T,
    /// Where it is.
    pub place: Place,
}

/// Where a document is: a file, and the number of the document in it, from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path of the file.
    pub file: String,
    /// 1 for the first document of the file.
    pub document: usize,
}

/// Why a file set cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Not YAML.
    #[error("{place}, line {line}: {cause}")]
    Syntax {
        /// Which document.
        place: Place,
        /// The line of the file, from 1.
        line: usize,
        /// What the parser says.
        cause: String,
    },
    /// A document that is neither an object nor data.
    #[error("{place}: {cause}")]
    Document {
        /// Which document.
        place: Place,
        /// What is wrong with it.
        cause: String,
    },
    /// The same object or script twice.
    #[error("{what} is in {first} and in {second}: take it out of one of the two")]
    Twice {
        /// The object or script.
        what: String,
        /// Where it was first.
        first: Place,
        /// Where it was again.
        second: Place,
    },
    /// Two Terraform roots side by side.
    #[error(
        "the directories {first:?} and {second:?} both hold Terraform files: \
         one placement has one root module; put one of them below the other, or into its own group"
    )]
    TwoRoots {
        /// One directory.
        first: String,
        /// The other.
        second: String,
    },
    /// More than [`DOCUMENTS_MAX`] documents.
    #[error("{0} takes the files over the limit of {DOCUMENTS_MAX} documents")]
    TooMany(Place),
}

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        Self::refused("InvalidFiles", error.to_string())
    }
}

/// Takes a file set apart.
pub fn split(files: &FileSet) -> Result<Parts, SplitError> {
    let mut parts = Parts::default();
    let root = terraform_root(files)?;
    let mut documents = 0;
    for (path, bytes) in files.iter() {
        if let Some(below) = root.as_deref().and_then(|root| below(root, path)) {
            parts.terraform.insert(below.to_owned(), bytes.to_vec());
            continue;
        }
        let is_yaml = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
        let found = if is_yaml { read(path, bytes)? } else { Vec::new() };
        if found.is_empty() {
            parts.data.insert(path.to_owned(), bytes.to_vec());
        }
        for document in found {
            documents += 1;
            if documents > DOCUMENTS_MAX {
                return Err(SplitError::TooMany(document.place));
            }
            parts.add(document)?;
        }
    }
    parts.terraform_root = root.unwrap_or_default();
    parts.check_unique()?;
    Ok(parts)
}

impl Parts {
    /// The appliers that these files need, with a file that shows it.
    pub fn needs(&self) -> BTreeMap<&'static str, String> {
        let mut needs = BTreeMap::new();
        if let Some(object) = self.objects.first() {
            needs.insert("kubernetes", object.place.file.clone());
        }
        if let Some(script) = self.scripts.first() {
            needs.insert("shell", script.place.file.clone());
        }
        if let Some(file) = self.terraform.keys().find(|file| is_terraform(file)) {
            needs.insert("terraform", join(&self.terraform_root, file));
        }
        needs
    }

    /// What the plan must know of these files.
    pub fn contents(&self) -> Contents {
        let claims = self.objects.iter().map(|object| claim(&object.value)).collect();
        Contents { claims, terraform: !self.terraform.is_empty() }
    }

    /// The files that nothing uses: data without a script.
    pub fn unapplied(&self) -> Vec<String> {
        if self.scripts.is_empty() { self.data.keys().cloned().collect() } else { Vec::new() }
    }

    fn add(&mut self, document: Document<Value>) -> Result<(), SplitError> {
        let Document { value, place } = document;
        let text = |field| value.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("kind") == script::KIND && text("apiVersion").starts_with("fleet.muster.dev/") {
            let refuse = |cause| SplitError::Document { place: place.clone(), cause };
            if text("apiVersion") != script::API_VERSION {
                let cause = format!("apiVersion of a Script must be {}", script::API_VERSION);
                return Err(refuse(cause));
            }
            let script = Script::parse(&value).map_err(refuse)?;
            self.scripts.push(Document { value: script, place });
            return Ok(());
        }
        if text("apiVersion") == "v1" && text("kind") == "List" {
            for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
                self.add(Document { value: item.clone(), place: place.clone() })?;
            }
            return Ok(());
        }
        if value.pointer("/metadata/name").and_then(Value::as_str).is_none_or(str::is_empty) {
            let cause = format!(
                "{} has no metadata.name: give it one (generateName cannot be applied twice)",
                text("kind")
            );
            return Err(SplitError::Document { place, cause });
        }
        self.objects.push(Document { value, place });
        Ok(())
    }

    fn check_unique(&self) -> Result<(), SplitError> {
        let mut seen = BTreeMap::new();
        let objects = self.objects.iter().map(|o| (claim(&o.value).to_string(), &o.place));
        let scripts = self.scripts.iter().map(|s| (format!("Script {}", s.value.name), &s.place));
        for (what, place) in objects.chain(scripts) {
            if let Some(first) = seen.insert(what.clone(), place) {
                let (first, second) = (first.clone(), place.clone());
                return Err(SplitError::Twice { what, first, second });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file, self.document)
    }
}

/// The identity of an object, whatever its version.
pub(crate) fn claim(object: &Value) -> Claim {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
    Claim::kubernetes(group, text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

fn is_terraform(path: &str) -> bool {
    path.ends_with(".tf") || path.ends_with(".tf.json")
}

/// The topmost directory that holds Terraform files; there can be only one.
fn terraform_root(files: &FileSet) -> Result<Option<String>, SplitError> {
    let directory = |path: &str| path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
    let mut directories: BTreeSet<String> = BTreeSet::new();
    directories
        .extend(files.iter().map(|(path, _)| path).filter(|p| is_terraform(p)).map(directory));
    // The shortest path comes first among those that lie below it.
    let Some(first) = directories.first().cloned() else { return Ok(None) };
    match directories.into_iter().find(|other| *other != first && below(&first, other).is_none()) {
        Some(second) => Err(SplitError::TwoRoots { first, second }),
        None => Ok(Some(first)),
    }
}

fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    if root.is_empty() { Some(path) } else { path.strip_prefix(root)?.strip_prefix('/') }
}

fn join(root: &str, file: &str) -> String {
    if root.is_empty() { file.to_owned() } else { format!("{root}/{file}") }
}

/// The objects of a file; none if it is data.
fn read(path: &str, bytes: &[u8]) -> Result<Vec<Document<Value>>, SplitError> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let place = Place { file: path.to_owned(), document: 1 };
        return Err(SplitError::Document { place, cause: "it is not UTF-8".to_owned() });
    };
    let mut objects = Vec::new();
    let mut other = None;
    for (index, (first_line, chunk)) in documents(text).into_iter().enumerate() {
        let place = Place { file: path.to_owned(), document: index + 1 };
        let value = parse(&chunk, first_line, &place)?;
        let has = |field| value.get(field).is_some_and(Value::is_string);
        match (has("apiVersion"), has("kind")) {
            (true, true) => objects.push(Document { value, place }),
            _ if value.is_null() => {}
            (one, _) => {
                let lacks = if one { "kind" } else { "apiVersion" };
                other.get_or_insert((place, lacks));
            }
        }
    }
    match other {
        Some((place, lacks)) if !objects.is_empty() => Err(SplitError::Document {
            place,
            cause: format!("it has no {lacks}, and other documents of the file are objects"),
        }),
        _ => Ok(objects),
    }
}

/// The documents of a YAML stream, each with the number of its first line. A line that begins with
/// `---` always begins a document: no scalar may hold one (YAML 1.2.2, §9.1.2).
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut all = vec![(1, String::new())];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        match (rest, all.last_mut()) {
            (Some(rest), _) => all.push((number + 1, rest.to_owned())),
            (None, Some((_, last))) => last.push_str(line),
            (None, None) => {}
        }
    }
    let blank = |text: &str| {
        text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    };
    // Before the first `---` there is usually nothing; empty ones in between keep their number.
    if blank(&all[0].1) && all.len() > 1 {
        all.remove(0);
    }
    all
}

fn parse(chunk: &str, first_line: usize, place: &Place) -> Result<Value, SplitError> {
    if chunk.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(chunk).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line().saturating_sub(1));
        let cause = error.to_string();
        let cause = cause.lines().next().unwrap_or("it is not YAML").to_owned();
        let line = first_line + usize::try_from(line).unwrap_or_default();
        SplitError::Syntax { place: place.clone(), line, cause }
    })
}

#[cfg(test)]
mod tests;
