//! Who may write where? A path that two placements want belongs to the first.

use std::collections::BTreeMap;

use muster_core::directory::join;

use crate::layout::{LISTS, Mode, Placed, Root};

/// A path that a placement wants and another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The path, from the store's top.
    pub path: String,
    /// Who has it, for people.
    pub holder: String,
}

impl Collision {
    /// The cause and the cure.
    pub fn message(&self) -> String {
        format!(
            "{:?} is written by {} already, and two cannot share it: name the file otherwise in \
             the pipeline, or give one of the two another destination",
            self.path, self.holder
        )
    }
}

/// Of one Destination's placements, in order of precedence, those that may not be written, by
/// their position.
pub fn collisions(root: &Root, placements: &[Placed<'_>]) -> BTreeMap<usize, Collision> {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let reserved = "the hub's own files".to_owned();
    taken.extend(root.canary_paths().map(|path| (path, reserved.clone())));
    if *root.mode() == Mode::Flat {
        taken.insert(join(root.directory(), LISTS), reserved);
    }
    let mut found = BTreeMap::new();
    for (index, placed) in placements.iter().enumerate() {
        let wanted = match root.mode() {
            Mode::Nested => vec![root.nested(placed)],
            Mode::Aggregated(_) => Vec::new(),
            Mode::Flat => placed.paths.iter().map(|path| join(root.directory(), path)).collect(),
        };
        match wanted.iter().find_map(|path| touching(&taken, path)) {
            Some(collision) => drop(found.insert(index, collision)),
            None => {
                let owner = format!("WorkPlacement {}/{}", placed.namespace, placed.name);
                taken.extend(wanted.into_iter().map(|path| (path, owner.clone())));
            }
        }
    }
    found
}

/// What is at a path, above it, or below it.
fn touching(taken: &BTreeMap<String, String>, path: &str) -> Option<Collision> {
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    let at = ends.filter_map(|end| taken.get_key_value(&path[..end])).next();
    let inside = format!("{path}/");
    let below = taken.range(inside.clone()..).next().filter(|(held, _)| held.starts_with(&inside));
    at.or(below).map(|(held, holder)| Collision { path: held.clone(), holder: holder.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed<'a>(name: &'a str, paths: &[&'a str]) -> Placed<'a> {
        Placed {
            namespace: "default",
            name,
            promise: "web",
            resource: Some(("default", name)),
            pipeline: "main",
            id: "5058f1af",
            paths: paths.to_vec(),
        }
    }

    #[test]
    fn the_first_keeps_a_path_that_two_want() {
        let root = Root::new("", "dev", Mode::Flat).unwrap();
        for (second, at) in [
            ("a.yaml", "dev/a.yaml"),
            ("a.yaml/b", "dev/a.yaml"),
            ("sub", "dev/sub/x"),
            (".kratix/x", "dev/.kratix"),
            ("kratix-canary-namespace.yaml", "dev/kratix-canary-namespace.yaml"),
        ] {
            let both = [placed("one", &["a.yaml", "sub/x"]), placed("two", &["ok", second])];
            let found = collisions(&root, &both);
            assert_eq!(found.keys().collect::<Vec<_>>(), [&1], "{second}");
            assert_eq!(found[&1].path, at);
        }
        let apart = [placed("one", &["a.yaml"]), placed("two", &["a.yaml2", "b"])];
        assert!(collisions(&root, &apart).is_empty());
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let root = Root::new("", "dev", Mode::Flat).unwrap();
        let all = [placed("one", &["a"]), placed("two", &["a", "b"]), placed("three", &["b"])];
        assert_eq!(collisions(&root, &all).keys().collect::<Vec<_>>(), [&1]);
    }

    #[test]
    fn requests_of_one_name_collide_where_metadata_alone_names_them() {
        let root = Root::new("", "dev", Mode::Nested).unwrap();
        let mut other = placed("two", &[]);
        other.resource = Some(("default", "one"));
        let found = collisions(&root, &[placed("one", &[]), other]);
        assert!(found[&1].message().contains("WorkPlacement default/one"), "{found:?}");
    }
}
