//! A real file system without room: reads and deletions go on, other writes are refused with the
//! cause, nothing that was answered is lost, and it goes on when there is room again.
//!
//! The program is its own child in a mount namespace of its own, where it mounts a small tmpfs.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use serde_json::json;

const SIZE: &str = "size=128m,mode=0700";
/// Room that somebody else takes and gives back: more than the reserve needs to be taken again.
const BALLAST_BYTES: usize = 60 << 20;
const OBJECT_BYTES: usize = 200_000;
/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--inside") => tokio::runtime::Runtime::new().unwrap().block_on(inside(&args[2])),
        Some("--list") => println!("lives_through_a_full_disk: test"),
        _ => return outside(),
    }
    ExitCode::SUCCESS
}

fn outside() -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o {SIZE} tmpfs {place}");
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{mount} && {then}")]);
        command
    };
    if !in_namespace("true").status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no tmpfs can be mounted, and CI skips nothing");
        println!("SKIPPED: lives_through_a_full_disk: mounting a tmpfs needs root and unshare");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().unwrap();
    let then = format!("exec {} --inside {place}", own.display());
    let status = in_namespace(&then).status().unwrap();
    assert!(status.success(), "{status}");
    println!("test lives_through_a_full_disk ... ok");
    ExitCode::SUCCESS
}

async fn inside(place: &str) {
    let (dir, ballast) = (Path::new(place).join("data"), Path::new(place).join("ballast"));
    fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let mut made = BTreeSet::new();
    let (api, maps) = open(&dir).await;
    let refusal = fill(&maps, &mut made).await;
    for part in ["the disk is full", dir.to_str().unwrap(), "deleted"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert_eq!(names(&maps).await, made, "reads go on");
    for name in made.iter().take(3).cloned().collect::<Vec<_>>() {
        maps.delete(&name, &DeleteParams::default()).await.unwrap();
        made.remove(&name);
    }
    println!("full at {} objects; deletions work", made.len());

    // Closed and opened on the full disk: what was answered is there, and no more is taken.
    api.close().await;
    let (api, maps) = open(&dir).await;
    assert_eq!(names(&maps).await, made);
    assert!(create(&maps, "more").await.is_err());

    // Somebody makes room.
    fs::remove_file(&ballast).unwrap();
    until_created(&maps, "after").await;
    made.insert("after".to_owned());
    println!("room was made: writes go on");

    // Full again, this time with objects alone: their deletion makes the room.
    fill(&maps, &mut made).await;
    for name in std::mem::take(&mut made) {
        maps.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    until_created(&maps, "again").await;
    made.insert("again".to_owned());
    println!("deletions made room: writes go on");
    api.close().await;
    let (_api, maps) = open(&dir).await;
    assert_eq!(names(&maps).await, made);
}

async fn open(dir: &Path) -> (ApiServer, Api<ConfigMap>) {
    let api = ApiServer::open(Config::new(dir)).await.unwrap();
    let client = Client::new(api.service(UserInfo::admin()), "default");
    (api, Api::default_namespaced(client))
}

async fn create(maps: &Api<ConfigMap>, name: &str) -> Result<(), String> {
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": name}, "data": {"filler": "x".repeat(OBJECT_BYTES)},
    }))
    .unwrap();
    match maps.create(&PostParams::default(), &map).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 503, "{status:?}");
            Err(status.message)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Creates until there is no room; what the server says then.
async fn fill(maps: &Api<ConfigMap>, made: &mut BTreeSet<String>) -> String {
    for count in 0.. {
        let name = format!("fill-{count:04}");
        if made.contains(&name) {
            continue;
        }
        match create(maps, &name).await {
            Ok(()) => drop(made.insert(name)),
            Err(refusal) => return refusal,
        }
    }
    String::new()
}

async fn until_created(maps: &Api<ConfigMap>, name: &str) {
    let begun = Instant::now();
    while let Err(refusal) = create(maps, name).await {
        assert!(begun.elapsed() < PATIENCE, "{refusal}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn names(maps: &Api<ConfigMap>) -> BTreeSet<String> {
    let all = maps.list(&ListParams::default()).await.unwrap();
    all.items.iter().map(|map| map.name_any()).filter(|name| !name.starts_with("kube-")).collect()
}
