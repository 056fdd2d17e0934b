//! What is measured on, and what its kernel says of a process.

use std::{fs, thread};

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
