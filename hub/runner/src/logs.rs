//! What containers print: kept in `<data>/logs/<pod uid>/<container>/<restart>.log`, read again by
//! `kubectl logs`. A line is stored as `<time> <text>`, so that `--timestamps` and `--since` work.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{Stream, stream};
use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead},
    sync::watch,
};

/// The most that is kept of one container's output (the kubelet's `containerLogMaxSize`).
pub const LOG_BYTES_MAX: u64 = 10 << 20;
/// A line longer than this is stored as several: what a reader has to hold at once.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Which part of a log to read; the fields of Kubernetes' `PodLogOptions`.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Keep sending until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<usize>,
    /// Only lines printed at or after this time.
    pub since: Option<Timestamp>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// The logs of all pods on this host.
#[derive(Clone, Debug)]
pub struct Logs {
    root: PathBuf,
    /// Logs that are being written, with a signal at every change.
    live: Arc<Mutex<BTreeMap<PathBuf, watch::Receiver<()>>>>,
}

impl Logs {
    /// The logs below `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("logs"), live: Arc::default() }
    }

    /// Opens the log of a container. An error of kind `NotFound` means that it has not run (yet).
    pub fn open(
        &self,
        pod_uid: &str,
        container: &str,
        options: LogOptions,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let run = last_run(&self.dir(pod_uid, container)?)?;
        let run = match (options.previous, run) {
            (false, run) => run,
            (true, 0) => return Err(io::ErrorKind::NotFound.into()),
            (true, run) => run - 1,
        };
        let path = self.path(pod_uid, container, run)?;
        let mut file = BufReader::new(File::open(&path)?);
        if let Some(lines) = options.tail_lines {
            skip_to_tail(&mut file, lines)?;
        }
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        let reader = LogReader {
            file,
            pending: Vec::new(),
            live: live.filter(|_| options.follow),
            left: options.limit_bytes.unwrap_or(u64::MAX),
            options,
        };
        Ok(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|bytes| (bytes, reader)))
        }))
    }

    /// Starts the log of a container's run. `restart` is the number of runs before it; of those,
    /// the last one's log is kept.
    pub fn create(&self, pod_uid: &str, container: &str, restart: i32) -> io::Result<LogWriter> {
        let path = self.path(pod_uid, container, restart)?;
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        if restart > 1 {
            // It may have been removed, or never written; another time it is tried again.
            let _ = fs::remove_file(self.path(pod_uid, container, restart - 2)?);
        }
        let file = File::create(&path)?;
        let (changed, watched) = watch::channel(());
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), watched);
        let live = self.live.clone();
        Ok(LogWriter(Arc::new(OpenLog {
            path,
            live,
            changed,
            file: Mutex::new((file, LOG_BYTES_MAX)),
        })))
    }

    /// Removes the logs of a pod that is no more.
    pub(crate) fn remove(&self, pod_uid: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(one_name(pod_uid)?)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The pods that have logs.
    pub(crate) fn pods(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn dir(&self, pod_uid: &str, container: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(one_name(pod_uid)?).join(one_name(container)?))
    }

    fn path(&self, pod_uid: &str, container: &str, run: i32) -> io::Result<PathBuf> {
        Ok(self.dir(pod_uid, container)?.join(format!("{run}.log")))
    }
}

/// Both come from API objects, where they cannot hold a separator; a door is still a door.
fn one_name(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(name)
}

fn last_run(dir: &Path) -> io::Result<i32> {
    fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str()?.parse().ok())
        .max()
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn skip_to_tail(file: &mut BufReader<File>, lines: usize) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    // A log has at most LOG_BYTES_MAX bytes: reading it once is cheap and simple.
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let mut starts: Vec<usize> = vec![0];
    starts.extend(text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1));
    starts.retain(|start| *start < text.len());
    let start = starts.len().checked_sub(lines).and_then(|i| starts.get(i)).copied();
    let start = if lines == 0 { text.len() } else { start.unwrap_or(0) };
    file.seek(SeekFrom::Start(start as u64)).map(drop)
}

struct LogReader {
    file: BufReader<File>,
    /// The start of a line whose end is not written yet.
    pending: Vec<u8>,
    live: Option<watch::Receiver<()>>,
    left: u64,
    options: LogOptions,
}

impl LogReader {
    /// Sends this much at a time, so that a reader of a large log does not hold all of it.
    const CHUNK: usize = 64 << 10;

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Look for change before reading, so that a line written in between is not missed.
            let over = match &mut self.live {
                Some(live) => {
                    live.mark_unchanged();
                    live.has_changed().is_err()
                }
                None => true,
            };
            let bytes = self.read_lines()?;
            if self.left == 0 && bytes.is_empty() {
                return Ok(None);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
            match &mut self.live {
                Some(live) if !over => {
                    let _ = live.changed().await;
                }
                Some(_) | None => return Ok(None),
            }
        }
    }

    fn read_lines(&mut self) -> io::Result<Vec<u8>> {
        let mut sent = Vec::new();
        while sent.len() < Self::CHUNK && self.left > 0 {
            self.file.read_until(b'\n', &mut self.pending)?;
            if self.pending.last() != Some(&b'\n') {
                break;
            }
            let line = std::mem::take(&mut self.pending);
            let text_at = line.iter().position(|b| *b == b' ').map_or(0, |i| i + 1);
            if let Some(since) = self.options.since {
                let time = std::str::from_utf8(&line[..text_at.saturating_sub(1)]).ok();
                if time.and_then(|t| t.parse::<Timestamp>().ok()).is_some_and(|t| t < since) {
                    continue;
                }
            }
            let shown = if self.options.timestamps { &line[..] } else { &line[text_at..] };
            let take = (shown.len() as u64).min(self.left) as usize;
            sent.extend_from_slice(&shown[..take]);
            self.left -= take as u64;
        }
        Ok(sent)
    }
}

/// Writes one run of a container. Followers see its end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<OpenLog>);

#[derive(Debug)]
struct OpenLog {
    path: PathBuf,
    live: Arc<Mutex<BTreeMap<PathBuf, watch::Receiver<()>>>>,
    changed: watch::Sender<()>,
    /// The file and how much room is left in it.
    file: Mutex<(File, u64)>,
}

impl LogWriter {
    /// Stores one line. Without room it is dropped, which the log says once.
    pub fn line(&self, text: &[u8]) {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, left) = &mut *file;
        if *left == 0 {
            return;
        }
        let mut line = Timestamp::now().to_string().into_bytes();
        line.push(b' ');
        line.extend_from_slice(text);
        line.push(b'\n');
        if line.len() as u64 > *left {
            line = format!(
                "{} [the log's limit of {LOG_BYTES_MAX} bytes is reached; the rest is not kept]\n",
                Timestamp::now()
            )
            .into_bytes();
            *left = 0;
        } else {
            *left -= line.len() as u64;
        }
        // A full disk must not stop the pipeline; its log ends here.
        if file.write_all(&line).is_err() {
            *left = 0;
        }
        self.0.changed.send_replace(());
    }

    /// Stores everything that comes from `output`, line by line, until its end.
    pub(crate) async fn pump(self, output: impl AsyncRead + Unpin) {
        let mut output = tokio::io::BufReader::with_capacity(LINE_BYTES_MAX, output);
        let mut line: Vec<u8> = Vec::new();
        loop {
            let taken = match output.fill_buf().await {
                Ok(chunk) if !chunk.is_empty() => {
                    let end = chunk.iter().position(|b| *b == b'\n');
                    line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
                    if end.is_some() || line.len() >= LINE_BYTES_MAX {
                        self.line(&line);
                        line.clear();
                    }
                    end.map_or(chunk.len(), |end| end + 1)
                }
                Ok(_) | Err(_) => break,
            };
            output.consume(taken);
        }
        if !line.is_empty() {
            self.line(&line);
        }
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

#[cfg(test)]
mod tests;
