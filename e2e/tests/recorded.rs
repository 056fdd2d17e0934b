//! What real Kratix was seen to do, done by a hub: recorded scenarios are played against it, and what
//! can be seen is compared: statuses, printed tables, refusals, what is written to stores.
//!
//! The recordings are not part of this repository. They are looked for in `$MUSTER_RECORDED`, else
//! beside it. `MUSTER_SCENARIOS=03,28` plays only these; `MUSTER_RECORDINGS` names a directory to
//! keep what was recorded here.

use std::{
    collections::VecDeque,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use muster_e2e::{GitServer, Hub, HubOptions, S3Server, has_part, scratch};
use serde_json::json;

/// How many scenarios are played side by side: they mostly wait for nothing to happen any more, but
/// each has a hub of its own.
const SIDE_BY_SIDE: usize = 2;
/// What else must be here.
const PARTS: [&str; 3] = ["MUSTER_PYTHON", "MUSTER_GIT_SERVER", "MUSTER_S3_SERVER"];

/// What all scenarios share.
struct Stage {
    recorded: PathBuf,
    directory: PathBuf,
    recordings: PathBuf,
    git: GitServer,
    s3: S3Server,
}

#[test]
fn does_what_kratix_was_seen_to_do() {
    let Some(recorded) = recorded() else {
        eprintln!("SKIPPED: no recordings of Kratix in $MUSTER_RECORDED, nor beside this checkout");
        return;
    };
    if !PARTS.iter().all(|part| has_part(part)) {
        return;
    }
    let directory = scratch();
    let recordings = env::var_os("MUSTER_RECORDINGS").map(PathBuf::from);
    let stage = Stage {
        recorded,
        directory: directory.path().to_owned(),
        recordings: recordings.unwrap_or_else(|| directory.path().join("recordings")),
        git: GitServer::start(directory.path()),
        s3: S3Server::start(directory.path()),
    };
    fs::create_dir_all(&stage.recordings).unwrap();
    let waiting = Mutex::new(stage.scenarios());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(scenario) = next(&waiting) {
                    stage.play(&scenario);
                }
            });
        }
    });
    stage.compare();
}

/// The folder of the recordings.
fn recorded() -> Option<PathBuf> {
    if let Some(named) = env::var_os("MUSTER_RECORDED") {
        let named = PathBuf::from(named);
        assert!(named.join("golden").is_dir(), "MUSTER_RECORDED names no recordings: {named:?}");
        return Some(named);
    }
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let beside = checkout.parent()?.join("shared/kratix-recorded");
    beside.join("golden").is_dir().then_some(beside)
}

fn next(waiting: &Mutex<VecDeque<String>>) -> Option<String> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

impl Stage {
    fn scenarios(&self) -> VecDeque<String> {
        let entries = fs::read_dir(self.recorded.join("scenarios")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let wanted = env::var("MUSTER_SCENARIOS").unwrap_or_default();
        let wanted: Vec<_> = wanted.split(',').collect();
        let mut names: Vec<_> =
            names.filter(|name| wanted.iter().any(|start| name.starts_with(start))).collect();
        names.sort();
        assert!(!names.is_empty(), "no scenarios begin with {wanted:?}");
        names.into()
    }

    /// Plays a scenario against a fresh hub.
    fn play(&self, scenario: &str) {
        let directory = self.directory.join(scenario);
        fs::create_dir_all(&directory).unwrap();
        let options = HubOptions::default();
        let hub = Hub::start_trusting(&directory, options, Some(self.git.authority_file()));
        let environment = json!({
            "kubeconfig": hub.kubeconfig(),
            "gitRoot": self.git.root(),
            "gitUrl": self.git.base(),
            "gitUser": GitServer::USER,
            "gitPass": GitServer::PASSWORD,
            "s3Root": self.s3.root(),
            "s3Endpoint": self.s3.endpoint(),
            "s3Key": S3Server::ID,
            "s3Secret": S3Server::SECRET,
        });
        fs::write(directory.join("env.json"), environment.to_string()).unwrap();
        let played = python("player.py")
            .arg(&self.recorded)
            .arg(scenario)
            .arg("--env")
            .arg(directory.join("env.json"))
            .arg("--out")
            .arg(self.recordings.join(format!("{scenario}.json")))
            .arg("--quiet")
            .status();
        assert!(played.unwrap().success(), "{scenario} could not be played");
        if let Some(kept) = env::var_os("MUSTER_RECORDINGS") {
            let log = Path::new(&kept).join(format!("{scenario}.log"));
            fs::copy(directory.join("hub.log"), log).unwrap();
        }
    }

    fn compare(&self) {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/rules.yaml");
        let mut compare = python("comparer.py");
        let compared = compare.arg(&self.recorded).arg(&self.recordings).arg(rules).output();
        let compared = compared.unwrap();
        let told = String::from_utf8_lossy(&compared.stdout);
        eprintln!("{told}{}", String::from_utf8_lossy(&compared.stderr));
        assert!(compared.status.success(), "differs from Kratix without a rule; see above");
    }
}

fn python(script: &str) -> Command {
    let python = env::var_os("MUSTER_PYTHON").expect("MUSTER_PYTHON is not set");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(script));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
