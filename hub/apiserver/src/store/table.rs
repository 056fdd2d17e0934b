//! The state in memory: each kind's objects in order, and the ring of its recent events.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::object::{Key, Object};

/// Events are kept at least so long: a watcher that was away for less resumes where it was.
const KEEP_EVENTS_FOR: Duration = Duration::from_secs(5 * 60);

/// And at least four times as many as there are objects, so that a change of all of them (a
/// restart of a fleet, say) leaves no watcher behind.
const KEEP_EVENTS_PER_OBJECT: usize = 4;

/// And at least so many of each kind.
const KEEP_EVENTS_MIN: usize = 256;

/// But never more bytes than this for one kind: at 1.5 KiB an event, over 40,000 events.
const KEEP_EVENT_BYTES_MAX: usize = 64 << 20;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

/// One committed change.
#[derive(Debug)]
pub(crate) struct Event {
    pub kind: EventKind,
    /// The object after the change; when deleted, its last content under the new revision.
    pub object: Arc<Object>,
    /// The object before the change.
    pub prev: Option<Arc<Object>>,
    pub(super) at: Instant,
}

impl Event {
    pub(super) fn new(kind: EventKind, object: Arc<Object>, prev: Option<Arc<Object>>) -> Event {
        Event { kind, object, prev, at: Instant::now() }
    }
}

/// One line of a watch: `{"type":…,"object":…}`.
pub(crate) fn watch_line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(br#"{"type":""#);
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(br#"","object":"#);
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// Everything that is stored, at one revision.
pub(crate) struct State {
    pub(crate) revision: u64,
    tables: HashMap<Arc<str>, Table>,
}

/// The objects of one kind, by (namespace, name), and its recent events by revision.
pub(crate) struct Table {
    objects: BTreeMap<(String, String), Arc<Object>>,
    events: VecDeque<Arc<Event>>,
    event_bytes: usize,
    /// Events up to this revision are no longer kept.
    floor: u64,
    changed_at: u64,
    notify: Arc<Notify>,
}

/// Namespace and name.
type Path = (String, String);

/// What objects were at an earlier revision; `None`: not there.
pub(crate) type Then = BTreeMap<Path, Option<Arc<Object>>>;

/// The revision asked for is older than what is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The oldest revision from which events can be told.
    pub oldest: u64,
}

/// What compaction lets go of.
#[derive(Default)]
pub(super) struct Trimmed {
    pub(super) rows: Vec<u64>,
    pub(super) floors: Vec<(Arc<str>, u64)>,
}

impl State {
    pub(super) fn new(revision: u64) -> State {
        State { revision, tables: HashMap::new() }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        let table = self.tables.get(&key.kind)?;
        table.objects.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All objects of a kind in order of namespace and name, in one namespace or in all,
    /// beginning after `after`.
    pub(crate) fn list(
        &self,
        kind: &str,
        namespace: Option<&str>,
        after: Option<&(String, String)>,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let namespace = namespace.map(str::to_owned);
        let table = self.tables.get(kind);
        table
            .into_iter()
            .flat_map(move |table| table.objects.range((start.clone(), Bound::Unbounded)))
            .take_while(move |((ns, _), _)| namespace.as_ref().is_none_or(|want| want == ns))
            .map(|(_, object)| object)
    }

    /// The newest revision in which an object of this kind changed.
    pub(crate) fn changed_at(&self, kind: &str) -> u64 {
        self.tables.get(kind).map_or(0, |table| table.changed_at)
    }

    /// Kinds that have, or had, objects.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tables.keys()
    }

    /// Up to `max` events of a kind after a revision, in order.
    pub(crate) fn events_after(
        &self,
        kind: &str,
        revision: u64,
        max: usize,
    ) -> Result<Vec<Arc<Event>>, Expired> {
        let Some(table) = self.tables.get(kind) else { return Ok(Vec::new()) };
        if revision < table.floor {
            return Err(Expired { oldest: table.floor });
        }
        let first = table.events.partition_point(|event| event.object.revision <= revision);
        Ok(table.events.iter().skip(first).take(max).cloned().collect())
    }

    /// What each object that changed after `revision` was at that revision: newest state minus
    /// what happened since. `None` for objects that did not exist then.
    pub(crate) fn before(&self, kind: &str, revision: u64) -> Result<Then, Expired> {
        let mut then = BTreeMap::new();
        let Some(table) = self.tables.get(kind) else { return Ok(then) };
        if revision < table.floor {
            return Err(Expired { oldest: table.floor });
        }
        for event in table.events.iter().rev() {
            if event.object.revision <= revision {
                break;
            }
            let key = &event.object.key;
            then.insert((key.namespace.clone(), key.name.clone()), event.prev.clone());
        }
        Ok(then)
    }

    pub(super) fn notify(&self, kind: &str) -> Option<Arc<Notify>> {
        self.tables.get(kind).map(|table| table.notify.clone())
    }

    pub(super) fn table(&mut self, kind: &str) -> &mut Table {
        self.tables.entry(kind.into()).or_insert_with(Table::new)
    }

    pub(super) fn publish(&mut self, event: Arc<Event>) {
        self.revision = event.object.revision;
        let kind = event.object.key.kind.clone();
        self.table(&kind).publish(event);
    }

    /// After loading: drops the rows up to each floor from the rings. They were kept in the log
    /// only because they are an object's current state, or the state before a newer event.
    pub(super) fn loaded(&mut self, floors: HashMap<String, u64>, revision: u64) {
        self.revision = self.revision.max(revision);
        for (kind, floor) in floors {
            let table = self.table(&kind);
            table.floor = floor;
            let old = table.events.partition_point(|event| event.object.revision <= floor);
            table.events.drain(..old);
        }
        for table in self.tables.values_mut() {
            table.event_bytes = table.events.iter().map(|event| event.object.bytes.len()).sum();
        }
    }

    /// Drops events that need not be kept any longer, and says which rows of the log go with them.
    pub(super) fn trim(&mut self, now: Instant) -> Trimmed {
        let mut trimmed = Trimmed::default();
        for (kind, table) in &mut self.tables {
            if table.trim(now, &mut trimmed.rows) {
                trimmed.floors.push((kind.clone(), table.floor));
            }
        }
        trimmed
    }
}

impl Table {
    fn new() -> Table {
        Table {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            floor: 0,
            changed_at: 0,
            notify: Arc::default(),
        }
    }

    pub(super) fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }

    fn publish(&mut self, event: Arc<Event>) {
        let key = &event.object.key;
        let path = (key.namespace.clone(), key.name.clone());
        match event.kind {
            EventKind::Deleted => self.objects.remove(&path),
            _ => self.objects.insert(path, event.object.clone()),
        };
        self.changed_at = event.object.revision;
        self.event_bytes += event.object.bytes.len();
        self.events.push_back(event);
    }

    fn trim(&mut self, now: Instant, rows: &mut Vec<u64>) -> bool {
        let enough = (self.objects.len() * KEEP_EVENTS_PER_OBJECT).max(KEEP_EVENTS_MIN);
        let before = self.floor;
        while let Some(oldest) = self.events.front() {
            let old = now.duration_since(oldest.at) > KEEP_EVENTS_FOR;
            let heavy = self.event_bytes > KEEP_EVENT_BYTES_MAX;
            if !(heavy || (old && self.events.len() > enough)) {
                break;
            }
            self.floor = oldest.object.revision;
            self.event_bytes -= oldest.object.bytes.len();
            rows.extend(oldest.prev.as_ref().map(|prev| prev.revision));
            if oldest.kind == EventKind::Deleted {
                rows.push(oldest.object.revision);
            }
            self.events.pop_front();
        }
        self.floor != before
    }
}
