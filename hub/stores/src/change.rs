//! What shall be so in a store: whole directories, single files, and lists of files.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_core::{
    directory::{is_below, join},
    yaml::to_yaml,
};
use serde::Deserialize;
use serde_json::json;

/// Files by path.
pub type Files = BTreeMap<String, Bytes>;

/// One thing that shall be so, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, for people: `namespace/name` of a placement, or `kratix-canary`.
    pub owner: String,
    /// What shall be so.
    pub change: Change,
}

/// What shall be so. All paths are from the store's top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Below a directory there is exactly this; nothing at all removes it.
    Directory {
        /// The directory.
        path: String,
        /// Its files, by path below it.
        files: Files,
    },
    /// A file is this, or is not there.
    File {
        /// The file.
        path: String,
        /// Its bytes.
        bytes: Option<Bytes>,
    },
    /// These files are there, a list names them, and what the list named before is not there.
    Listed {
        /// The file that holds the list.
        list: String,
        /// The directory that all listed files are below; empty for the top.
        root: String,
        /// What paths in the list are relative to; empty for the top.
        relative_to: String,
        /// The files, by their paths from the store's top; none removes the list as well.
        files: Files,
        /// More files that may be there from before.
        before: Vec<String>,
    },
}

impl Change {
    /// Whether nothing of the owner's is left afterwards.
    pub fn removes(&self) -> bool {
        match self {
            Self::Directory { files, .. } | Self::Listed { files, .. } => files.is_empty(),
            Self::File { bytes, .. } => bytes.is_none(),
        }
    }

    /// How many bytes it carries.
    pub fn size(&self) -> usize {
        match self {
            Self::Directory { files, .. } | Self::Listed { files, .. } => {
                files.values().map(Bytes::len).sum()
            }
            Self::File { bytes, .. } => bytes.as_ref().map_or(0, Bytes::len),
        }
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    files: Vec<String>,
}

/// The text of a list, as Kratix writes it.
pub(crate) fn write_list<'a>(paths: impl IntoIterator<Item = &'a str>, relative_to: &str) -> Bytes {
    let mut paths: Vec<_> = paths.into_iter().map(|path| below(path, relative_to)).collect();
    paths.sort_unstable();
    paths.dedup();
    to_yaml(&json!({ "files": paths })).into()
}

/// The files of a list, from the store's top. Whoever can write to the store can write the list, so
/// only what is below `root` counts.
pub(crate) fn read_list(text: &[u8], root: &str, relative_to: &str) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let Ok(list) = serde_saphyr::from_str::<List>(text) else { return Vec::new() };
    let full = list.files.into_iter().map(|path| join(relative_to, &path));
    full.filter(|path| muster_core::content::check_path(path).is_ok() && is_below(path, root))
        .collect()
}

fn below<'a>(path: &'a str, directory: &str) -> &'a str {
    if directory.is_empty() {
        return path;
    }
    path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_files_relative_to_the_stores_path() {
        let text = write_list(["farm/bare/b.yaml", "farm/bare/a.yaml"], "farm");
        assert_eq!(text, "files:\n- bare/a.yaml\n- bare/b.yaml\n");
        assert_eq!(read_list(&text, "farm/bare", "farm"), ["farm/bare/a.yaml", "farm/bare/b.yaml"]);
    }

    #[test]
    fn a_list_that_somebody_else_wrote_reaches_nothing_outside() {
        let text =
            b"files:\n- ../secrets.yaml\n- other/x.yaml\n- bare/../other/y\n- bare/ok.yaml\n";
        assert_eq!(read_list(text, "bare", ""), ["bare/ok.yaml"]);
        assert!(read_list(b"{", "bare", "").is_empty());
    }
}
