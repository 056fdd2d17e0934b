//! The tests that kube-client's authors wrote against a cluster, from its crate on crates.io, run
//! against the embedded API.
//!
//! The crate's source is where cargo keeps it; a copy below `target/` is built with the versions of
//! this workspace's `Cargo.lock`.

#[path = "shared/home.rs"]
mod home;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{net::TcpListener, process::Command};
use tokio_util::sync::CancellationToken;

use home::Home;

/// What a kube-apiserver without nodes fails, too: these need a container that runs.
const NEED_A_KUBELET: [&str; 2] = ["pod_can_exec_and_write_to_stdin", "can_get_pod_logs_and_evict"];

/// So many of the crate's tests want a cluster.
const TESTS: usize = 21;

/// What its tests want of itself: the crate that it is a part of, with itself in its place.
const ADDITIONS: &str = r#"
[dev-dependencies.kube]
version = "=KUBE"
features = ["derive", "runtime", "ws"]

[patch.crates-io]
kube-client = { path = "." }

[workspace]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn passes_what_a_cluster_without_nodes_passes() {
    let home = Home::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = home.dir.path().join("admin.kubeconfig");
    home.api.write_admin_kubeconfig(&kubeconfig, listener.local_addr().unwrap()).unwrap();
    let api = home.api.clone();
    tokio::spawn(async move { api.serve(listener, CancellationToken::new()).await });
    let results = run(&copy_of_the_crate().await, &kubeconfig).await;
    let failed: Vec<&str> =
        results.iter().filter(|(_, ok)| !**ok).map(|(name, _)| name.as_str()).collect();
    println!("{} of {} pass; not: {failed:?}", results.len() - failed.len(), results.len());
    assert_eq!(results.len(), TESTS, "{results:#?}");
    let unexpected: Vec<&&str> = failed.iter().filter(|n| !NEED_A_KUBELET.contains(n)).collect();
    assert!(unexpected.is_empty(), "these pass on a kube-apiserver: {unexpected:?}");
}

async fn copy_of_the_crate() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root);
    let output = metadata.stderr(Stdio::inherit()).output().await.unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |name: &str| {
        let mut all = metadata["packages"].as_array().unwrap().iter();
        all.find(|package| package["name"] == name).unwrap()
    };
    let client = package("kube-client");
    let source = Path::new(client["manifest_path"].as_str().unwrap()).parent().unwrap();
    let target = Path::new(metadata["target_directory"].as_str().unwrap());
    let copy = target.join("kube-client").join(client["version"].as_str().unwrap());
    copy_folder(source, &copy);
    let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
    let additions = ADDITIONS.replace("KUBE", package("kube")["version"].as_str().unwrap());
    write_if_changed(&copy.join("Cargo.toml"), &format!("{manifest}{additions}"));
    let lock = copy.join("Cargo.lock");
    if !lock.exists() {
        fs::copy(root.join("Cargo.lock"), lock).unwrap();
    }
    copy
}

/// Copies what is not there yet; the crate's own lock and manifest are replaced by ours.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else if !["Cargo.toml", "Cargo.lock"].map(Into::into).contains(&entry.file_name())
            && !target.exists()
        {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A file written anew is built anew.
fn write_if_changed(file: &Path, text: &str) {
    if fs::read_to_string(file).ok().as_deref() != Some(text) {
        fs::write(file, text).unwrap();
    }
}

/// Runs the tests: which there were, and whether they passed.
async fn run(folder: &Path, kubeconfig: &Path) -> BTreeMap<String, bool> {
    let features = "ws,rustls-tls,ring,unstable-client,jsonpatch";
    let mut tests = Command::new(env!("CARGO"));
    tests.args(["test", "--lib", "--features", features, "--", "--ignored"]);
    tests.current_dir(folder).env("KUBECONFIG", kubeconfig);
    tests.env("CARGO_TARGET_DIR", folder.parent().unwrap().join("target"));
    let output = tests.stderr(Stdio::inherit()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let results = text.lines().filter_map(|line| {
        let (path, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let name = path.split([' ']).next()?.rsplit("::").next()?;
        Some((name.to_owned(), result == "ok"))
    });
    results.collect()
}
