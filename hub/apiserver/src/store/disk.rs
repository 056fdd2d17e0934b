//! The log on disk: one redb table of rows by revision, and a little beside it.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, TableDefinition, TableError,
};

use super::{
    copy::{self, Copying},
    reserve::{self, RESERVE_BYTES},
    row::{self, Unreadable},
    seal::{KeyId, Sealing},
    table::{Event, State, Trimmed},
};

/// Revision → row.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Kind → the revision up to which its events have been compacted.
pub(super) const FLOORS: TableDefinition<&str, u64> = TableDefinition::new("floors");
/// `revision` → the newest revision (it may be of a row that has been compacted); `format`.
pub(super) const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

/// The format of the database. An older one is migrated when it is opened, a newer one refused.
///
/// 1: the first. 2: the objects in rows may be encrypted.
pub(super) const FORMAT: u64 = 2;

/// The state is served from memory; the database's own page cache only helps the writer.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// A file below this size is not worth compacting.
const COMPACT_ABOVE_BYTES: u64 = 32 << 20;

/// A file is compacted when it has so many times the bytes of its rows: a fresh one has up to two
/// times (rows fill pages, or powers of two of them), and copying what is left should free at
/// least as much as it writes.
const COMPACT_RATIO: u64 = 4;

/// A copy is made where so much is free besides what it may take; else the file is made smaller
/// where it is, which holds the writer up.
const ROOM_BYTES: u64 = 4 * RESERVE_BYTES;

/// The database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot open the database {path}: {source}")]
    Open { path: PathBuf, source: Box<redb::Error> },
    #[error("cannot make or replace the database {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot write the database: {0}")]
    Write(Box<redb::Error>),
    #[error("row {0} of the database is damaged: restore it from a backup")]
    Damaged(u64),
    #[error(
        "the database {path} has format {found}, and this program knows {FORMAT}: start the newer \
         program that wrote it, or restore a backup into an empty directory"
    )]
    Format { path: PathBuf, found: u64 },
    #[error(
        "Secrets in the database are encrypted with the key {0}, which is not given: give its key \
         file, too"
    )]
    Key(KeyId),
    #[error("a Secret cannot be encrypted: this host gives no randomness")]
    Seal,
    #[error("cannot start the writer thread: {0}")]
    Thread(std::io::Error),
}

impl DiskError {
    /// The disk, or the user's share of it, is full.
    pub(super) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let io = match self {
            DiskError::Open { source, .. } | DiskError::Write(source) => match &**source {
                redb::Error::Io(io) => io,
                _ => return false,
            },
            DiskError::File { source, .. } => source,
            _ => return false,
        };
        matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }

    pub(super) fn unreadable(revision: u64, why: Unreadable) -> DiskError {
        match why {
            Unreadable::Damaged => DiskError::Damaged(revision),
            Unreadable::Key(id) => DiskError::Key(id),
            Unreadable::Seal => DiskError::Seal,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> DiskError {
        DiskError::Write(Box::new(error.into()))
    }
}

/// Opens a database file, or makes it; tests do so on disks that break.
pub(super) type Opener = Arc<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// The open database. After a failed write it is closed, and opened again by the next one.
pub(super) struct Disk {
    path: PathBuf,
    opener: Opener,
    sealing: Sealing,
    database: Option<Database>,
    /// The newest revision that was committed.
    revision: u64,
    /// The bytes of all rows.
    row_bytes: u64,
    /// The file's size above which it is looked at for compaction.
    compact_above: u64,
    copying: Option<Copying>,
    /// The file's size and the bytes of all rows when it was last made smaller where it is: it is
    /// worth another time when it has grown, or they have gone.
    shrunk: (u64, u64),
    /// Held by each snapshot that is being read: the file must not be replaced under it.
    readers: Arc<()>,
}

/// One moment of the database, to be read at leisure.
pub(crate) struct Snapshot {
    pub(super) read: ReadTransaction,
    _reader: Arc<()>,
}

impl Disk {
    pub(super) fn open(path: &Path, sealing: Sealing) -> Result<(Disk, State), DiskError> {
        Disk::open_with(path, sealing, Arc::new(open_file))
    }

    pub(super) fn open_with(
        path: &Path,
        sealing: Sealing,
        opener: Opener,
    ) -> Result<(Disk, State), DiskError> {
        create_private(path).map_err(|source| DiskError::File { path: path.to_owned(), source })?;
        copy::remove_leftover(path)?;
        let database = prepared(opener(path), path)?;
        let loaded = load(&database, &sealing)?;
        let mut disk = Disk {
            path: path.to_owned(),
            opener,
            sealing,
            database: Some(database),
            revision: loaded.state.revision,
            row_bytes: loaded.row_bytes,
            compact_above: COMPACT_ABOVE_BYTES,
            copying: None,
            shrunk: (0, u64::MAX),
            readers: Arc::default(),
        };
        if !loaded.orphans.is_empty() {
            let trimmed = Trimmed { rows: loaded.orphans, ..Trimmed::default() };
            disk.commit(&[], &trimmed)?;
        }
        if loaded.reseal || disk.is_wasteful() {
            disk.copy_now()?;
        }
        Ok((disk, loaded.state))
    }

    /// Commits events, and what compaction lets go, in one transaction with one fsync.
    pub(super) fn commit(
        &mut self,
        events: &[Arc<Event>],
        trimmed: &Trimmed,
    ) -> Result<(), DiskError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let grown = write(&database, &self.sealing, events, trimmed)?;
        self.database = Some(database);
        self.row_bytes = self.row_bytes.saturating_add_signed(grown);
        if let Some(last) = events.last() {
            self.revision = last.object.revision;
        }
        if let Some(copying) = &mut self.copying {
            copying.note(events, trimmed);
        }
        Ok(())
    }

    /// Makes the file smaller where it is, which needs hardly any room: for a full disk. Nothing is
    /// written meanwhile.
    pub(super) fn shrink(&mut self) -> Result<(), DiskError> {
        let before = self.file_bytes();
        let done = before <= self.shrunk.0 && self.row_bytes >= self.shrunk.1;
        if self.is_read() || done || before / 2 < self.row_bytes {
            return Ok(());
        }
        let mut database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        self.copying = None;
        let compacted = database.compact();
        self.database = Some(database);
        let after = self.file_bytes();
        self.shrunk = (after, self.row_bytes);
        compacted.map_err(|error| DiskError::Write(Box::new(error.into())))?;
        tracing::info!(path = %self.path.display(), before, after, "the database was made smaller");
        Ok(())
    }

    /// Looks after the file: begins to compact it where most of it is empty, and ends what began.
    pub(super) fn tend(&mut self) {
        let outcome = match self.copying.take() {
            Some(copying) => self.end_copy(copying),
            None if !self.is_wasteful() => Ok(()),
            None if reserve::free_bytes(&self.path)
                > COMPACT_RATIO * self.row_bytes + ROOM_BYTES =>
            {
                self.begin_copy()
            }
            None => self.shrink(),
        };
        if let Err(error) = outcome {
            // What may be left of a copy takes room, and is made anew another time.
            let _ = copy::remove_leftover(&self.path);
            // Not again before the file has grown: what failed may fail every time.
            self.compact_above = self.file_bytes() + self.file_bytes() / 4;
            tracing::warn!(%error, path = %self.path.display(), "the database is not compacted");
        }
    }

    pub(super) fn snapshot(&mut self) -> Result<Snapshot, DiskError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let read = database.begin_read();
        self.database = Some(database);
        Ok(Snapshot { read: read?, _reader: self.readers.clone() })
    }

    /// Where there must be room, for people.
    pub(super) fn place(&self) -> String {
        self.path.parent().unwrap_or(Path::new(".")).display().to_string()
    }

    /// The file's size.
    fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |about| about.len())
    }

    /// Opens the database after a failure. What a failed commit may have left is taken back: its
    /// authors were told that it was not made.
    fn reopen(&mut self) -> Result<Database, DiskError> {
        self.copying = None;
        let database = prepared((self.opener)(&self.path), &self.path)?;
        let transaction = database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            log.retain_in(self.revision + 1.., |_, _| false)?;
            transaction.open_table(FACTS)?.insert("revision", self.revision)?;
        }
        transaction.commit()?;
        tracing::info!(path = %self.path.display(), "the database is open again");
        Ok(database)
    }

    /// A snapshot is being read.
    fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }

    fn is_wasteful(&self) -> bool {
        let size = self.file_bytes();
        !self.is_read() && size > self.compact_above && size / COMPACT_RATIO > self.row_bytes
    }

    pub(super) fn begin_copy(&mut self) -> Result<(), DiskError> {
        if let Some(database) = &self.database {
            let read = database.begin_read()?;
            self.copying = Some(Copying::begin(read, &self.path, self.sealing.clone())?);
        }
        Ok(())
    }

    fn end_copy(&mut self, copying: Copying) -> Result<(), DiskError> {
        match copying.outcome() {
            None if copying.is_behind() => self.compact_above = self.file_bytes() * 2,
            None => self.copying = Some(copying),
            Some(copied) => {
                let copied = copied?;
                let (events, trimmed) = copying.since();
                write(&copied, &self.sealing, events, trimmed)?;
                match self.is_read() {
                    false => self.replace(copied)?,
                    // A backup has begun meanwhile: the copy is made again after it.
                    true => copy::remove_leftover(&self.path)?,
                }
            }
        }
        Ok(())
    }

    fn copy_now(&mut self) -> Result<(), DiskError> {
        let Some(database) = &self.database else { return Ok(()) };
        let copied = copy::copy(&database.begin_read()?, &self.path, &self.sealing, &|| false)?;
        self.replace(copied)
    }

    /// Puts a copy with the same content in the file's place.
    fn replace(&mut self, copied: Database) -> Result<(), DiskError> {
        let before = self.file_bytes();
        // Closed first: after a failure the next write opens whichever of the two is in place.
        self.database = None;
        copy::put_in_place(&self.path)?;
        self.database = Some(copied);
        self.compact_above = COMPACT_ABOVE_BYTES.max(self.file_bytes() * 2);
        let after = self.file_bytes();
        tracing::info!(path = %self.path.display(), before, after, "the database was written anew");
        Ok(())
    }
}

/// What was found in the database.
struct Loaded {
    state: State,
    /// Rows that are neither an object's newest, nor an event, nor before one.
    orphans: Vec<u64>,
    row_bytes: u64,
    /// Not all rows are encrypted as they are to be.
    reseal: bool,
}

fn load(database: &Database, sealing: &Sealing) -> Result<Loaded, DiskError> {
    let read = database.begin_read()?;
    let floors = floors(&read)?;
    let mut loaded =
        Loaded { state: State::new(0), orphans: Vec::new(), row_bytes: 0, reseal: false };
    for row in read.open_table(LOG)?.range(0..)? {
        let (revision, row) = row?;
        let (revision, row) = (revision.value(), row.value());
        let event = row::decode(revision, row, &loaded.state, sealing)
            .map_err(|why| DiskError::unreadable(revision, why))?;
        loaded.row_bytes += row.len() as u64;
        loaded.reseal |= !row::is_sealed_as_wanted(row, sealing);
        let forgotten = floors.get(&*event.object.key.kind).is_some_and(|&at| revision <= at);
        if forgotten {
            loaded.orphans.extend(event.lets_go());
        }
        loaded.state.load(Arc::new(event), forgotten);
    }
    loaded.state.loaded(floors, newest(&read)?);
    Ok(loaded)
}

/// Kind → the revision up to which its events are forgotten.
pub(super) fn floors(read: &ReadTransaction) -> Result<HashMap<String, u64>, DiskError> {
    let mut floors = HashMap::new();
    for floor in read.open_table(FLOORS)?.range::<&str>(..)? {
        let (kind, revision) = floor?;
        floors.insert(kind.value().to_owned(), revision.value());
    }
    Ok(floors)
}

/// The newest revision.
pub(super) fn newest(read: &ReadTransaction) -> Result<u64, DiskError> {
    Ok(read.open_table(FACTS)?.get("revision")?.map_or(0, |value| value.value()))
}

/// The file holds Secrets: made readable by its owner alone before anything is in it.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.flush()
}

/// Opens a database file, or makes it.
pub(super) fn open_database(path: &Path) -> Result<Database, DiskError> {
    prepared(open_file(path), path)
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path)
}

/// Makes the tables where the database is new, and migrates an older one.
fn prepared(opened: Result<Database, DatabaseError>, path: &Path) -> Result<Database, DiskError> {
    let failed =
        |error: redb::Error| DiskError::Open { path: path.to_owned(), source: Box::new(error) };
    let database = opened.map_err(|error| failed(error.into()))?;
    let found = match database.begin_read()?.open_table(FACTS) {
        Ok(facts) => facts.get("format")?.map(|value| value.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        Some(FORMAT) => {}
        None => set_up(&database)?,
        Some(found) if found > FORMAT => {
            return Err(DiskError::Format { path: path.to_owned(), found });
        }
        Some(found) => migrate(&database, path, found)?,
    }
    Ok(database)
}

fn set_up(database: &Database) -> Result<(), DiskError> {
    let setup = database.begin_write()?;
    setup.open_table(LOG)?;
    setup.open_table(FLOORS)?;
    setup.open_table(FACTS)?.insert("format", FORMAT)?;
    setup.commit()?;
    Ok(())
}

/// Format 1 → 2: its rows are rows of format 2 that are not encrypted; from here on some may be,
/// so that a program that knows format 1 alone must refuse the file.
fn migrate(database: &Database, path: &Path, found: u64) -> Result<(), DiskError> {
    let transaction = database.begin_write()?;
    transaction.open_table(FACTS)?.insert("format", FORMAT)?;
    transaction.commit()?;
    tracing::info!(path = %path.display(), from = found, to = FORMAT, "the database was migrated");
    Ok(())
}

/// Writes events and what compaction lets go; says by how many bytes the rows have grown.
fn write(
    database: &Database,
    sealing: &Sealing,
    events: &[Arc<Event>],
    trimmed: &Trimmed,
) -> Result<i64, DiskError> {
    let transaction = database.begin_write()?;
    let mut grown = 0;
    {
        let mut log = transaction.open_table(LOG)?;
        for event in events {
            let revision = event.object.revision;
            let row =
                row::encode(event, sealing).map_err(|why| DiskError::unreadable(revision, why))?;
            log.insert(revision, row.as_slice())?;
            grown += row.len() as i64;
        }
        for revision in &trimmed.rows {
            let row = log.remove(revision)?;
            grown -= row.map_or(0, |row| row.value().len() as i64);
        }
        let mut floors = transaction.open_table(FLOORS)?;
        for cut in &trimmed.cuts {
            floors.insert(&*cut.kind, cut.floor)?;
        }
        if let Some(last) = events.last() {
            transaction.open_table(FACTS)?.insert("revision", last.object.revision)?;
        }
    }
    transaction.commit()?;
    Ok(grown)
}
