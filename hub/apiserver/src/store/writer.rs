//! The one thread that changes state: takes what is waiting, commits it, publishes it, answers.

use std::{collections::HashMap, sync::Arc, thread, time::Instant};

use tokio::sync::{mpsc, oneshot};

use super::{
    Action, Change, Command, Message, Refusal, Shared,
    disk::{Disk, DiskError},
    object::{Draft, Key, Object},
    read_lock,
    reserve::{RESERVE_BYTES, Reserve},
    table::{Event, EventKind, Keep, State, Trimmed},
    write_lock,
};

/// Changes committed with one fsync at most: enough that the fsync is not felt, few enough that
/// the first of them does not wait long for the last.
const BATCH_CHANGES: usize = 256;

/// Existing objects may grow beyond the quota by a tenth of it, so that controllers can still say
/// in a status what is wrong, and objects can be changed so that they go.
const QUOTA_HEADROOM: u64 = 10;

/// Where changes come from, and answers go.
type Answer = (oneshot::Sender<Result<Arc<Object>, Refusal>>, Result<Arc<Object>, Refusal>);

/// The writer's own.
pub(super) struct Writer {
    disk: Disk,
    reserve: Reserve,
    shared: Arc<Shared>,
    quota: u64,
}

/// Runs the writer on a thread of its own.
pub(super) fn start(
    mut writer: Writer,
    mut messages: mpsc::Receiver<Message>,
) -> Result<(), DiskError> {
    let run = move || {
        let mut waiting = Vec::with_capacity(BATCH_CHANGES);
        while messages.blocking_recv_many(&mut waiting, BATCH_CHANGES) > 0 {
            let mut commands = Vec::with_capacity(waiting.len());
            let (mut closing, mut others) = (Vec::new(), Vec::new());
            for message in waiting.drain(..) {
                match message {
                    Message::Write(command) => commands.push(*command),
                    Message::Close(reply) => closing.push(reply),
                    other => others.push(other),
                }
            }
            writer.write(commands);
            others.into_iter().for_each(|message| writer.serve(message));
            if !closing.is_empty() {
                drop(writer);
                for reply in closing {
                    // Whoever asked may have gone away.
                    let _ = reply.send(());
                }
                return;
            }
        }
    };
    thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(run)
        .map(drop)
        .map_err(DiskError::Thread)
}

impl Writer {
    pub(super) fn new(disk: Disk, reserve: Reserve, shared: Arc<Shared>, quota: u64) -> Writer {
        Writer { disk, reserve, shared, quota }
    }

    fn serve(&mut self, message: Message) {
        match message {
            Message::Tend(reply) => {
                // Without changes, too, what is old goes.
                self.write_down(&mut Vec::new(), &[]);
                self.tend();
                // Whoever asked may have gone away.
                let _ = reply.send(());
            }
            Message::Snapshot(reply) => drop(reply.send(self.disk.snapshot())),
            Message::Write(_) | Message::Close(_) => {}
        }
    }

    fn tend(&mut self) {
        if self.reserve.is_held() {
            return self.disk.tend();
        }
        if let Err(error) = self.disk.shrink() {
            tracing::warn!(%error, "the database on a full disk is not made smaller");
        }
    }

    fn write(&mut self, commands: Vec<Command>) {
        let limits = Limits {
            quota: self.quota,
            full: (!self.reserve.is_held()).then(|| self.disk.place()),
        };
        let mut batch = Batch::new(&read_lock(&self.shared.state), limits);
        let mut answers: Vec<Answer> = Vec::new();
        for Command { change, reply } in commands {
            let outcome = batch.accept(&read_lock(&self.shared.state), change);
            answers.push((reply, outcome));
        }
        if !batch.events.is_empty() {
            self.write_down(&mut answers, &batch.events);
        }
        for (reply, outcome) in answers {
            // A requester that has gone away does not need its answer.
            let _ = reply.send(outcome);
        }
    }

    /// Makes events durable, lets go of old ones, and tells all who wait.
    fn write_down(&mut self, answers: &mut [Answer], events: &[Arc<Event>]) {
        let keep = if self.reserve.is_held() { Keep::Usual } else { Keep::Least };
        let trimmed = read_lock(&self.shared.state).trim(Instant::now(), keep);
        if events.is_empty() && trimmed.cuts.is_empty() {
            return;
        }
        match self.commit(events, trimmed) {
            Ok(trimmed) => publish(&self.shared, events, &trimmed),
            Err(error) => self.refuse(answers, &error),
        }
    }

    /// Commits; on a full disk once more with the reserve's room, if it is enough.
    fn commit(&mut self, events: &[Arc<Event>], trimmed: Trimmed) -> Result<Trimmed, DiskError> {
        match self.disk.commit(events, &trimmed) {
            Ok(()) => Ok(trimmed),
            Err(error) if error.is_full() && self.reserve.give_up() => {
                let bytes: usize = events.iter().map(|event| event.object.bytes.len()).sum();
                if bytes as u64 > RESERVE_BYTES / 4 {
                    return Err(error);
                }
                let trimmed = read_lock(&self.shared.state).trim(Instant::now(), Keep::Least);
                self.disk.commit(events, &trimmed).map(|()| trimmed)
            }
            Err(error) => Err(error),
        }
    }

    fn refuse(&self, answers: &mut [Answer], error: &DiskError) {
        tracing::error!(%error, "a group of changes could not be written");
        for (_, outcome) in answers.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
            *outcome = Err(match error.is_full() {
                true => Refusal::Full(self.disk.place()),
                false => Refusal::Disk(error.to_string()),
            });
        }
    }
}

fn publish(shared: &Shared, events: &[Arc<Event>], trimmed: &Trimmed) {
    let mut notifies = Vec::new();
    {
        let mut state = write_lock(&shared.state);
        state.forget(trimmed);
        for event in events {
            state.publish(event.clone());
            notifies.extend(state.notify(&event.object.key.kind));
        }
    }
    for event in events {
        for observer in read_lock(&shared.observers).iter() {
            observer(event);
        }
    }
    for notify in notifies {
        notify.notify_waiters();
    }
}

/// What a batch must not go beyond.
struct Limits {
    quota: u64,
    /// The disk is full: where there must be room before anything may grow.
    full: Option<String>,
}

/// The changes accepted so far, on top of the published state.
struct Batch {
    limits: Limits,
    revision: u64,
    /// The bytes of all objects after them.
    bytes: u64,
    events: Vec<Arc<Event>>,
    newest: HashMap<Key, Option<Arc<Object>>>,
}

impl Batch {
    fn new(state: &State, limits: Limits) -> Batch {
        let (revision, bytes) = (state.revision, state.object_bytes);
        Batch { limits, revision, bytes, events: Vec::new(), newest: HashMap::new() }
    }

    fn accept(&mut self, state: &State, change: Change) -> Result<Arc<Object>, Refusal> {
        for guard in change.guards {
            if self.current(state, &guard).is_none_or(|object| object.meta.deleting()) {
                return Err(Refusal::Guard(guard));
            }
        }
        let current = self.current(state, &change.key);
        match (&current, change.expect) {
            (Some(_), None) => return Err(Refusal::Exists),
            (None, Some(_)) => return Err(Refusal::Gone),
            (Some(object), Some(seen)) if object.revision != seen => return Err(Refusal::Modified),
            _ => {}
        }
        if let Action::Put(draft) = &change.action {
            self.admit(draft, current.as_deref())?;
        }
        self.revision += 1;
        let kind = match (&change.action, &current) {
            (Action::Put(_), None) => EventKind::Added,
            (Action::Put(_), Some(_)) => EventKind::Modified,
            (Action::Remove(_), _) => EventKind::Deleted,
        };
        let object = match (change.action, &current) {
            (Action::Put(draft) | Action::Remove(Some(draft)), _) => {
                Object::new(kind, change.key, self.revision, draft)
            }
            (Action::Remove(None), Some(current)) => current.at_revision(self.revision),
            (Action::Remove(None), None) => return Err(Refusal::Gone),
        };
        let object = Arc::new(object);
        self.bytes -= current.as_ref().map_or(0, |current| current.bytes.len() as u64);
        if kind != EventKind::Deleted {
            self.bytes += object.bytes.len() as u64;
        }
        let now = (kind != EventKind::Deleted).then(|| object.clone());
        self.newest.insert(object.key.clone(), now);
        self.events.push(Arc::new(Event::new(kind, object.clone(), current)));
        Ok(object)
    }

    /// Refuses growth where there is no room for it; what is on its way out may be written always.
    fn admit(&self, draft: &Draft, current: Option<&Object>) -> Result<(), Refusal> {
        let before = current.map_or(0, |current| current.bytes.len() as u64);
        let grown = draft.size().saturating_sub(before);
        if grown == 0 || draft.meta.deleting() {
            return Ok(());
        }
        if let Some(place) = &self.limits.full {
            return Err(Refusal::Full(place.clone()));
        }
        let quota = self.limits.quota;
        let limit = if current.is_some() { quota + quota / QUOTA_HEADROOM } else { quota };
        match self.bytes + grown > limit {
            true => Err(Refusal::Quota { used: self.bytes, quota }),
            false => Ok(()),
        }
    }

    fn current(&self, state: &State, key: &Key) -> Option<Arc<Object>> {
        match self.newest.get(key) {
            Some(newest) => newest.clone(),
            None => state.get(key).cloned(),
        }
    }
}
