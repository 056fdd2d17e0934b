//! What was answered survives `kill -9`: a child process writes as fast as it can and says what
//! has been answered; it is killed in the middle, and everything that it said must be there.

#[path = "shared/home.rs"]
mod home;

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use serde_json::json;

use home::config_map;

const ROUNDS: u64 = 8;
/// Writers in parallel, so that groups of changes are committed together.
const WRITERS: usize = 8;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--write") => runtime.block_on(write(Path::new(&args[2]), &args[3])),
        // What cargo and test runners pass asks for a list or a filter: there is one test.
        Some("--list") => println!("keeps_what_it_has_answered: test"),
        _ => {
            runtime.block_on(keeps_what_it_has_answered());
            println!("test keeps_what_it_has_answered ... ok");
        }
    }
}

/// The child: each answered write is a line `made NAME`, `changed NAME` or `removed NAME`.
async fn write(dir: &Path, round: &str) {
    let api = ApiServer::open(Config::new(dir)).await.unwrap();
    let client = Client::new(api.service(UserInfo::admin()), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let writers = (0..WRITERS).map(|writer| {
        let (maps, round) = (maps.clone(), round.to_owned());
        tokio::spawn(async move {
            for count in 0.. {
                let name = format!("r{round}-w{writer}-{count}");
                maps.create(&PostParams::default(), &config_map(&name, "new")).await.unwrap();
                say("made", &name);
                let patch = Patch::Merge(json!({"data": {"key": "changed"}}));
                maps.patch(&name, &PatchParams::default(), &patch).await.unwrap();
                say("changed", &name);
                if count % 3 == 0 {
                    maps.delete(&name, &DeleteParams::default()).await.unwrap();
                    say("removed", &name);
                }
            }
        })
    });
    futures::future::join_all(writers).await;
}

fn say(what: &str, name: &str) {
    // One write call a line: a killed child leaves no half line but the last.
    std::io::stdout().write_all(format!("{what} {name}\n").as_bytes()).unwrap();
}

async fn keeps_what_it_has_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::new();
    let mut newest = 0;
    for round in 0..ROUNDS {
        for (what, name) in kill_amid_writes(dir.path(), round) {
            told.insert(name, what);
        }
        let api = ApiServer::open(Config::new(dir.path())).await.unwrap();
        let client = Client::new(api.service(UserInfo::admin()), "default");
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let list = maps.list(&ListParams::default()).await.unwrap();
        let revision: u64 = list.metadata.resource_version.clone().unwrap().parse().unwrap();
        assert!(revision > newest, "revisions only grow: {revision} after {newest}");
        newest = revision;
        check(&told, list.items, revision);
        api.close().await;
    }
}

fn check(told: &BTreeMap<String, String>, found: Vec<ConfigMap>, revision: u64) {
    let mut revisions = HashSet::new();
    let found: BTreeMap<String, ConfigMap> =
        found.into_iter().map(|map| (map.name_any(), map)).collect();
    for map in found.values() {
        let own: u64 = map.resource_version().unwrap().parse().unwrap();
        assert!(own <= revision && revisions.insert(own), "{} at {own}", map.name_any());
    }
    for (name, what) in told {
        let map = found.get(name);
        let value = || map.unwrap().data.as_ref().unwrap()["key"].as_str();
        match what.as_str() {
            "removed" => assert!(map.is_none(), "{name} was removed"),
            // The next step of its writer may have been on its way.
            "made" => assert!(map.is_some(), "{name} was made"),
            _ if map.is_some() => assert_eq!(value(), "changed", "{name}"),
            _ => assert!(is_third(name), "{name} was changed and is gone"),
        }
    }
}

fn is_third(name: &str) -> bool {
    name.rsplit('-').next().unwrap().parse::<u32>().unwrap().is_multiple_of(3)
}

/// Lets a child write and kills it; the answer is what it said.
fn kill_amid_writes(dir: &Path, round: u64) -> Vec<(String, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--write", dir.to_str().unwrap(), &round.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let enough = 40 + round as usize * 37;
    let mut told: Vec<String> = lines.by_ref().take(enough).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(lines.map_while(Result::ok));
    let split = |line: String| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    told.into_iter().filter_map(split).collect()
}
