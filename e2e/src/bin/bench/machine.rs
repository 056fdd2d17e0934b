//! What is measured on, and what its kernel says of a process.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use muster_e2e::program;

/// The machine and the programs, in one line.
pub(crate) fn described() -> anyhow::Result<String> {
    let cores = thread::available_parallelism()?;
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unnamed processor", |(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "{cores} cores of {model}, load {load} at the start; hub and agents of profile {} ({}).\n\
         All on this machine over loopback; pipelines run as sandboxed processes.\n",
        profile(),
        program("muster").display(),
    ))
}

/// The build profile of the programs: the name of their directory.
pub(crate) fn profile() -> String {
    let muster = program("muster");
    let directory = muster.parent().and_then(|dir| dir.file_name());
    directory.map_or("unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Resident memory of a process in bytes (`VmRSS`).
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmRSS:")
}

/// The part of it that is no file's (`RssAnon`): a debug build's file is many times larger.
pub(crate) fn anonymous(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "RssAnon:")
}

/// The most memory that a process and its children had, each by itself, while this was kept.
pub(crate) struct Peak {
    ended: Arc<AtomicBool>,
    watching: thread::JoinHandle<(f64, f64)>,
}

impl Peak {
    /// Looks every 10 ms from now on.
    pub(crate) fn of(pid: u32) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let watching = thread::spawn(move || {
            let (mut own, mut children) = (0.0_f64, 0.0_f64);
            while !until.load(Ordering::Relaxed) {
                own = own.max(anonymous(pid).unwrap_or_default());
                // A child may be gone before it is looked at, or still be a copy of its parent.
                let all = descendants(pid).into_iter();
                let others = all.filter(|child| program_of(*child) != program_of(pid));
                let all = others.map(|child| anonymous(child).unwrap_or_default());
                children = children.max(all.sum());
                thread::sleep(LOOK_EVERY);
            }
            (own, children)
        });
        Self { ended, watching }
    }

    /// The process's own, and the sum of its children's.
    pub(crate) fn end(self) -> (f64, f64) {
        self.ended.store(true, Ordering::Relaxed);
        self.watching.join().unwrap_or_default()
    }
}

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn program_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_tasks = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let text = of_tasks.collect::<String>();
    let own: BTreeSet<u32> = text.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    own.iter().flat_map(|child| descendants(*child)).chain(own.iter().copied()).collect()
}

/// Bytes of the files below a directory.
pub(crate) fn disk(directory: &Path) -> f64 {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path()),
        Ok(meta) => meta.len() as f64,
        Err(_) => 0.0,
    };
    all.map(size).sum()
}

/// CPU time that a process has used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields after the name, which may hold anything; proc_pid_stat(5): utime and stime are 14 and
    // 15, in ticks of 10 ms on every Linux.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn memory(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
