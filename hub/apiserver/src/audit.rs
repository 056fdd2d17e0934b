//! The audit log: who did what, when, and was it allowed. JSON lines, each an `audit.k8s.io/v1`
//! Event of level Metadata: never a body, a token or a secret.
//!
//! Requests never wait for it: events go through a bounded queue to a thread that writes. What
//! does not fit (a disk that hangs) is lost, counted, and told by the next event that is written:
//! a hub that stands still because its log does would be the worse failure. Lines are given to
//! the operating system when the queue is empty; a crash of the host may lose the last of them.

mod event;

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use event::Entry;
pub(crate) use event::{Notes, Seen};

/// Events that may wait for the disk: each is at most some 10 KiB, so 20 MiB at worst.
const QUEUE_EVENTS: usize = 2048;

/// A file is put aside when it has grown so long, and so many are kept besides the current one:
/// 100 MiB in all, about 150,000 requests.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
const OLD_FILES_MAX: usize = 9;

/// Refusals of strangers that are written each second: without a limit, anyone who can connect
/// could make the log forget what users did. The rest is counted.
const STRANGERS_PER_SECOND: u64 = 10;

/// Where the audit log is written, and what is left out of it.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The file (0600); older ones lie beside it as `NAME.1`, `NAME.2`, ….
    pub path: PathBuf,
    /// Requests of clients within the process are written, too.
    pub own_clients: bool,
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log {path}: {cause}")]
pub(crate) struct AuditError {
    path: PathBuf,
    cause: io::Error,
}

/// The end of the log where events are put in.
pub(crate) struct Audit {
    queue: Mutex<Option<SyncSender<Entry>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) own_clients: bool,
    lost: AtomicU64,
    strangers: Strangers,
}

impl Audit {
    /// Opens the file, or makes it, and starts the thread that writes.
    pub(crate) fn open(config: &AuditConfig) -> Result<Audit, AuditError> {
        let failed = |cause| AuditError { path: config.path.clone(), cause };
        let file = LogFile::open(&config.path, FILE_BYTES_MAX).map_err(failed)?;
        let (queue, entries) = sync_channel(QUEUE_EVENTS);
        let writer = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || write(file, &entries))
            .map_err(failed)?;
        Ok(Audit {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            own_clients: config.own_clients,
            lost: AtomicU64::new(0),
            strangers: Strangers::default(),
        })
    }

    /// Writes what is waiting and ends the thread; later events are not written.
    pub(crate) fn close(&self) {
        drop(lock(&self.queue).take());
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes the audit log has failed");
        }
    }

    fn put(&self, mut entry: Entry) {
        if entry.is_of_stranger() {
            match self.strangers.admit(entry.second()) {
                Some(unwritten) => entry.unwritten = unwritten,
                None => return,
            }
        }
        let queue = lock(&self.queue).clone();
        let Some(queue) = queue else { return };
        entry.lost = self.lost.swap(0, Ordering::Relaxed);
        if let Err(TrySendError::Full(entry)) = queue.try_send(entry) {
            let lost = entry.lost + 1;
            if self.lost.fetch_add(lost, Ordering::Relaxed) == 0 && lost == 1 {
                tracing::warn!("the audit log cannot keep up: events are lost until it can");
            }
        }
    }
}

/// How many refusals of strangers were written in the current second, and how many were not.
#[derive(Default)]
struct Strangers(Mutex<(i64, u64, u64)>);

impl Strangers {
    /// `Some`: this one is written, after so many that were not.
    fn admit(&self, second: i64) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.0 != second {
            (state.0, state.1) = (second, 0);
        }
        state.1 += 1;
        if state.1 > STRANGERS_PER_SECOND {
            state.2 += 1;
            return None;
        }
        Some(std::mem::take(&mut state.2))
    }
}

fn write(mut file: LogFile, entries: &Receiver<Entry>) {
    let mut failing = false;
    let mut tell = |result: io::Result<()>| match result {
        Err(error) if !failing => {
            failing = true;
            tracing::error!(%error, "the audit log cannot be written: events are lost");
        }
        Err(_) => {}
        Ok(()) => failing = false,
    };
    while let Ok(first) = entries.recv() {
        tell(file.append(&first.line()));
        while let Ok(more) = entries.try_recv() {
            tell(file.append(&more.line()));
        }
        tell(file.flush());
    }
}

/// The current file, and the older ones beside it.
struct LogFile {
    path: PathBuf,
    out: io::BufWriter<fs::File>,
    length: u64,
    length_max: u64,
}

impl LogFile {
    fn open(path: &Path, length_max: u64) -> io::Result<LogFile> {
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), out: io::BufWriter::new(file), length, length_max })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + line.len() as u64 > self.length_max {
            self.rotate()?;
        }
        self.length += line.len() as u64;
        self.out.write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let old = |age: usize| match age {
            0 => self.path.clone(),
            age => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{age}"));
                PathBuf::from(name)
            }
        };
        for age in (0..OLD_FILES_MAX).rev() {
            match fs::rename(old(age), old(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = LogFile::open(&self.path, self.length_max)?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = LogFile::open(&path, 100).unwrap();
        for count in 0..200 {
            file.append(format!("{count:>39}\n").as_bytes()).unwrap();
        }
        file.flush().unwrap();
        let found: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), OLD_FILES_MAX + 1);
        for entry in &found {
            let metadata = entry.metadata().unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert!(metadata.len() <= 100);
        }
        let newest = fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with("199\n"), "{newest}");
        assert!(fs::read_to_string(dir.path().join("audit.log.1")).unwrap().ends_with("197\n"));
    }

    #[test]
    fn strangers_cannot_fill_the_log() {
        let strangers = Strangers::default();
        let written = (0..100).filter(|_| strangers.admit(7).is_some()).count();
        assert_eq!(written as u64, STRANGERS_PER_SECOND);
        assert_eq!(strangers.admit(8), Some(100 - STRANGERS_PER_SECOND), "and says how many more");
        assert_eq!(strangers.admit(8), Some(0));
    }
}
