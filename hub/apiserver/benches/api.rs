//! Figures of the API, in process: durable writes, reads, lists, and changes seen by watchers.
//! `cargo bench -p muster-apiserver`; it prints medians and rates, and asserts nothing.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use serde_json::json;

const WRITES: usize = 2_000;
const OBJECTS: usize = 10_000;
const WATCHERS: usize = 100;
const CHANGES: usize = 100;

fn main() {
    // What test runners ask of every target.
    if std::env::args().any(|arg| arg == "--list" || arg == "--test") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("profile: {profile}");
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
    println!("start, empty: {:?}", begun.elapsed());
    let client = Client::new(api.service(UserInfo::admin()), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    writes(&maps).await;
    fill(&maps).await;
    reads(&maps).await;
    watches(&maps).await;
    api.close().await;
    let begun = Instant::now();
    let _api = ApiServer::open(Config::new(dir.path())).await.unwrap();
    println!("start with {} objects: {:?}", OBJECTS + 2 * WRITES, begun.elapsed());
}

fn map(name: &str) -> ConfigMap {
    let filler = "x".repeat(800);
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"part": name.len().to_string()}},
        "data": {"filler": filler},
    }))
    .unwrap()
}

async fn writes(maps: &Api<ConfigMap>) {
    for writers in [1, 16] {
        let begun = Instant::now();
        let mut times = create(maps, &format!("w{writers}"), WRITES, writers).await;
        let rate = WRITES as f64 / begun.elapsed().as_secs_f64();
        times.sort();
        let (p50, p99) = (times[WRITES / 2], times[WRITES * 99 / 100]);
        println!("create, {writers} at once: {rate:.0}/s, p50 {p50:?}, p99 {p99:?}");
    }
    let begun = Instant::now();
    for count in 0..500 {
        let patch = Patch::Merge(json!({"data": {"count": count.to_string()}}));
        maps.patch("w1-0", &PatchParams::default(), &patch).await.unwrap();
    }
    println!("merge patch, 1 at once: {:.0}/s", 500.0 / begun.elapsed().as_secs_f64());
}

async fn fill(maps: &Api<ConfigMap>) {
    create(maps, "fill", OBJECTS, 64).await;
}

async fn create(
    maps: &Api<ConfigMap>,
    prefix: &str,
    count: usize,
    writers: usize,
) -> Vec<Duration> {
    futures::stream::iter(0..count)
        .map(|index| async move {
            let begun = Instant::now();
            let map = map(&format!("{prefix}-{index}"));
            maps.create(&PostParams::default(), &map).await.unwrap();
            begun.elapsed()
        })
        .buffer_unordered(writers)
        .collect()
        .await
}

async fn reads(maps: &Api<ConfigMap>) {
    let begun = Instant::now();
    for index in 0..5_000 {
        maps.get(&format!("fill-{index}")).await.unwrap();
    }
    println!("get: {:?} each", begun.elapsed() / 5_000);
    let begun = Instant::now();
    let found = maps.list_metadata(&ListParams::default().labels("part=6")).await.unwrap();
    println!("list by label, {} found: {:?}", found.items.len(), begun.elapsed());
    let begun = Instant::now();
    let found = maps.list(&ListParams::default()).await.unwrap();
    println!("list and parse all {}: {:?}", found.items.len(), begun.elapsed());
}

async fn watches(maps: &Api<ConfigMap>) {
    let since = maps.list(&ListParams::default().limit(1)).await.unwrap();
    let since = since.metadata.resource_version.unwrap();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let (maps, since) = (maps.clone(), since.clone());
        watchers.spawn(async move {
            let events = maps.watch(&WatchParams::default(), &since).await.unwrap();
            events
                .try_filter(|event| std::future::ready(matches!(event, WatchEvent::Added(_))))
                .take(CHANGES)
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .len()
        });
    }
    let begun = Instant::now();
    create(maps, "seen", CHANGES, 16).await;
    let seen: usize = watchers.join_all().await.into_iter().sum();
    let rate = seen as f64 / begun.elapsed().as_secs_f64();
    println!("{CHANGES} changes seen and parsed by {WATCHERS} watchers: {rate:.0} events/s");
}
