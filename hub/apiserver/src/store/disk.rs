//! The log on disk: one redb table of rows by revision, and a little beside it.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    object::{Key, Meta, Object},
    table::{Event, EventKind, State, Trimmed},
};

/// Revision → row.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Kind → the revision up to which its events have been compacted.
const FLOORS: TableDefinition<&str, u64> = TableDefinition::new("floors");
/// `revision` → the newest revision (it may be of a row that has been compacted); `format`.
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

/// The format of rows; a database of another is refused.
const FORMAT: u64 = 1;

/// The state is served from memory; the database's own page cache only helps the writer.
const PAGE_CACHE_BYTES: usize = 8 << 20;

/// The database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot open the database {path}: {source}")]
    Open { path: PathBuf, source: Box<redb::Error> },
    #[error("cannot make the database {path}: {source}")]
    Create { path: PathBuf, source: std::io::Error },
    #[error("cannot write the database: {0}")]
    Write(Box<redb::Error>),
    #[error("row {0} of the database is damaged: restore it from a backup")]
    Damaged(u64),
    #[error("the database has format {0}, this program knows {FORMAT}: start a newer one")]
    Format(u64),
    #[error("cannot start the writer thread: {0}")]
    Thread(std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> DiskError {
        DiskError::Write(Box::new(error.into()))
    }
}

/// The open database. After a failed write it is closed, and opened again by the next one.
pub(super) struct Disk {
    path: PathBuf,
    database: Option<Database>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Disk, State), DiskError> {
        create_private(path)
            .map_err(|source| DiskError::Create { path: path.to_owned(), source })?;
        let disk = Disk { path: path.to_owned(), database: Some(open_database(path)?) };
        let state = disk.load()?;
        Ok((disk, state))
    }

    /// Commits events, and what compaction lets go, in one transaction with one fsync.
    pub(super) fn commit(
        &mut self,
        events: &[Arc<Event>],
        trimmed: &Trimmed,
    ) -> Result<(), DiskError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        write(&database, events, trimmed)?;
        self.database = Some(database);
        Ok(())
    }

    fn load(&self) -> Result<State, DiskError> {
        let mut state = State::new(0);
        let Some(database) = &self.database else { return Ok(state) };
        let read = database.begin_read()?;
        for row in read.open_table(LOG)?.range(0..)? {
            let (revision, row) = row?;
            let event = decode(revision.value(), row.value(), &state)
                .ok_or(DiskError::Damaged(revision.value()))?;
            state.publish(Arc::new(event));
        }
        let mut floors = HashMap::new();
        for floor in read.open_table(FLOORS)?.range::<&str>(..)? {
            let (kind, revision) = floor?;
            floors.insert(kind.value().to_owned(), revision.value());
        }
        let revision = read.open_table(FACTS)?.get("revision")?.map_or(0, |value| value.value());
        state.loaded(floors, revision);
        Ok(state)
    }
}

/// The file holds Secrets: made readable by its owner alone before anything is in it.
fn create_private(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.flush()
}

fn open_database(path: &Path) -> Result<Database, DiskError> {
    let failed =
        |error: redb::Error| DiskError::Open { path: path.to_owned(), source: Box::new(error) };
    let database = Database::builder()
        .set_cache_size(PAGE_CACHE_BYTES)
        .create(path)
        .map_err(|error| failed(error.into()))?;
    let setup = database.begin_write()?;
    setup.open_table(LOG)?;
    setup.open_table(FLOORS)?;
    let format = {
        let mut facts = setup.open_table(FACTS)?;
        let format = facts.get("format")?.map(|value| value.value());
        facts.insert("format", format.unwrap_or(FORMAT))?;
        format.unwrap_or(FORMAT)
    };
    if format != FORMAT {
        return Err(DiskError::Format(format));
    }
    setup.commit()?;
    Ok(database)
}

fn write(database: &Database, events: &[Arc<Event>], trimmed: &Trimmed) -> Result<(), DiskError> {
    let transaction = database.begin_write()?;
    {
        let mut log = transaction.open_table(LOG)?;
        for event in events {
            log.insert(event.object.revision, encode(event).as_slice())?;
        }
        for revision in &trimmed.rows {
            log.remove(revision)?;
        }
        let mut floors = transaction.open_table(FLOORS)?;
        for (kind, floor) in &trimmed.floors {
            floors.insert(&**kind, floor)?;
        }
        if let Some(last) = events.last() {
            transaction.open_table(FACTS)?.insert("revision", last.object.revision)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

// A row: what happened (1 byte), where the resource version stands (u32), then kind, namespace
// and name (each u16 length and bytes), then the object's JSON. Integers are little-endian.

fn encode(event: &Event) -> Vec<u8> {
    let object = &event.object;
    let mut row = Vec::with_capacity(object.bytes.len() + 64);
    row.push(u8::from(event.kind == EventKind::Deleted));
    row.extend_from_slice(&(object.version_at.start as u32).to_le_bytes());
    for text in [&*object.key.kind, &object.key.namespace, &object.key.name] {
        row.extend_from_slice(&(text.len() as u16).to_le_bytes());
        row.extend_from_slice(text.as_bytes());
    }
    row.extend_from_slice(&object.bytes);
    row
}

fn decode(revision: u64, row: &[u8], state: &State) -> Option<Event> {
    let (deleted, row) = row.split_first()?;
    let (start, mut row) = row.split_first_chunk::<4>()?;
    let start = u32::from_le_bytes(*start) as usize;
    let mut text = || {
        let (length, rest) = row.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        row = rest;
        String::from_utf8(text.to_vec()).ok()
    };
    let key = Key { kind: text()?.into(), namespace: text()?, name: text()? };
    let meta = Meta::of_bytes(row).ok()?;
    let version_at = start..start + revision.to_string().len();
    row.get(version_at.clone())?;
    let prev = state.get(&key).cloned();
    let kind = match (*deleted, &prev) {
        (1, _) => EventKind::Deleted,
        (_, None) => EventKind::Added,
        (_, Some(_)) => EventKind::Modified,
    };
    let bytes = bytes::Bytes::copy_from_slice(row);
    Some(Event::new(kind, Arc::new(Object { key, revision, bytes, meta, version_at }), prev))
}
