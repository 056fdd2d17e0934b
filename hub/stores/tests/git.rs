//! A branch on a real Git server: two writers at once, and what stays on the disk after many pushes.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use bytes::Bytes;
use muster_daemon::Clock;
use muster_e2e::{GitServer, has_part, scratch};
use muster_stores::{
    Access, Change, Drift, Entry, GitAccess, GitAuth, Secret, StateStore, access::Author, open,
};

/// None, said aloud, where there is no server; CI skips nothing.
fn start(directory: &Path) -> Option<GitServer> {
    let server = has_part("MUSTER_GIT_SERVER").then(|| GitServer::start(directory))?;
    server.repositories().create_empty("fleet");
    Some(server)
}

fn store(server: &GitServer, dir: &Path) -> Box<dyn StateStore> {
    let access = GitAccess {
        url: server.url("fleet"),
        branch: "main".into(),
        auth: GitAuth::Basic { username: "hub".into(), password: Secret::new("let-me-in") },
        authorities: Some(server.authority().into_bytes()),
        author: Author { name: "kratix".into(), email: "kratix@example.org".into() },
        signing_key: None,
        secret: "default/hub".into(),
    };
    open(Access::Git(access), dir, &Clock::default()).unwrap()
}

fn file(path: &str, text: impl Into<String>) -> Entry {
    let change = Change::File { path: path.into(), bytes: Some(Bytes::from(text.into())) };
    Entry { owner: path.into(), change }
}

fn listed(server: &GitServer) -> BTreeSet<String> {
    server.repositories().tree("fleet").into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_branch_lose_nothing_and_hear_of_each_other() {
    let dir = scratch();
    let Some(server) = start(dir.path()) else { return };
    let (one, two) =
        (store(&server, &dir.path().join("one")), store(&server, &dir.path().join("two")));
    const EACH: usize = 8;
    let writes = async |store: &dyn StateStore, name: &str| {
        let mut drift = Drift::None;
        for n in 0..EACH {
            let entries = [file(&format!("{name}/{n}"), n.to_string())];
            let written = store.write(&entries).await.unwrap();
            assert!(written.changed);
            drift = drift.and(written.drift);
        }
        drift
    };
    let drifts = tokio::join!(writes(&*one, "one"), writes(&*two, "two"));
    let all: BTreeSet<_> = ["one", "two"]
        .iter()
        .flat_map(|name| (0..EACH).map(move |n| format!("{name}/{n}")))
        .collect();
    assert_eq!(listed(&server), all);
    assert!(drifts.0 != Drift::None || drifts.1 != Drift::None, "{drifts:?}");
    // Who wrote last knows all; the other one hears of it when it looks.
    let (first, second) = (one.probe().await.unwrap(), two.probe().await.unwrap());
    assert!(first == Drift::None || second == Drift::None, "{first:?} {second:?}");
    let nothing = one.write(&[file("one/0", "0")]).await.unwrap();
    assert!(!nothing.changed && nothing.requests == 0, "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_keeps_no_history() {
    let dir = scratch();
    let Some(server) = start(dir.path()) else { return };
    let own = dir.path().join("own");
    let store = store(&server, &own);
    // One more than the pushes after which the disk is tidied.
    for n in 0..51 {
        store.write(&[file("a", format!("version {n}"))]).await.unwrap();
    }
    let mut command = Command::new("git");
    command.args(["--git-dir"]).arg(own.join("repository.git"));
    let output = command.args(["rev-list", "--all", "--count"]).output().unwrap();
    let commits: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(commits <= 3, "{commits} commits are kept");
    let packs = fs::read_dir(own.join("repository.git/objects/pack")).unwrap().count();
    assert!(packs <= 8, "{packs} files of packs");
    assert_eq!(listed(&server), BTreeSet::from(["a".to_owned()]));
}
