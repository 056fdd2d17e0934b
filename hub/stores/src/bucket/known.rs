//! What is known of a bucket's objects: those of ours, and what was found beside them.

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest as _, Md5};
use muster_core::directory::is_below;
use object_store::ObjectMeta;
use tokio::time::Instant;

use crate::{Drift, Entry, change::Change};

/// Objects as a list showed them, by path.
pub(super) type Found = BTreeMap<String, ObjectMeta>;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct State {
    objects: BTreeMap<String, Known>,
    /// Directories whose every object is known.
    directories: BTreeSet<String>,
    /// When all objects were last looked at.
    pub looked: Option<Instant>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub etag: Option<String>,
    pub version: Option<String>,
    /// Of what we put there.
    pub md5: Option<[u8; 16]>,
}

/// What a write has to know.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub directories: BTreeSet<String>,
    pub objects: BTreeSet<String>,
}

impl Asked {
    /// What these are about.
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut asked = Self::default();
        for entry in entries {
            match &entry.change {
                Change::Directory { path, .. } => drop(asked.directories.insert(path.clone())),
                Change::File { path, .. } => drop(asked.objects.insert(path.clone())),
                Change::Listed { list, files, before, .. } => {
                    asked.objects.extend(files.keys().chain(before).chain([list]).cloned());
                }
            }
        }
        asked
    }

    /// How many questions that is.
    pub(super) fn len(&self) -> usize {
        self.directories.len() + self.objects.len()
    }

    fn covers(&self, path: &str) -> bool {
        self.objects.contains(path) || is_inside(path, &self.directories)
    }
}

impl State {
    /// How many objects are known.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.objects.contains_key(path)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Known> {
        self.objects.get(path)
    }

    pub(super) fn know(&mut self, path: String, known: Known) {
        self.objects.insert(path, known);
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.objects.remove(path);
    }

    /// The objects below a directory.
    pub(super) fn below(&self, directory: &str) -> impl Iterator<Item = &String> {
        let inside = format!("{directory}/");
        let from = self.objects.range(inside.clone()..).map(|(path, _)| path);
        from.take_while(move |path| path.starts_with(&inside))
    }

    /// Whether an object is this already: by what we put, or by an ETag that is the MD5 of the
    /// bytes.
    pub(super) fn holds(&self, path: &str, bytes: &[u8]) -> bool {
        let Some(known) = self.objects.get(path) else { return false };
        let md5: [u8; 16] = Md5::digest(bytes).into();
        let etag = known.etag.as_deref().map(|etag| etag.trim_matches('"'));
        known.md5 == Some(md5) || etag == Some(hex::encode(md5).as_str())
    }

    /// The deepest directory that holds all that is known or asked.
    pub(super) fn top(&self, asked: &Asked) -> String {
        let inside = asked.directories.iter().map(|path| format!("{path}/"));
        let inside: Vec<_> = inside.collect();
        let all = self.objects.keys().chain(&asked.objects).chain(&inside);
        common_directory(all.map(String::as_str))
    }

    /// Takes what was asked as it was found. What is unchanged keeps what is known of it beyond
    /// that.
    pub(super) fn learn(&mut self, asked: Asked, found: Found) {
        let mut before = std::mem::take(&mut self.objects);
        for (path, meta) in found {
            let known = before.get(&path).filter(|known| known.etag == meta.e_tag);
            if asked.covers(&path) {
                let known = known.cloned().unwrap_or_else(|| Known::of(&meta));
                self.objects.insert(path, known);
            }
        }
        before.retain(|path, _| !asked.covers(path));
        self.objects.append(&mut before);
        self.directories.extend(asked.directories);
    }

    /// What others changed, if these are all objects that there are; it is no longer known then.
    pub(super) fn compare(&mut self, found: &Found) -> Drift {
        let etag = |path: &String| found.get(path).map(|meta| &meta.e_tag);
        let changed = self.objects.iter().filter(|(path, known)| etag(path) != Some(&known.etag));
        let mut drift: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
        let strange = found
            .keys()
            .filter(|path| !self.objects.contains_key(*path) && is_inside(path, &self.directories));
        drift.extend(strange.cloned());
        for path in &drift {
            self.objects.remove(path);
            self.directories.retain(|directory| !is_below(path, directory));
        }
        if drift.is_empty() { Drift::None } else { Drift::Paths(drift) }
    }
}

impl Known {
    fn of(meta: &ObjectMeta) -> Self {
        Self { etag: meta.e_tag.clone(), version: meta.version.clone(), md5: None }
    }
}

fn is_inside(path: &str, directories: &BTreeSet<String>) -> bool {
    path.match_indices('/').any(|(end, _)| directories.contains(&path[..end]))
}

/// The deepest directory that holds all paths; empty for the top.
fn common_directory<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    let mut paths = paths.into_iter();
    let directory = |path: &'a str| path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut common = paths.next().map(directory).unwrap_or_default();
    for path in paths {
        while !is_below(path, common) {
            common = directory(common);
        }
    }
    common.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_common_directory_is_what_is_listed() {
        for (paths, expected) in [
            (&["a/b/c", "a/b/d/e"][..], "a/b"),
            (&["a/b", "ab/c"], ""),
            (&["a/b/c"], "a/b"),
            (&["x"], ""),
            (&["farm/one/x", "farm/two/y", "farm/one/z"], "farm"),
        ] {
            assert_eq!(common_directory(paths.iter().copied()), expected);
        }
    }

    fn found(all: &[(&str, &str)]) -> Found {
        let meta = |path: &str, etag: &str| ObjectMeta {
            location: path.into(),
            last_modified: Default::default(),
            size: 1,
            e_tag: Some(etag.to_owned()),
            version: None,
        };
        all.iter().map(|(path, etag)| ((*path).to_owned(), meta(path, etag))).collect()
    }

    fn state(all: &[(&str, &str)], directories: &[&str]) -> State {
        let mut state = State::default();
        for (path, etag) in all {
            let known = Known { etag: Some((*etag).to_owned()), version: None, md5: Some([7; 16]) };
            state.know((*path).to_owned(), known);
        }
        state.directories = directories.iter().map(|path| (*path).to_owned()).collect();
        state
    }

    #[test]
    fn what_others_change_delete_or_add_is_drift() {
        let mut known = state(&[("d/a", "1"), ("d/b", "1"), ("d/c", "1")], &["d"]);
        let now = found(&[("d/a", "1"), ("d/b", "2"), ("d/new", "1"), ("other/x", "1")]);
        let drift = known.compare(&now);
        assert_eq!(drift, Drift::Paths(vec!["d/b".into(), "d/c".into(), "d/new".into()]));
        assert!(known.has("d/a") && !known.has("d/b"));
        let mut same = state(&[("d/a", "1")], &["d"]);
        assert_eq!(same.compare(&found(&[("d/a", "1"), ("other/x", "1")])), Drift::None);
    }

    #[test]
    fn a_look_keeps_what_is_known_of_unchanged_objects_and_of_what_was_not_asked() {
        let mut known = state(&[("d/a", "1"), ("d/b", "1"), ("e/c", "1")], &[]);
        let asked = Asked { directories: ["d".to_owned()].into(), ..Asked::default() };
        known.learn(asked, found(&[("d/a", "1"), ("d/new", "2"), ("x/y", "3")]));
        assert_eq!(known.objects.keys().collect::<Vec<_>>(), ["d/a", "d/new", "e/c"]);
        assert_eq!(known.get("d/a").unwrap().md5, Some([7; 16]));
        assert_eq!(known.get("d/new").unwrap().md5, None);
    }
}
