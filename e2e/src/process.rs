//! Programs under test: found, started, ended.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longest wait of a test for anything: far beyond what a busy machine needs, so that reaching it
/// means that it will not happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A started program, killed with its process group when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, its stderr appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// The next line of its standard output (which must be piped).
    pub fn first_line(&mut self) -> String {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(read.is_ok_and(|n| n > 0), "no line was printed; its log:\n{}", self.log());
        line
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, to it alone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A signal by name, then waits for its end.
    pub fn end(&mut self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{signal} failed");
        let ended = eventually_some("the program to end", || self.child.try_wait().unwrap());
        let _ = ended;
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // In a group of its own too: a signal to ours must not stop it halfway.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.pid())])
            .stderr(Stdio::null())
            .process_group(0)
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("--- {}\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

/// A directory of one test; removed after it.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("muster-e2e-").tempdir().unwrap()
}

/// The built program of this name, beside the test's own executable.
pub fn program(name: &str) -> PathBuf {
    if let Some(dir) = env::var_os("MUSTER_BIN_DIR") {
        return PathBuf::from(dir).join(name);
    }
    let test = env::current_exe().unwrap();
    let found = test.ancestors().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: make build"))
}

/// Whether the real part that `variable` names is here (see `tests/real/parts.sh`). Where it is not,
/// a test says so and ends, except in CI, which skips nothing.
pub fn has_part(variable: &str) -> bool {
    if env::var_os(variable).is_some() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "{variable} is not set, and CI skips nothing");
    eprintln!("SKIPPED: {variable} is not set: eval \"$(tests/real/parts.sh)\" says why");
    false
}

/// A file or folder of the samples.
pub fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(path)
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Looks again and again until `look` says `Ok`; panics with the last `Err` when it never does.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("waited for {what}; last: {last}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(what, || look().ok_or_else(|| "not yet".to_owned()))
}
