//! The quickstart: whenever and however it ends, nothing of it is left, and it runs again.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use muster_e2e::{eventually, program, scratch};

/// What a line says when the service on this host runs: by then there are a hub, agents, pipelines
/// and a daemon that has left its session.
const SERVICE_RUNS: &str = "WebService hello: applied";

#[test]
fn nothing_outlives_it_and_it_runs_again() {
    let place = scratch();
    for (line, signal) in
        [("the hub is ready", "INT"), (SERVICE_RUNS, "INT"), (SERVICE_RUNS, "KILL")]
    {
        let mut child = start(place.path(), &[]);
        read_until(&mut child, line);
        let started = descendants(child.id());
        let ports = listening(&started);
        assert!(!ports.is_empty(), "a hub that is ready listens");
        send(signal, child.id());
        child.wait().unwrap();
        nothing_is_left(place.path(), &started, &ports);
    }

    let mut child = start(place.path(), &["--once"]);
    let output = read_until(&mut child, "Now running:");
    for sample in ["DatadogStack monitoring: applied on cluster", SERVICE_RUNS] {
        assert!(output.contains(sample), "{sample:?} is not in:\n{output}");
    }
    let started = descendants(child.id());
    let ports = listening(&started);
    // Its last lines fit into the pipe.
    assert!(child.wait().unwrap().success());
    nothing_is_left(place.path(), &started, &ports);
}

fn start(place: &Path, more: &[&str]) -> Child {
    let samples = muster_e2e::sample("");
    Command::new(program("muster"))
        .arg("quickstart")
        .arg("--samples")
        .arg(samples)
        .args(more)
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything that was printed up to the line.
fn read_until(child: &mut Child, wanted: &str) -> String {
    let mut text = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !text.contains(wanted) {
        let length = lines.read_line(&mut text).unwrap();
        assert!(length > 0, "it ended before {wanted:?}:\n{text}");
    }
    child.stdout = Some(lines.into_inner());
    text
}

fn send(signal: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}

fn nothing_is_left(place: &Path, started: &BTreeMap<u32, String>, ports: &[u16]) {
    eventually("everything to end", || {
        let left: Vec<_> = started
            .iter()
            .filter(|(pid, since)| start_time(**pid).as_ref() == Some(since))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
    });
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", *port)).is_err(), "port {port} is served");
    }
    let here = place.display().to_string();
    let of_ours = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&here)
    };
    let left: Vec<_> = pids().into_iter().filter(of_ours).collect();
    assert!(left.is_empty(), "processes with its directory: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&here), "a mount is left:\n{mounts}");
    eventually("its directory to be removed", || {
        let left: Vec<_> = fs::read_dir(place).unwrap().flatten().map(|e| e.path()).collect();
        // What was killed can remove nothing; what it left is files.
        if left.is_empty() || started.is_empty() { Ok(()) } else { remove(&left) }
    });
}

/// After `kill -9` the directory may stay: it holds files only, and they can be removed.
fn remove(left: &[std::path::PathBuf]) -> Result<(), String> {
    for path in left {
        fs::remove_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Every process below this one, with its start time, which tells it from a later one.
fn descendants(root: u32) -> BTreeMap<u32, String> {
    let parents: Vec<_> =
        pids().into_iter().filter_map(|pid| Some((pid, field(pid, 1)?))).collect();
    let mut found = BTreeMap::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for (pid, of) in &parents {
            if *of == parent.to_string() && *pid != root {
                found.extend(start_time(*pid).map(|since| (*pid, since)));
                next.push(*pid);
            }
        }
    }
    found
}

fn start_time(pid: u32) -> Option<String> {
    field(pid, 19)
}

/// A field of `/proc/PID/stat`, counted from the one after the name.
fn field(pid: u32, at: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(at).map(str::to_owned)
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The ports of this host on which any of these processes listens.
fn listening(processes: &BTreeMap<u32, String>) -> Vec<u16> {
    let mut sockets = Vec::new();
    for pid in processes.keys() {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target.to_string_lossy().into_owned();
            sockets
                .extend(inode.strip_prefix("socket:[").map(|i| i.trim_end_matches(']').to_owned()));
        }
    }
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let listens = columns.get(3) == Some(&"0A") && sockets.iter().any(|s| columns[9] == s);
        let port = columns.get(1)?.split_once(':')?.1;
        listens.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}
