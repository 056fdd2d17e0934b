//! Which directories of state stores are taken, and by whom: asked at each Destination's creation,
//! so that it must not cost more the more there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use muster_api::{
    Destination,
    destination::{StateStoreKind, StateStoreRef},
};
use muster_core::directory;

/// A directory of a state store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    kind: StateStoreKind,
    pub(super) store: String,
    /// Normal form: no slash at either end; empty for the top.
    pub(super) directory: String,
}

impl Place {
    /// Where a Destination's files go; `None` for one without a store, or without a valid path.
    pub fn of(destination: &Destination) -> Option<Self> {
        let StateStoreRef { kind, name } = destination.spec.state_store_ref.as_ref()?;
        let path = destination.spec.path.as_deref().unwrap_or_default();
        let directory = directory::parse(path).ok()?;
        Some(Self { kind: *kind, store: name.clone(), directory })
    }
}

/// Places of Destinations, found by store and directory.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Who holds each directory of a store. More than one can: rules came later than some objects.
    stores: HashMap<(StateStoreKind, String), BTreeMap<String, BTreeSet<String>>>,
}

/// Whose place is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTheWay {
    /// The Destination.
    pub destination: String,
    /// Its directory.
    pub directory: String,
}

impl Places {
    /// A Destination is at a place.
    pub fn put(&mut self, place: &Place, destination: &str) {
        let store = self.stores.entry((place.kind, place.store.clone())).or_default();
        store.entry(place.directory.clone()).or_default().insert(destination.to_owned());
    }

    /// A Destination is no longer at a place.
    pub fn take(&mut self, place: &Place, destination: &str) {
        let key = (place.kind, place.store.clone());
        let Some(store) = self.stores.get_mut(&key) else { return };
        if let Some(held) = store.get_mut(&place.directory) {
            held.remove(destination);
            if held.is_empty() {
                store.remove(&place.directory);
            }
        }
        if store.is_empty() {
            self.stores.remove(&key);
        }
    }

    /// Another Destination at this place, at one that holds it, or at one inside it.
    pub fn in_the_way(&self, place: &Place, destination: &str) -> Option<InTheWay> {
        let store = self.stores.get(&(place.kind, place.store.clone()))?;
        let other = |(directory, held): (&String, &BTreeSet<String>)| {
            let other = held.iter().find(|name| *name != destination)?;
            Some(InTheWay { destination: other.clone(), directory: directory.clone() })
        };
        let at = |directory: &str| store.get_key_value(directory).and_then(other);
        let parents = place.directory.match_indices('/').map(|(end, _)| &place.directory[..end]);
        let top = (!place.directory.is_empty()).then_some("");
        let outside = || top.into_iter().chain(parents).find_map(at);
        let inside = || {
            let from = match place.directory.as_str() {
                "" => String::new(),
                directory => format!("{directory}/"),
            };
            let range = (Bound::Included(from.clone()), Bound::Unbounded);
            let below = store.range::<String, _>(range);
            below.take_while(|(directory, _)| directory.starts_with(&from)).find_map(other)
        };
        at(&place.directory).or_else(outside).or_else(inside)
    }
}

#[cfg(test)]
mod tests {
    use muster_api::DestinationSpec;
    use proptest::prelude::*;

    use super::*;

    fn place(store: &str, path: &str) -> Place {
        let spec = DestinationSpec {
            path: Some(path.into()),
            state_store_ref: Some(StateStoreRef { name: store.into(), ..Default::default() }),
            ..Default::default()
        };
        Place::of(&Destination::new("any", spec)).unwrap()
    }

    #[test]
    fn what_was_taken_is_free_again() {
        let mut places = Places::default();
        places.put(&place("hub", "a/b"), "one");
        let found = places.in_the_way(&place("hub", "a"), "two").unwrap();
        assert_eq!((found.destination.as_str(), found.directory.as_str()), ("one", "a/b"));
        assert_eq!(places.in_the_way(&place("hub", "a"), "one"), None, "it may move itself");
        assert_eq!(places.in_the_way(&place("other", "a/b"), "two"), None, "another store");
        places.take(&place("hub", "a/b"), "one");
        assert_eq!(places.in_the_way(&place("hub", "a"), "two"), None);
        assert!(places.stores.is_empty());
    }

    proptest! {
        /// The index finds something exactly where a look at all of them would.
        #[test]
        fn it_finds_what_a_look_at_all_finds(
            held in proptest::collection::vec("[ab]{1,2}(/[ab]{1,2}){0,2}|", 0..8),
            asked in "[ab]{1,2}(/[ab]{1,2}){0,2}|",
        ) {
            let mut places = Places::default();
            for (index, path) in held.iter().enumerate() {
                places.put(&place("hub", path), &index.to_string());
            }
            let found = places.in_the_way(&place("hub", &asked), "new").is_some();
            let slow = held.iter().any(|path| *path == asked || directory::overlap(path, &asked));
            prop_assert_eq!(found, slow);
        }
    }
}
