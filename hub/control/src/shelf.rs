//! Observed objects of one kind, by name, kept by a watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use kube::{Resource, runtime::watcher::Event};

/// The namespace (empty if there is none) and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

/// Objects of one kind. A newer copy is never replaced by an older one.
#[derive(Debug)]
pub(crate) struct Shelf<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    /// The newest version that the watch has shown.
    shown: u64,
    /// During a relist: what has been seen of it.
    listing: Option<BTreeSet<ObjectKey>>,
    loaded: bool,
}

/// What an event changed; `None` on the side where the object does not exist.
#[derive(Debug)]
pub(crate) struct Changed<K> {
    pub key: ObjectKey,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(object: &impl Resource) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), shown: 0, listing: None, loaded: false }
    }
}

impl<K: Resource> Shelf<K> {
    /// Takes an event in. After a relist, what was not listed is gone.
    pub(crate) fn take(&mut self, event: Event<K>) -> Vec<Changed<K>> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = ObjectKey::of(&object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(key.clone());
                }
                self.show(key, object)
            }
            Event::InitDone => {
                self.loaded = true;
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<_> =
                    self.objects.keys().filter(|key| !listed.contains(key)).cloned().collect();
                gone.into_iter().filter_map(|key| self.remove(key)).collect()
            }
            Event::Apply(object) => self.show(ObjectKey::of(&object), object),
            Event::Delete(object) => {
                let (key, version) = (ObjectKey::of(&object), version(&object));
                self.shown = self.shown.max(version);
                let newer = self.held(&key).is_some_and(|held| held > version);
                if newer { Vec::new() } else { self.remove(key).into_iter().collect() }
            }
        }
    }

    /// Whether the first list is complete.
    pub(crate) fn loaded(&self) -> bool {
        self.loaded
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<K>)> {
        self.objects.iter()
    }

    /// Takes in what the API answered to a write of ours, before the watch shows it; not if the
    /// watch has gone past it, and so may have shown its end already.
    pub(crate) fn saw(&mut self, object: K) -> Option<Changed<K>> {
        let (key, version) = (ObjectKey::of(&object), version(&object));
        let late = version <= self.shown || self.held(&key).is_some_and(|held| held >= version);
        if late {
            return None;
        }
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        Some(self.put(key, object))
    }

    /// What the watch shows; nothing new if it is held already, or a newer copy is.
    fn show(&mut self, key: ObjectKey, object: K) -> Vec<Changed<K>> {
        let version = version(&object);
        self.shown = self.shown.max(version);
        if version > 0 && self.held(&key).is_some_and(|held| held >= version) {
            return Vec::new();
        }
        vec![self.put(key, object)]
    }

    fn held(&self, key: &ObjectKey) -> Option<u64> {
        self.objects.get(key).map(|held| version(held.as_ref()))
    }

    fn put(&mut self, key: ObjectKey, object: K) -> Changed<K> {
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        Changed { key, old, new: Some(new) }
    }

    fn remove(&mut self, key: ObjectKey) -> Option<Changed<K>> {
        let old = self.objects.remove(&key)?;
        Some(Changed { key, old: Some(old), new: None })
    }
}

/// An object's version, to tell the newer of two copies; 0 if it has none that says so.
pub(crate) fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object
    }

    #[test]
    fn what_a_relist_does_not_name_is_gone() {
        let mut shelf = Shelf::default();
        for event in [Event::Init, Event::InitApply(object("a")), Event::InitApply(object("b"))] {
            shelf.take(event);
        }
        assert!(!shelf.loaded());
        assert!(shelf.take(Event::InitDone).is_empty());
        assert!(shelf.loaded());
        shelf.take(Event::Init);
        shelf.take(Event::InitApply(object("b")));
        let gone = shelf.take(Event::InitDone);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].key, ObjectKey::new("", "a"));
        assert!(gone[0].new.is_none());
    }
}
