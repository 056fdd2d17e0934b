//! Writing the database anew beside itself: what compaction, a change of keys, and a restore do.
//!
//! The copy is made from one read transaction while the writer goes on; what is written meanwhile
//! is noted and written to the copy, too, and then the copy takes the file's place by one rename.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, TryRecvError},
    },
    thread,
};

use redb::{Database, ReadTransaction};

use super::{
    disk::{self, DiskError, FACTS, FLOORS, LOG},
    row,
    seal::Sealing,
    table::{Event, Trimmed},
};

/// Rows of so many bytes are committed together.
const BATCH_BYTES: usize = 4 << 20;

/// What is written while a copy is made is kept in memory, and holds the writer up when it is
/// written to the copy: at most so many bytes, else the copy is given up.
const SINCE_BYTES_MAX: usize = 64 << 20;

/// A copy in the making.
pub(super) struct Copying {
    outcome: Receiver<Result<Database, DiskError>>,
    stop: Arc<AtomicBool>,
    since: (Vec<Arc<Event>>, Trimmed),
    since_bytes: usize,
}

impl Copying {
    pub(super) fn begin(
        read: ReadTransaction,
        path: &Path,
        sealing: Sealing,
    ) -> Result<Copying, DiskError> {
        let (done, outcome) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), path.to_owned());
        let run = move || {
            let copied = copy(&read, &path, &sealing, &|| stopped.load(Ordering::Relaxed));
            if copied.is_err() {
                // It takes room; what cannot be removed is removed by the next start.
                let _ = remove_leftover(&path);
            }
            // The writer may have given up, or ended.
            let _ = done.send(copied);
        };
        thread::Builder::new()
            .name("store-copy".to_owned())
            .spawn(run)
            .map_err(DiskError::Thread)?;
        Ok(Copying { outcome, stop, since: Default::default(), since_bytes: 0 })
    }

    /// Notes what was committed since the copy began.
    pub(super) fn note(&mut self, events: &[Arc<Event>], trimmed: &Trimmed) {
        self.since_bytes += events.iter().map(|event| event.object.bytes.len()).sum::<usize>();
        if !self.is_behind() {
            self.since.0.extend_from_slice(events);
            self.since.1.rows.extend_from_slice(&trimmed.rows);
            self.since.1.cuts.extend_from_slice(&trimmed.cuts);
        }
    }

    /// More was written meanwhile than may be kept.
    pub(super) fn is_behind(&self) -> bool {
        self.since_bytes > SINCE_BYTES_MAX
    }

    /// What was committed since the copy began.
    pub(super) fn since(&self) -> (&[Arc<Event>], &Trimmed) {
        (&self.since.0, &self.since.1)
    }

    /// The copy, once it is made. `None`: not yet, or too much was written meanwhile.
    pub(super) fn outcome(&self) -> Option<Result<Database, DiskError>> {
        match self.outcome.try_recv() {
            _ if self.is_behind() => None,
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let ended = io::Error::other("the copying thread has ended");
                Some(Err(DiskError::Thread(ended)))
            }
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Copies a database to beside the file, each row encrypted as it is to be.
pub(super) fn copy(
    read: &ReadTransaction,
    path: &Path,
    sealing: &Sealing,
    stopped: &dyn Fn() -> bool,
) -> Result<Database, DiskError> {
    let mut target = Target::create(&beside(path))?;
    for entry in read.open_table(LOG)?.range(0..)? {
        let (revision, row) = entry?;
        let (revision, row) = (revision.value(), row.value());
        let resealed = row::reseal(revision, row, sealing)
            .map_err(|why| DiskError::unreadable(revision, why))?;
        target.insert(revision, resealed.unwrap_or_else(|| row.to_vec()))?;
        if stopped() {
            let why = io::Error::from(io::ErrorKind::Interrupted);
            return Err(DiskError::File { path: path.to_owned(), source: why });
        }
    }
    let floors = disk::floors(read)?;
    target.finish(floors.iter().map(|(kind, at)| (kind.as_str(), *at)), disk::newest(read)?)
}

/// Puts the finished copy in the place of the file.
pub(super) fn put_in_place(path: &Path) -> Result<(), DiskError> {
    let renamed = fs::rename(beside(path), path)
        .and_then(|()| fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all());
    renamed.map_err(|source| DiskError::File { path: path.to_owned(), source })
}

/// Removes what a crash may have left of a copy.
pub(super) fn remove_leftover(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(beside(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DiskError::File { path: beside(path), source: error })
        }
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("redb-copy")
}

/// A database that is being filled, row by row.
pub(super) struct Target {
    database: Database,
    batch: Vec<(u64, Vec<u8>)>,
    batch_bytes: usize,
}

impl Target {
    /// Makes an empty database in the place of whatever is there.
    pub(super) fn create(path: &Path) -> Result<Target, DiskError> {
        let failed = |source| DiskError::File { path: path.to_owned(), source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => disk::create_private(path).map_err(failed)?,
        }
        let database = disk::open_database(path)?;
        Ok(Target { database, batch: Vec::new(), batch_bytes: 0 })
    }

    pub(super) fn insert(&mut self, revision: u64, row: Vec<u8>) -> Result<(), DiskError> {
        self.batch_bytes += row.len();
        self.batch.push((revision, row));
        if self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the rest; everything is on disk afterwards.
    pub(super) fn finish<'f>(
        mut self,
        floors: impl Iterator<Item = (&'f str, u64)>,
        revision: u64,
    ) -> Result<Database, DiskError> {
        self.flush()?;
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(FLOORS)?;
            for (kind, floor) in floors {
                table.insert(kind, floor)?;
            }
            transaction.open_table(FACTS)?.insert("revision", revision)?;
        }
        transaction.commit()?;
        // A file grows by doubling; what it does not need yet is given back.
        self.database.compact().map_err(|error| DiskError::Write(Box::new(error.into())))?;
        Ok(self.database)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            for (revision, row) in self.batch.drain(..) {
                log.insert(revision, row.as_slice())?;
            }
        }
        transaction.commit()?;
        self.batch_bytes = 0;
        Ok(())
    }
}
