//! Real file systems without room, the hub's own and the server's: what was to be written is told
//! with the cause and the cure, and is written once there is room.
//!
//! The program is its own child in a mount namespace of its own, where it mounts small tmpfs.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use bytes::Bytes;
use muster_daemon::Clock;
use muster_e2e::{GitServer, S3Server, has_part};
use muster_stores::{
    Access, BucketAccess, BucketAuth, Change, Entry, GitAccess, GitAuth, Secret, StateStore,
    access::Author, open,
};

const SIZE: &str = "size=24m,mode=0700";
/// A file that does not fit beside the ballast, and does without it.
const FILE_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--inside") => tokio::runtime::Runtime::new().unwrap().block_on(inside(&args[2])),
        Some("--list") => println!("a_full_disk_loses_nothing: test"),
        _ => return outside(),
    }
    ExitCode::SUCCESS
}

fn outside() -> ExitCode {
    if !has_part("MUSTER_GIT_SERVER") || !has_part("MUSTER_S3_SERVER") {
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let mount = ["hub", "servers"].map(|name| {
        format!("mkdir -p {place}/{name} && mount -t tmpfs -o {SIZE} tmpfs {place}/{name}")
    });
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{} && {then}", mount.join(" && "))]);
        command
    };
    if !in_namespace("true").status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no tmpfs can be mounted, and CI skips nothing");
        println!("SKIPPED: a_full_disk_loses_nothing: mounting a tmpfs needs root and unshare");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().unwrap();
    let then = format!("exec {} --inside {place}", own.display());
    let status = in_namespace(&then).status().unwrap();
    assert!(status.success(), "{status}");
    println!("test a_full_disk_loses_nothing ... ok");
    ExitCode::SUCCESS
}

async fn inside(place: &str) {
    let (hub, servers) = (Path::new(place).join("hub"), Path::new(place).join("servers"));
    let git = GitServer::start(&servers);
    git.repositories().create("fleet");
    let store = open(of_git(&git), &hub, &Clock::default()).unwrap();
    full(
        &*store,
        "git-hub",
        &hub,
        &["no space is left on the disk of the hub's data directory: make room"],
    )
    .await;
    full(
        &*store,
        "git-server",
        &servers,
        &["no space is left on the disk of https://", "make room"],
    )
    .await;
    let tree = git.repositories().tree("fleet");
    for name in ["git-hub", "git-server"] {
        assert_eq!(tree[name].len(), FILE_BYTES, "{name} of {:?}", tree.keys());
    }
    drop((store, git));
    for folder in fs::read_dir(&servers).unwrap().flatten() {
        if folder.path().is_dir() {
            fs::remove_dir_all(folder.path()).unwrap();
        }
    }
    let s3 = S3Server::start(&servers);
    s3.create("pail");
    let store = open(of_bucket(&s3), &hub, &Clock::default()).unwrap();
    full(&*store, "s3-server", &servers, &["make"]).await;
    assert_eq!(s3.tree("pail")["s3-server"].len(), FILE_BYTES);
}

/// Writes a file to a full disk, and again when there is room.
async fn full(store: &dyn StateStore, name: &str, disk: &Path, words: &[&str]) {
    // Bytes that cannot be packed: room is what is asked for.
    let bytes = Command::new("head").args(["-c", &FILE_BYTES.to_string(), "/dev/urandom"]).output();
    let bytes = Some(Bytes::from(bytes.unwrap().stdout));
    let entry = Entry { owner: name.into(), change: Change::File { path: name.into(), bytes } };
    store.probe().await.unwrap();
    let ballast = disk.join("ballast");
    // All but a megabyte: programs start, and what they are given does not fit.
    let fill = format!(
        "! dd if=/dev/zero bs=64k of={at} 2>/dev/null && truncate -s -1M {at}",
        at = ballast.display()
    );
    assert!(Command::new("sh").args(["-c", &fill]).status().unwrap().success(), "{fill}");
    let refused = store.write(std::slice::from_ref(&entry)).await.unwrap_err();
    println!("{name}: {refused}");
    for word in words {
        assert!(refused.message.contains(word), "{name}: {refused}");
    }
    fs::remove_file(ballast).unwrap();
    assert!(store.write(&[entry]).await.unwrap().changed);
}

fn of_git(server: &GitServer) -> Access {
    Access::Git(GitAccess {
        url: server.url("fleet"),
        branch: "main".into(),
        auth: GitAuth::Basic { username: "hub".into(), password: Secret::new("let-me-in") },
        authorities: Some(server.authority().into_bytes()),
        author: Author { name: "kratix".into(), email: "kratix@example.org".into() },
        signing_key: None,
        secret: "default/hub".into(),
    })
}

fn of_bucket(server: &S3Server) -> Access {
    Access::Bucket(BucketAccess {
        bucket: "pail".into(),
        endpoint: server.endpoint(),
        insecure: true,
        dual_stack: false,
        auth: BucketAuth::Key { id: S3Server::ID.into(), secret: Secret::new(S3Server::SECRET) },
        authorities: None,
        secret: "default/pail".into(),
    })
}
