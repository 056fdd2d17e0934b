//! A branch of a Git repository, written with the `git` program.
//!
//! Each store has one bare repository on the hub's disk with the branch's newest commit and nothing
//! of its history. A write is a commit made without a work tree (`git fast-import`) and one push; a
//! push that met a newer commit is made again on top of it.

mod command;
mod commit;
mod login;
mod tokens;
mod words;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use muster_daemon::Backoff;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    Drift, Entry, StateStore, Trouble, Written,
    access::GitAccess,
    change::{Change, read_list},
};
use command::{Asked, Git};
use login::Login;

/// The oldest `git` that is known to do; signing needs 2.34.
pub const GIT_VERSION_MIN: (u32, u32) = (2, 30);
/// How often a push that met newer commits is made again before the others get their turn.
const ATTEMPTS: usize = 10;
/// The first wait after a second rejected push; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait between pushes.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// After how many pushes the disk is tidied: each leaves a small pack and its commit behind.
const UPKEEP_EVERY: u32 = 50;
/// Most paths of others' changes that are told apart; more is "anything".
const DRIFT_MAX: usize = 10_000;
/// How many lists of mode none are read by one process.
const LISTS_AT_ONCE: usize = 200;
/// A tree without entries.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A branch that can be written to.
pub struct GitStore {
    access: GitAccess,
    git: Git,
    login: Login,
    state: Mutex<State>,
}

/// What is known of the branch.
#[derive(Debug, Default)]
struct State {
    /// Whether the repository on disk was made in this life, and `head` was asked for.
    known: bool,
    /// The branch's newest commit; none while it does not exist.
    head: Option<String>,
    /// Whether a push may have arrived though it failed.
    stale: bool,
    /// Pushes since the disk was tidied.
    pushes: u32,
}

impl State {
    /// Trusts the disk no more after git failed in a way that nobody knows.
    fn doubt(&mut self, trouble: Option<&Trouble>) {
        if let Some(trouble) = trouble {
            self.stale = true;
            self.known &= trouble.reason != words::UNKNOWN;
        }
    }
}

/// How a push ended.
enum Pushed {
    /// As `git` tells it.
    Done(String),
    /// The branch has a newer commit.
    Behind,
}

/// Checks that there is a `git`, and that it is new enough. Returns its version.
pub async fn check_program() -> Result<String, Trouble> {
    let lacks = |cause: String| {
        let (major, minor) = GIT_VERSION_MIN;
        let cure = format!("install git {major}.{minor} or newer on the hub's host");
        Trouble::store("GitMissing", format!("{cause}: {cure}"))
    };
    let output = tokio::process::Command::new("git").arg("--version").output().await;
    let output =
        output.map_err(|error| lacks(format!("the program git cannot be run ({error})")))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= GIT_VERSION_MIN => Ok(text),
        _ => Err(lacks(format!("{text:?} is too old"))),
    }
}

impl GitStore {
    /// Prepares the store's directory.
    pub fn open(access: GitAccess, dir: &Path) -> Result<Self, Trouble> {
        let login = Login::new(&access, dir)?;
        let repository: PathBuf = dir.join("repository.git");
        let git = Git::new(repository, login.environment());
        Ok(Self { access, git, login, state: Mutex::default() })
    }

    fn branch(&self) -> String {
        format!("refs/heads/{}", self.access.branch)
    }

    /// Runs `git` for something that asks the server.
    async fn ask(&self, asked: Asked, args: &[&str]) -> Result<String, Trouble> {
        self.login.refresh(&self.access).await?;
        let ran = self.git.run(asked, args, &[]).await;
        let told = ran.map_err(|failure| words::trouble(&failure, &self.access))?;
        Ok(String::from_utf8_lossy(&told).into_owned())
    }

    /// Runs `git` on the disk alone.
    async fn local(&self, args: &[&str], input: &[bytes::Bytes]) -> Result<String, Trouble> {
        let ran = self.git.run(Asked::Disk, args, input).await;
        let told = ran.map_err(|failure| words::trouble(&failure, &self.access))?;
        Ok(String::from_utf8_lossy(&told).into_owned())
    }

    /// Asks for the branch's newest commit, and says what others changed since the last one.
    async fn fetch(&self, state: &mut State) -> Result<Drift, Trouble> {
        let fresh = !state.known;
        if fresh {
            check_program().await?;
            self.git.create().map_err(|error| words::disk(&error))?;
            self.local(&["init", "--quiet", "--bare"], &[]).await?;
        }
        let told = self.remote_head().await?;
        let before = state.head.clone();
        if told == before && !fresh {
            state.stale = false;
            return Ok(Drift::None);
        }
        if told.is_some() {
            self.transfer().await?;
        }
        // It may be newer still than what was told.
        let head = match told {
            Some(_) => Some(self.local(&["rev-parse", "refs/muster/head"], &[]).await?),
            None => None,
        };
        state.head = head.map(|head| head.trim().to_owned());
        (state.known, state.stale) = (true, false);
        match (before, &state.head) {
            (Some(before), Some(head)) if before == *head => Ok(Drift::None),
            (Some(before), Some(head)) if !fresh => Ok(self.difference(&before, head).await),
            // The first look in this life is followed by a write of everything.
            (None, _) if fresh => Ok(Drift::None),
            _ => Ok(Drift::Unknown),
        }
    }

    /// Brings the branch's newest commit, without its history.
    async fn transfer(&self) -> Result<(), Trouble> {
        let refspec = format!("+{}:refs/muster/head", self.branch());
        let url = self.access.url.as_str();
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head"];
        let args: Vec<_> = fetch.into_iter().chain(["--no-auto-gc", url, &refspec]).collect();
        self.ask(Asked::Transfer, &args).await.map(drop)
    }

    /// The branch's newest commit on the server; none in an empty repository.
    async fn remote_head(&self) -> Result<Option<String>, Trouble> {
        let branch = self.branch();
        let args = ["ls-remote", "--heads", "--", self.access.url.as_str(), &branch];
        let told = self.ask(Asked::Probe, &args).await?;
        if let Some(id) = words::advertised(&told, &branch) {
            return Ok(Some(id));
        }
        let args = ["ls-remote", "--heads", "--", self.access.url.as_str()];
        match self.ask(Asked::Probe, &args).await?.trim() {
            "" => Ok(None),
            others => Err(words::no_branch(&self.access, others)),
        }
    }

    async fn difference(&self, before: &str, after: &str) -> Drift {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after];
        // Not knowing what others did is no failure: all is looked at then.
        let Ok(told) = self.local(&args, &[]).await else { return Drift::Unknown };
        let paths: Vec<_> =
            told.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        match paths.len() {
            0 => Drift::None,
            1..=DRIFT_MAX => Drift::Paths(paths),
            _ => Drift::Unknown,
        }
    }

    /// Makes the commit of these entries on top of the newest; none if nothing would change.
    async fn commit(&self, state: &State, entries: &[Entry]) -> Result<Option<String>, Trouble> {
        let parent = state.head.as_deref();
        let lists = self.lists(parent, entries).await?;
        let message = commit::message(entries);
        let seconds = jiff::Timestamp::now().as_second();
        let author = &self.access.author;
        let stream = commit::stream(entries, &lists, parent, &message, author, seconds);
        let args = ["fast-import", "--quiet", "--done", "--force", "--date-format=raw"];
        self.local(&args, &stream).await?;
        let tree = |of: &str| format!("{of}^{{tree}}");
        let (new, old) = (tree("refs/muster/next"), parent.map_or(EMPTY_TREE.to_owned(), tree));
        let told = self.local(&["rev-parse", "refs/muster/next", &new, &old], &[]).await?;
        let ids: Vec<_> = told.split_whitespace().collect();
        match ids[..] {
            [_, new, old] if new == old => Ok(None),
            [commit, _, _] if self.access.signing_key.is_none() => Ok(Some(commit.to_owned())),
            [_, new, _] => self.sign(new, parent, &message).await.map(Some),
            _ => Err(Trouble::store("StateStoreError", "git rev-parse told no commit")),
        }
    }

    async fn sign(
        &self,
        tree: &str,
        parent: Option<&str>,
        message: &str,
    ) -> Result<String, Trouble> {
        let mut args = vec!["commit-tree", "-S", tree, "-F", "-"];
        args.extend(parent.iter().flat_map(|parent| ["-p", parent]));
        let message = bytes::Bytes::from(message.to_owned());
        let signed = self.local(&args, &[message]).await;
        Ok(signed.map_err(|trouble| words::signing(trouble, &self.access))?.trim().to_owned())
    }

    /// What the lists of mode none say now.
    async fn lists(&self, head: Option<&str>, entries: &[Entry]) -> Result<commit::Stale, Trouble> {
        let listed = entries.iter().enumerate().filter_map(|(index, entry)| match &entry.change {
            Change::Listed { list, root, relative_to, .. } => {
                Some((index, list, root, relative_to))
            }
            _ => None,
        });
        let mut stale = commit::Stale::new();
        let Some(head) = head else { return Ok(stale) };
        let listed: Vec<_> = listed.collect();
        for some in listed.chunks(LISTS_AT_ONCE) {
            let names: String =
                some.iter().map(|(_, list, ..)| format!("{head}:{list}\n")).collect();
            let told = self.git.run(Asked::Disk, &["cat-file", "--batch"], &[names.into()]).await;
            let told = told.map_err(|failure| words::trouble(&failure, &self.access))?;
            let texts = commit::blobs(&told);
            for ((index, _, root, relative_to), text) in some.iter().zip(texts) {
                let text = text.unwrap_or_default();
                stale.insert(*index, read_list(text, root, relative_to));
            }
        }
        Ok(stale)
    }

    async fn push(&self, commit: &str) -> Result<Pushed, Trouble> {
        let refspec = format!("{commit}:{}", self.branch());
        let args = ["push", "--porcelain", "--no-verify", self.access.url.as_str(), &refspec];
        self.pushed(Asked::Transfer, &args).await
    }

    async fn pushed(&self, asked: Asked, args: &[&str]) -> Result<Pushed, Trouble> {
        self.login.refresh(&self.access).await?;
        match self.git.run(asked, args, &[]).await {
            Ok(told) => Ok(Pushed::Done(String::from_utf8_lossy(&told).into_owned())),
            Err(failure) if words::met_newer(&failure) => Ok(Pushed::Behind),
            Err(failure) => Err(words::trouble(&failure, &self.access)),
        }
    }

    async fn write(&self, entries: &[Entry]) -> Result<Written, Trouble> {
        let mut state = self.state.lock().await;
        let written = self.write_all(&mut state, entries).await;
        state.doubt(written.as_ref().err());
        written
    }

    async fn write_all(&self, state: &mut State, entries: &[Entry]) -> Result<Written, Trouble> {
        let mut written = Written::default();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        for attempt in 0..ATTEMPTS {
            // The second try is at once, the others make room for whoever is so busy.
            if attempt > 1 {
                sleep(backoff.wait()).await;
            }
            if !state.known || state.stale || attempt > 0 {
                let drift = self.fetch(state).await?;
                written.drift = std::mem::take(&mut written.drift).and(drift);
            }
            let version = match self.commit(state, entries).await? {
                // What is on disk may be old: only the server says that nothing is to be done.
                None if self.remote_head().await? == state.head => {
                    state.head.clone().unwrap_or_default()
                }
                None => continue,
                Some(commit) => {
                    written.requests += 1;
                    if let Pushed::Behind = self.push(&commit).await? {
                        continue;
                    }
                    written.changed = true;
                    state.head = Some(commit.clone());
                    state.pushes += 1;
                    commit
                }
            };
            written.versions = vec![version; entries.len()];
            self.upkeep(state).await;
            return Ok(written);
        }
        Err(words::contended(&self.access, ATTEMPTS))
    }

    async fn probe(&self) -> Result<Drift, Trouble> {
        let mut state = self.state.lock().await;
        let drift = self.probe_branch(&mut state).await;
        state.doubt(drift.as_ref().err());
        drift
    }

    async fn probe_branch(&self, state: &mut State) -> Result<Drift, Trouble> {
        let mut drift = Drift::None;
        if !state.known {
            drift = self.fetch(state).await?;
        }
        for _ in 0..2 {
            let commit = match &state.head {
                Some(head) => head.clone(),
                None => {
                    self.local(&["hash-object", "-w", "-t", "tree", "/dev/null"], &[]).await?;
                    let made = self.local(&["commit-tree", EMPTY_TREE, "-m", "probe"], &[]).await?;
                    made.trim().to_owned()
                }
            };
            let refspec = format!("{commit}:{}", self.branch());
            let url = self.access.url.as_str();
            let args = ["push", "--dry-run", "--porcelain", "--no-verify", url, &refspec];
            match self.pushed(Asked::Probe, &args).await? {
                Pushed::Done(told) if state.head.is_none() || words::is_there(&told) => {
                    return Ok(drift);
                }
                // Somebody pushed, or went back to an older commit, or removed the branch.
                Pushed::Done(_) | Pushed::Behind => drift = drift.and(self.fetch(state).await?),
            }
        }
        Ok(drift)
    }

    /// Forgets what history has come together on disk; failing at it loses nothing.
    async fn upkeep(&self, state: &mut State) {
        if state.pushes < UPKEEP_EVERY {
            return;
        }
        state.pushes = 0;
        let tidied = async {
            self.transfer().await?;
            self.local(&["update-ref", "-d", "refs/muster/next"], &[]).await?;
            self.local(&["gc", "--quiet", "--prune=now"], &[]).await?;
            self.local(&["rev-parse", "refs/muster/head"], &[]).await
        };
        match tidied.await {
            Ok(head) if Some(head.trim()) == state.head.as_deref() => {}
            // Others may have pushed in between; then it is looked at anew.
            Ok(_) | Err(_) => state.known = false,
        }
    }
}

impl StateStore for GitStore {
    fn probe(&self) -> BoxFuture<'_, Result<Drift, Trouble>> {
        self.probe().boxed()
    }

    fn write<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<Written, Trouble>> {
        self.write(entries).boxed()
    }
}
