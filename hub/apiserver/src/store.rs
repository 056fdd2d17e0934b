//! The object store: what is the state, and in which order did it change?
//!
//! One revision counter for the whole server. On disk there is one table, the log: revision →
//! what was written. An object's current state is its newest row, so every write is stored once
//! and the log of events *is* the database. In memory there is the newest state of each object as
//! its JSON bytes, and for each kind the ring of its recent events, from which watches are served.
//!
//! One thread writes ([`writer`]): it takes all waiting changes, commits them in one transaction
//! with one fsync, publishes them, and only then answers. Reads never touch the disk.
//!
//! The disk is bounded: history is forgotten ([`table`]), a file that is mostly empty is written
//! anew while the writer goes on ([`copy`]), objects have a quota, and a full disk is met with a
//! reserve ([`reserve`]). After a failed write the database is opened again; reads go on.

mod copy;
mod disk;
mod moved;
mod object;
mod reserve;
mod row;
mod seal;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{Arc, RwLock, RwLockReadGuard},
};

use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use disk::{DiskError, Snapshot};
pub(crate) use moved::Restored;
pub(crate) use object::{Draft, Key, Object, draft};
pub(crate) use seal::Sealing;
pub use seal::{EncryptionKey, KeyFileError};
pub(crate) use table::{Event, EventKind, State, watch_line};

use disk::Disk;
use reserve::Reserve;
use writer::Writer;

/// Changes that may wait for the writer. Each waiting change belongs to one request in flight, and
/// the server admits at most 600 of them; the rest is for its own controllers.
const QUEUE_CHANGES: usize = 1024;

/// How a store is kept.
pub(crate) struct Settings {
    /// The bytes that all objects together may have.
    pub quota_bytes: u64,
    pub sealing: Sealing,
}

/// One change of one object, with what must be true for it to happen.
pub(crate) struct Change {
    pub key: Key,
    /// The revision that the writer of this change has seen; `None`: there must be no such object.
    pub expect: Option<u64>,
    /// Objects that must exist and not be going away (the namespace, the definition of the kind).
    pub guards: Vec<Key>,
    pub action: Action,
}

/// What a [`Change`] does.
pub(crate) enum Action {
    Put(Draft),
    /// Removes the object; watchers are told its last content, if it changed in the same step.
    Remove(Option<Draft>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the object exists already")]
    Exists,
    #[error("the object is gone")]
    Gone,
    #[error("the object has been modified")]
    Modified,
    #[error("{0} does not exist or is being deleted")]
    Guard(Key),
    #[error(
        "the server's objects have {used} bytes of the {quota} that they may have: delete some, or \
         start the server with a larger quota"
    )]
    Quota { used: u64, quota: u64 },
    #[error(
        "the disk is full: make room on the file system of {0}; until then objects can be read and \
         deleted"
    )]
    Full(String),
    #[error("the database cannot be written: {0}")]
    Disk(String),
}

/// Told of each committed event, on the writer's thread: must be quick and must not write.
pub(crate) type Observer = Box<dyn Fn(&Event) + Send + Sync>;

/// The handle to the store; the writer thread ends when the last handle is dropped.
pub(crate) struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
}

struct Shared {
    state: RwLock<State>,
    observers: RwLock<Vec<Observer>>,
}

/// What the writer is told.
enum Message {
    Write(Box<Command>),
    /// Look after the file; answered when it has been looked at.
    Tend(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Result<Snapshot, DiskError>>),
    /// Close the database and end; answered when it is closed.
    Close(oneshot::Sender<()>),
}

struct Command {
    change: Change,
    reply: oneshot::Sender<Result<Arc<Object>, Refusal>>,
}

impl Store {
    /// Opens or makes the database file, reads the state into memory and starts the writer.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Store, DiskError> {
        let Settings { quota_bytes, sealing } = settings;
        let (disk, reserve, state) = open_disk(path, &sealing)?;
        let shared = Arc::new(Shared { state: RwLock::new(state), observers: RwLock::default() });
        let (queue, commands) = mpsc::channel(QUEUE_CHANGES);
        writer::start(Writer::new(disk, reserve, shared.clone(), quota_bytes), commands)?;
        Ok(Store { shared, queue })
    }

    /// Has `observer` told of every event from now on.
    pub(crate) fn observe(&self, observer: Observer) {
        write_lock(&self.shared.observers).push(observer);
    }

    /// Has an observer made from the current state and told of every event after it.
    pub(crate) fn observe_from(&self, make: impl FnOnce(&State) -> Observer) {
        // The writer publishes before it tells: with both locks held, nothing is in between.
        let mut observers = write_lock(&self.shared.observers);
        let observer = make(&read_lock(&self.shared.state));
        observers.push(observer);
    }

    /// Makes a change durable; the answer is the object as written (or as it was when removed).
    pub(crate) async fn commit(&self, change: Change) -> Result<Arc<Object>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Refusal::Disk("the writer has stopped".to_owned());
        let command = Message::Write(Box::new(Command { change, reply }));
        self.queue.send(command).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Has the file looked after: to be called now and then.
    pub(crate) async fn tend(&self) {
        let (reply, done) = oneshot::channel();
        if self.queue.send(Message::Tend(reply)).await.is_ok() {
            // An error means that the writer has ended: there is nothing to look after.
            let _ = done.await;
        }
    }

    /// The database as it is on disk now, to be read while the writer goes on.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, DiskError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || DiskError::Thread(std::io::Error::other("the writer has stopped"));
        self.queue.send(Message::Snapshot(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether there is a writer that takes changes.
    pub(crate) fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Closes the database once everything queued before is written; later changes are refused.
    pub(crate) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            // An error means that the writer has ended, which is what is asked for.
            let _ = closed.await;
        }
    }

    /// The current state, locked for reading: take what is needed and let go, never await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        read_lock(&self.shared.state)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.read().get(key).cloned()
    }

    /// Woken after each event of that kind.
    pub(crate) fn changed(&self, kind: &str) -> Arc<Notify> {
        if let Some(notify) = self.read().notify(kind) {
            return notify;
        }
        write_lock(&self.shared.state).table(kind).notify()
    }
}

/// Opens the database, on a full disk by giving up the reserve.
fn open_disk(path: &Path, sealing: &Sealing) -> Result<(Disk, Reserve, State), DiskError> {
    let mut reserve = Reserve::beside(path);
    let (disk, state) = match Disk::open(path, sealing.clone()) {
        Err(error) if error.is_full() && reserve.give_up() => Disk::open(path, sealing.clone())?,
        opened => opened?,
    };
    Ok((disk, reserve, state))
}

// A poisoned lock means that a reader panicked while holding it: the state itself is only changed
// by the writer, step by step with whole values, so it stays usable.
fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}
