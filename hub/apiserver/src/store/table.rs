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

/// Events are kept at least so long, as etcd's history is by a kube-apiserver: a watcher that was away
/// for less resumes where it was.
const KEEP_EVENTS_FOR: Duration = Duration::from_secs(5 * 60);

/// And at least so many of each kind.
const KEEP_EVENTS_MIN: usize = 256;

/// But never more bytes than this for one kind: at 1.5 KiB an event, over 40,000 events.
const KEEP_EVENT_BYTES_MAX: usize = 64 << 20;

/// And never more than this for all kinds: where there is more, each may keep half, a quarter …
const KEEP_ALL_EVENT_BYTES_MAX: usize = 4 * KEEP_EVENT_BYTES_MAX;

/// On a full disk so many of each kind are kept: what a watcher that is connected may be behind.
const KEEP_EVENTS_WHEN_FULL: usize = 16;

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

    /// The revisions of the rows that are not needed once this event is forgotten.
    pub(super) fn lets_go(&self) -> impl Iterator<Item = u64> {
        let before = self.prev.as_ref().map(|prev| prev.revision);
        let own = (self.kind == EventKind::Deleted).then_some(self.object.revision);
        before.into_iter().chain(own)
    }
}

/// How a line of a watch ends.
pub(super) const LINE_TAIL: &[u8] = b"}\n";

/// One line of a watch, `{"type":…,"object":…}`, of the pieces of an object's JSON.
pub(crate) fn watch_line(kind: &str, object: &[&[u8]]) -> Bytes {
    let head: [&[u8]; 3] = [br#"{"type":""#, kind.as_bytes(), br#"","object":"#];
    let pieces = [&head, object, &[LINE_TAIL]].concat();
    pieces.concat().into()
}

/// Everything that is stored, at one revision.
pub(crate) struct State {
    pub(crate) revision: u64,
    /// The bytes of all objects as they are now.
    pub(super) object_bytes: u64,
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
#[derive(Clone, Default)]
pub(super) struct Trimmed {
    pub(super) rows: Vec<u64>,
    pub(super) cuts: Vec<Cut>,
}

/// How much of the events of one kind goes.
#[derive(Clone)]
pub(super) struct Cut {
    pub(super) kind: Arc<str>,
    /// The revision up to which they go.
    pub(super) floor: u64,
    count: usize,
}

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Usual,
    /// As little as can be: the disk is full.
    Least,
}

impl State {
    pub(super) fn new(revision: u64) -> State {
        State { revision, object_bytes: 0, tables: HashMap::new() }
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
        self.load(event, false);
    }

    /// Takes an event from the log; one that is `forgotten` is told to nobody any more, and is
    /// there only because it is an object's current state, or the state before a newer event.
    pub(super) fn load(&mut self, event: Arc<Event>, forgotten: bool) {
        self.revision = event.object.revision;
        let size = |object: &Arc<Object>| object.bytes.len() as u64;
        self.object_bytes -= event.prev.as_ref().map_or(0, size);
        if event.kind != EventKind::Deleted {
            self.object_bytes += size(&event.object);
        }
        let kind = event.object.key.kind.clone();
        self.table(&kind).publish(event, forgotten);
    }

    /// After loading: up to which revision each kind's events are forgotten, and the newest
    /// revision, whose row may be gone.
    pub(super) fn loaded(&mut self, floors: HashMap<String, u64>, revision: u64) {
        self.revision = self.revision.max(revision);
        for (kind, floor) in floors {
            self.table(&kind).floor = floor;
        }
    }

    /// Which events need not be kept any longer, and which rows of the log go with them.
    pub(super) fn trim(&self, now: Instant, keep: Keep) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let share = self.share();
        for (kind, table) in &self.tables {
            if let Some((floor, count)) = table.trim(now, keep, share, &mut trimmed.rows) {
                trimmed.cuts.push(Cut { kind: kind.clone(), floor, count });
            }
        }
        trimmed
    }

    /// Drops events that [`State::trim`] has named, once their rows are gone.
    pub(super) fn forget(&mut self, trimmed: &Trimmed) {
        for Cut { kind, floor, count } in &trimmed.cuts {
            let table = self.table(kind);
            table.floor = *floor;
            for event in table.events.drain(..count) {
                table.event_bytes -= event.object.bytes.len();
            }
        }
    }

    /// The bytes of events that each kind may keep.
    fn share(&self) -> usize {
        let mut share = KEEP_EVENT_BYTES_MAX;
        let kept = |share| self.tables.values().map(move |table| table.event_bytes.min(share));
        while kept(share).sum::<usize>() > KEEP_ALL_EVENT_BYTES_MAX {
            share /= 2;
        }
        share
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

    fn publish(&mut self, event: Arc<Event>, forgotten: bool) {
        let key = &event.object.key;
        let path = (key.namespace.clone(), key.name.clone());
        match event.kind {
            EventKind::Deleted => self.objects.remove(&path),
            _ => self.objects.insert(path, event.object.clone()),
        };
        self.changed_at = event.object.revision;
        if !forgotten {
            self.event_bytes += event.object.bytes.len();
            self.events.push_back(event);
        }
    }

    /// How many of the oldest events may go, and up to which revision; their rows into `rows`.
    fn trim(
        &self,
        now: Instant,
        keep: Keep,
        share: usize,
        rows: &mut Vec<u64>,
    ) -> Option<(u64, usize)> {
        let (mut left, mut bytes) = (self.events.len(), self.event_bytes);
        let mut floor = None;
        for event in &self.events {
            let old = now.duration_since(event.at) > KEEP_EVENTS_FOR;
            let goes = match keep {
                Keep::Usual => bytes > share || (old && left > KEEP_EVENTS_MIN),
                Keep::Least => left > KEEP_EVENTS_WHEN_FULL,
            };
            if !goes {
                break;
            }
            rows.extend(event.lets_go());
            floor = Some(event.object.revision);
            bytes -= event.object.bytes.len();
            left -= 1;
        }
        floor.map(|floor| (floor, self.events.len() - left))
    }
}
