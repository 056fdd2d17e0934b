//! The one thread that changes state: takes what is waiting, commits it, publishes it, answers.

use std::{collections::HashMap, sync::Arc, thread, time::Instant};

use tokio::sync::{mpsc, oneshot};

use super::{
    Action, Change, Command, Message, Refusal, Shared,
    disk::{Disk, DiskError},
    object::{Key, Object},
    read_lock,
    table::{Event, EventKind, State},
    write_lock,
};

/// Changes committed with one fsync at most: enough that the fsync is not felt, few enough that
/// the first of them does not wait long for the last.
const BATCH_CHANGES: usize = 256;

/// Where changes come from, and answers go.
type Answer = (oneshot::Sender<Result<Arc<Object>, Refusal>>, Result<Arc<Object>, Refusal>);

pub(super) fn start(
    mut disk: Disk,
    shared: Arc<Shared>,
    mut messages: mpsc::Receiver<Message>,
) -> Result<(), DiskError> {
    let run = move || {
        let mut waiting = Vec::with_capacity(BATCH_CHANGES);
        while messages.blocking_recv_many(&mut waiting, BATCH_CHANGES) > 0 {
            let mut commands = Vec::with_capacity(waiting.len());
            let mut closing = Vec::new();
            for message in waiting.drain(..) {
                match message {
                    Message::Write(command) => commands.push(*command),
                    Message::Close(reply) => closing.push(reply),
                }
            }
            write_batch(&mut disk, &shared, commands);
            if !closing.is_empty() {
                drop(disk);
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

fn write_batch(disk: &mut Disk, shared: &Shared, commands: Vec<Command>) {
    let mut batch = Batch::new(read_lock(&shared.state).revision);
    let mut answers: Vec<Answer> = Vec::new();
    for Command { change, reply } in commands {
        let outcome = batch.accept(&read_lock(&shared.state), change);
        answers.push((reply, outcome));
    }
    if !batch.events.is_empty() {
        let trimmed = write_lock(&shared.state).trim(Instant::now());
        match disk.commit(&batch.events, &trimmed) {
            Ok(()) => publish(shared, &batch.events),
            Err(error) => refuse(&mut answers, &error),
        }
    }
    for (reply, outcome) in answers {
        // A requester that has gone away does not need its answer.
        let _ = reply.send(outcome);
    }
}

fn publish(shared: &Shared, events: &[Arc<Event>]) {
    let mut notifies = Vec::new();
    {
        let mut state = write_lock(&shared.state);
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

fn refuse(answers: &mut [Answer], error: &DiskError) {
    tracing::error!(%error, "a group of changes could not be written");
    for (_, outcome) in answers.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
        *outcome = Err(Refusal::Disk(error.to_string()));
    }
}

/// The changes accepted so far, on top of the published state.
struct Batch {
    revision: u64,
    events: Vec<Arc<Event>>,
    newest: HashMap<Key, Option<Arc<Object>>>,
}

impl Batch {
    fn new(revision: u64) -> Batch {
        Batch { revision, events: Vec::new(), newest: HashMap::new() }
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
        self.revision += 1;
        let (kind, object) = match change.action {
            Action::Put(draft) if current.is_none() => {
                (EventKind::Added, Object::new(change.key, self.revision, draft))
            }
            Action::Put(draft) => {
                (EventKind::Modified, Object::new(change.key, self.revision, draft))
            }
            Action::Remove(Some(draft)) => {
                (EventKind::Deleted, Object::new(change.key, self.revision, draft))
            }
            Action::Remove(None) => {
                let Some(current) = &current else { return Err(Refusal::Gone) };
                (EventKind::Deleted, current.at_revision(self.revision))
            }
        };
        let object = Arc::new(object);
        let now = (kind != EventKind::Deleted).then(|| object.clone());
        self.newest.insert(object.key.clone(), now);
        self.events.push(Arc::new(Event::new(kind, object.clone(), current)));
        Ok(object)
    }

    fn current(&self, state: &State, key: &Key) -> Option<Arc<Object>> {
        match self.newest.get(key) {
            Some(newest) => newest.clone(),
            None => state.get(key).cloned(),
        }
    }
}
