//! Where do a placement's files go? Kratix's three layouts, byte by byte.
//!
//! | mode | layout, below the destination's directory |
//! |---|---|
//! | nestedByMetadata | `dependencies/<promise>/<pipeline>/<id5>/…`, `resources/<namespace>/<promise>/<request>/<pipeline>/<id5>/…` |
//! | aggregatedYAML | one file, the documents of all placements |
//! | none | the files as they are named, and `.kratix/<namespace>-<placement>.yaml`, which lists them |

use bytes::Bytes;
use muster_core::{
    FileSet,
    directory::{self, join},
};

use crate::change::{Change, Entry, Files};

/// The file of aggregatedYAML, unless the Destination names another.
pub const AGGREGATED: &str = "aggregated.yaml";
/// Whom the test documents belong to, in messages of commits.
pub const CANARY: &str = "kratix-canary";
/// Where the lists of mode none are.
pub(crate) const LISTS: &str = ".kratix";
/// How many digits of a group's id name its directory.
const ID_LEN: usize = 5;

const CANARY_NAMESPACE: (&str, &str) = (
    "kratix-canary-namespace.yaml",
    "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: kratix-worker-system\nspec: {}\nstatus: {}\n",
);
const CANARY_CONFIG_MAP: (&str, &str) = (
    "kratix-canary-configmap.yaml",
    "apiVersion: v1\ndata:\n  canary: this confirms your infrastructure is reading from Kratix state \
     stores\nkind: ConfigMap\nmetadata:\n  name: kratix-info\n  namespace: kratix-worker-system\n",
);

/// Which layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A directory for each placement.
    Nested,
    /// This one file.
    Aggregated(String),
    /// The files as they are named.
    Flat,
}

/// A Destination's part of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    store: String,
    directory: String,
    mode: Mode,
}

/// Why a path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {path:?}: {cause}: give a directory below the store's top, such as clusters/dev")]
pub struct PathError {
    field: &'static str,
    path: String,
    cause: String,
}

/// A placement, as far as the layout must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The Promise.
    pub promise: &'a str,
    /// The request's namespace and name; none for dependencies. Pipelines may run, and placements be,
    /// in another namespace, where the requests of several may have one name.
    pub resource: Option<(&'a str, &'a str)>,
    /// The pipeline; empty for static dependencies.
    pub pipeline: &'a str,
    /// The workload group.
    pub id: &'a str,
    /// The paths of its files.
    pub paths: Vec<&'a str>,
}

impl Root {
    /// The part of a store at `store` (its own path) and `directory` (the Destination's).
    pub fn new(store: &str, directory: &str, mode: Mode) -> Result<Self, PathError> {
        let check = |field, path: &str| {
            directory::parse(path).map_err(|cause| PathError {
                field,
                path: path.to_owned(),
                cause,
            })
        };
        let store = check("the state store's spec.path", store)?;
        let directory = join(&store, &check("spec.path", directory)?);
        if let Mode::Aggregated(file) = &mode
            && check("spec.filepath.filename", file)?.is_empty()
        {
            let (field, cause) = ("spec.filepath.filename", "it names no file".to_owned());
            return Err(PathError { field, path: file.clone(), cause });
        }
        Ok(Self { store, directory, mode })
    }

    /// The layout.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Its directory from the store's top.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The one directory of a placement.
    pub(crate) fn nested(&self, placed: &Placed<'_>) -> String {
        let id = placed.id.get(..ID_LEN).unwrap_or(placed.id);
        let mut parts = match placed.resource {
            Some((namespace, resource)) => vec!["resources", namespace, placed.promise, resource],
            None => vec!["dependencies", placed.promise],
        };
        parts.extend(Some(placed.pipeline).filter(|pipeline| !pipeline.is_empty()));
        parts.push(id);
        join(&self.directory, &parts.join("/"))
    }

    /// The list of a placement's files.
    pub(crate) fn list(&self, placed: &Placed<'_>) -> String {
        let name = format!("{LISTS}/{}-{}.yaml", placed.namespace, placed.name);
        join(&self.directory, &name)
    }

    /// What makes a placement's files be there; none of them removes it. The one file of
    /// aggregatedYAML is [`Root::aggregate`]'s.
    pub fn change(&self, placed: &Placed<'_>, files: Option<&FileSet>) -> Option<Change> {
        let files = files.into_iter().flat_map(FileSet::iter);
        let files = files.map(|(path, bytes)| (path.to_owned(), Bytes::copy_from_slice(bytes)));
        match self.mode {
            Mode::Nested => {
                Some(Change::Directory { path: self.nested(placed), files: files.collect() })
            }
            Mode::Aggregated(_) => None,
            Mode::Flat => {
                let at = |path: &str| join(&self.directory, path);
                let files: Files = files.map(|(path, bytes)| (at(&path), bytes)).collect();
                Some(Change::Listed {
                    list: self.list(placed),
                    root: self.directory.clone(),
                    relative_to: self.store.clone(),
                    // A removal after a lost list still knows what the placement was to hold.
                    before: placed.paths.iter().map(|path| at(path)).collect(),
                    files,
                })
            }
        }
    }

    /// The one file of aggregatedYAML, of the files of all placements in the order of their names.
    pub fn aggregate<'a>(&self, all: impl IntoIterator<Item = &'a FileSet>) -> Option<Change> {
        let Mode::Aggregated(file) = &self.mode else { return None };
        let mut joined: Vec<u8> = Vec::new();
        let mut any = false;
        for (_, bytes) in all.into_iter().flat_map(FileSet::iter) {
            if any {
                joined.extend_from_slice(b"\n---\n");
            }
            joined.extend_from_slice(bytes);
            any = true;
        }
        let path = join(&self.directory, file);
        Some(Change::File { path, bytes: any.then(|| joined.into()) })
    }

    /// The test documents, or their removal.
    pub fn canaries(&self, wanted: bool) -> [Entry; 2] {
        let files = self.canary_paths().into_iter().zip([CANARY_NAMESPACE.1, CANARY_CONFIG_MAP.1]);
        let entries: Vec<_> = files
            .map(|(path, text)| Entry {
                owner: CANARY.to_owned(),
                change: Change::File {
                    path,
                    bytes: wanted.then(|| Bytes::from_static(text.as_bytes())),
                },
            })
            .collect();
        entries.try_into().unwrap_or_else(|_| unreachable!("there are two canary documents"))
    }

    /// Where the test documents are.
    pub(crate) fn canary_paths(&self) -> [String; 2] {
        let (namespace, config_map) = match self.mode {
            Mode::Nested => ("dependencies/", "resources/"),
            Mode::Aggregated(_) | Mode::Flat => ("", ""),
        };
        [
            join(&self.directory, &format!("{namespace}{}", CANARY_NAMESPACE.0)),
            join(&self.directory, &format!("{config_map}{}", CANARY_CONFIG_MAP.0)),
        ]
    }
}

#[cfg(test)]
mod tests;
