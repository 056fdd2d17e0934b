//! A bucket at Amazon's dual-stack hosts, which a real S3 server stands for: asked by IPv4 where the
//! name has such an address, and by IPv6 where it has only that.
//!
//! The program is its own child in a network namespace with nothing but loopback, and in a mount
//! namespace with an `/etc/hosts` of its own, where that host's name leads to loopback.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use bytes::Bytes;
use muster_daemon::Clock;
use muster_e2e::{S3Server, has_part};
use muster_stores::{Access, BucketAccess, BucketAuth, Change, Entry, Secret, StateStore, open};

const NAME: &str = "amazons_dual_stack_hosts_are_asked_by_both_protocols";
const REGION: &str = "eu-west-1";
const ENDPOINT: &str = "s3.eu-west-1.amazonaws.com";
const HOST: &str = "s3.dualstack.eu-west-1.amazonaws.com";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--inside") => {
            tokio::runtime::Runtime::new().unwrap().block_on(inside(Path::new(&args[2])));
        }
        Some("--list") => println!("{NAME}: test"),
        _ => return outside(),
    }
    ExitCode::SUCCESS
}

fn outside() -> ExitCode {
    if !has_part("MUSTER_S3_SERVER") {
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::tempdir().unwrap();
    let (place, hosts) = (dir.path().display(), dir.path().join("hosts"));
    fs::write(&hosts, "").unwrap();
    let hosts = hosts.display();
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        let prepared = format!("ip link set lo up && mount --bind {hosts} /etc/hosts && {then}");
        command.args(["-m", "-n", "sh", "-c", &prepared]);
        command
    };
    if !in_namespace("true").status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "there are no namespaces, and CI skips nothing");
        println!("SKIPPED: {NAME}: namespaces need root, unshare and ip");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().unwrap();
    let status = in_namespace(&format!("exec {} --inside {place}", own.display())).status();
    let status = status.unwrap();
    assert!(status.success(), "{status}");
    println!("test {NAME} ... ok");
    ExitCode::SUCCESS
}

async fn inside(place: &Path) {
    let (server, authority) = S3Server::start_as(place, HOST, REGION);
    server.create("pail");
    for (address, file) in [("127.0.0.1", "by-ipv4"), ("::1", "by-ipv6")] {
        fs::write("/etc/hosts", format!("{address} {HOST}\n")).unwrap();
        let bytes = Some(Bytes::from_static(b"hello"));
        let change = Change::File { path: file.into(), bytes };
        let entry = Entry { owner: file.into(), change };
        let store = opened(true, &authority);
        store.probe().await.unwrap();
        assert!(store.write(&[entry]).await.unwrap().changed, "{file}");
        assert_eq!(server.read("pail", file).as_deref(), Some(&b"hello"[..]), "{file}");
    }
    // Unasked, it is the host that was named, which nobody here knows.
    let refused = opened(false, &authority).probe().await.unwrap_err();
    assert!(refused.message.contains(ENDPOINT), "{refused}");
}

fn opened(dual_stack: bool, authority: &[u8]) -> Box<dyn StateStore> {
    let access = BucketAccess {
        bucket: "pail".into(),
        endpoint: ENDPOINT.into(),
        insecure: false,
        dual_stack,
        auth: BucketAuth::Key { id: S3Server::ID.into(), secret: Secret::new(S3Server::SECRET) },
        authorities: Some(authority.to_vec()),
        secret: "default/pail".into(),
    };
    open(Access::Bucket(access), &std::env::temp_dir(), &Clock::default()).unwrap()
}
