//! Limits by control groups, where this process may make some; both versions of the interface.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::launch::Limits;

/// The name of the parent of all pods' groups. A restarted hub removes what is empty below it.
const PARENT: &str = "muster-pipelines";
/// Processes and threads of one container: a fork bomb ends here.
pub(super) const PROCESSES_MAX: u64 = 512;
/// The period in which a share of CPU time is counted, µs (the kernel's default).
const CPU_PERIOD: u64 = 100_000;

/// Where groups can be made.
#[derive(Clone, Debug)]
pub(super) enum Cgroups {
    /// One directory for each of memory, pids, cpu (those that are writable).
    V1 { memory: Option<PathBuf>, pids: Option<PathBuf>, cpu: Option<PathBuf> },
    /// One directory, with these controllers enabled in it.
    V2 { dir: PathBuf, memory: bool, pids: bool, cpu: bool },
}

/// The groups of one container; removed when dropped.
#[derive(Debug, Default)]
pub(super) struct Group {
    dirs: Vec<PathBuf>,
    memory: Option<PathBuf>,
}

impl Cgroups {
    /// Looks for a place, by making one.
    pub(super) fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let v1 = |controller: &str| {
            let path = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let named = fields.next()?.split(',').any(|name| name == controller);
                fields.next().filter(|_| named)
            })?;
            let mount = Path::new("/sys/fs/cgroup").join(controller);
            let nested = mount.join(path.trim_start_matches('/'));
            let parent = if nested.is_dir() { nested } else { mount };
            make_writable(&parent.join(PARENT))
        };
        let (memory, pids, cpu) = (v1("memory"), v1("pids"), v1("cpu"));
        if memory.is_some() || pids.is_some() || cpu.is_some() {
            return Some(Self::V1 { memory, pids, cpu });
        }
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let dir = make_writable(
            &Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).join(PARENT),
        )?;
        // Allowed only if the parent hands its controllers down, as under systemd's Delegate=yes.
        let offered = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
        let enable = |name: &str| {
            offered.split_whitespace().any(|controller| controller == name)
                && fs::write(dir.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
        };
        let (memory, pids, cpu) = (enable("memory"), enable("pids"), enable("cpu"));
        (memory || pids || cpu).then_some(Self::V2 { dir, memory, pids, cpu })
    }

    /// Which of (memory, pids, cpu) are limited by groups.
    pub(super) fn covers(&self) -> (bool, bool, bool) {
        match self {
            Self::V1 { memory, pids, cpu } => (memory.is_some(), pids.is_some(), cpu.is_some()),
            Self::V2 { memory, pids, cpu, .. } => (*memory, *pids, *cpu),
        }
    }

    /// Makes the groups of one container with its limits.
    pub(super) fn make(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let mut group = Group::default();
        match self {
            Self::V1 { memory, pids, cpu } => {
                if let (Some(parent), Some(bytes)) = (memory, limits.memory_bytes) {
                    let dir = group.add(parent, name)?;
                    fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
                    group.memory = Some(dir);
                }
                if let Some(parent) = pids {
                    let dir = group.add(parent, name)?;
                    fs::write(dir.join("pids.max"), PROCESSES_MAX.to_string())?;
                }
                if let (Some(parent), Some(millis)) = (cpu, limits.cpu_millis) {
                    let dir = group.add(parent, name)?;
                    fs::write(dir.join("cpu.cfs_period_us"), CPU_PERIOD.to_string())?;
                    fs::write(dir.join("cpu.cfs_quota_us"), quota(millis).to_string())?;
                }
            }
            Self::V2 { dir, memory, pids, cpu } => {
                let dir = group.add(dir, name)?;
                if let (true, Some(bytes)) = (memory, limits.memory_bytes) {
                    fs::write(dir.join("memory.max"), bytes.to_string())?;
                    group.memory = Some(dir.clone());
                }
                if *pids {
                    fs::write(dir.join("pids.max"), PROCESSES_MAX.to_string())?;
                }
                if let (true, Some(millis)) = (cpu, limits.cpu_millis) {
                    let text = format!("{} {CPU_PERIOD}", quota(millis));
                    fs::write(dir.join("cpu.max"), text)?;
                }
            }
        }
        Ok(group)
    }

    /// Removes the empty groups that an earlier hub left behind.
    pub(super) fn sweep(&self) {
        let parents = match self {
            Self::V1 { memory, pids, cpu } => vec![memory.as_ref(), pids.as_ref(), cpu.as_ref()],
            Self::V2 { dir, .. } => vec![Some(dir)],
        };
        for parent in parents.into_iter().flatten() {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    // Fails while somebody is in it: that is another hub's.
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

impl Group {
    fn add(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        let dir = parent.join(name);
        fs::create_dir(&dir)?;
        self.dirs.push(dir.clone());
        Ok(dir)
    }

    /// The files by which a process enters.
    pub(super) fn entrances(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Whether the kernel ended a process for want of memory.
    pub(super) fn out_of_memory(&self) -> bool {
        let Some(dir) = &self.memory else { return false };
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            fs::read_to_string(dir.join(file)).is_ok_and(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill "))
                    .any(|count| count.trim() != "0")
            })
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The kernel may need a moment to let go of the last process; the next start sweeps.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn quota(millis: u64) -> u64 {
    // The kernel refuses less than 1 ms for each period.
    (millis * CPU_PERIOD / 1000).max(1000)
}

fn make_writable(dir: &Path) -> Option<PathBuf> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => return None,
    }
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).ok()?;
    Some(dir.to_owned())
}
