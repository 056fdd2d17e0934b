//! The repository checks itself: layers, budgets, and that every file says what it is for.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Longest source file, in lines, tests included.
const FILE_LINES_MAX: usize = 600;

/// What each crate may import of ours, and which crates of others it may never import directly.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("muster-core", &[], &["tokio", "kube", "prost", "tonic"]),
    ("muster-api", &["muster-core"], &["tokio", "kube", "tonic"]),
    ("muster-wire", &["muster-core"], &["kube"]),
    ("muster-daemon", &[], &["kube", "prost", "tonic"]),
    ("muster-apiserver", &["muster-daemon"], &["tonic", "kube"]),
    ("muster-fuzz", &["muster-apiserver"], &["tonic", "kube"]),
    ("muster-runner", &["muster-daemon", "muster-core"], &["tonic"]),
    ("muster-plan", &["muster-core", "muster-api"], &["tokio", "kube", "tonic"]),
    ("muster-stores", &["muster-core", "muster-daemon"], &["kube", "tonic"]),
    (
        "muster-control",
        &["muster-core", "muster-api", "muster-plan", "muster-stores", "muster-daemon"],
        &["tonic", "axum"],
    ),
    ("muster-gateway", &["muster-core", "muster-wire", "muster-daemon"], &["kube", "axum"]),
    (
        "muster",
        &[
            "muster-core",
            "muster-api",
            "muster-apiserver",
            "muster-runner",
            "muster-plan",
            "muster-stores",
            "muster-control",
            "muster-gateway",
            "muster-daemon",
        ],
        &["tonic"],
    ),
    ("muster-agent-plan", &["muster-core"], &["tokio", "kube", "tonic"]),
    ("muster-appliers", &["muster-core", "muster-daemon"], &["tonic"]),
    ("muster-link", &["muster-core", "muster-wire", "muster-daemon"], &["kube"]),
    (
        "muster-agent",
        &["muster-core", "muster-agent-plan", "muster-appliers", "muster-link", "muster-daemon"],
        &["tonic"],
    ),
    ("muster-e2e", &["muster-api"], &[]),
];

#[test]
fn crates_import_only_what_their_layer_allows() {
    let layers: BTreeMap<_, _> =
        LAYERS.iter().map(|(name, ours, not)| (*name, (ours, not))).collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in normal_dependencies() {
        if package == "muster-tests" {
            continue;
        }
        let (ours, banned) = layers.get(package.as_str()).unwrap_or_else(|| {
            panic!("{package} has no row in LAYERS: a crate must buy a ban or a binary")
        });
        for dependency in dependencies {
            let internal = dependency == "muster" || dependency.starts_with("muster-");
            if internal && !ours.contains(&dependency.as_str())
                || banned.contains(&dependency.as_str())
            {
                wrong.push(format!("{package} imports {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers of ARCHITECTURE.md: {wrong:#?}");
}

#[test]
fn every_source_file_says_what_it_is_for_and_stays_within_its_budget() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let lines = text.lines().count();
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: does not open with //!"));
        }
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name}: {lines} lines, over {FILE_LINES_MAX}"));
        }
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            wrong.push(format!("{name}: write foo.rs beside foo/"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_inherits_the_lints() {
    for (package, manifest) in manifests() {
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{package} has its own lints");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn manifests() -> Vec<(String, PathBuf)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    packages.map(|p| (text(&p["name"]), text(&p["manifest_path"]).into())).collect()
}

fn normal_dependencies() -> Vec<(String, Vec<String>)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages.map(|p| (p["name"].as_str().unwrap().to_owned(), normal(p))).collect()
}

fn source_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> =
        ["shared", "hub", "agent", "tests", "e2e"].map(|folder| root().join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("gen") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 20, "found only {} files", files.len());
    files
}
