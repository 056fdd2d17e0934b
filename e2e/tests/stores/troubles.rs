//! What is wrong with a Git store, or with Destinations that share one, is told with its cure.

use muster_e2e::{
    Executor, GitServer, Hub,
    manifests::{destination, git_store, hub_store, secret},
    scratch,
};

use crate::{
    jars::{ONE_OBJECT, promise, request},
    ready_reason, turn,
};

#[test]
fn what_is_wrong_with_a_git_store_is_told_with_its_cure() {
    let Some(_turn) = turn(&["MUSTER_GIT_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    server.let_in("hub let-me-in\nreader let-me-see ro\n");
    server.repositories().create("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let (fleet, authority) = (server.url("fleet"), server.authority());
    let login = |user: &str, password: &str| {
        [
            ("username", user.to_owned()),
            ("password", password.to_owned()),
            ("caFile", authority.clone()),
        ]
    };
    let with = |name: &str, data: &[(&str, String)]| {
        let data: Vec<_> = data.iter().map(|(key, value)| (*key, value.as_str())).collect();
        secret(name, &data)
    };
    let good = login("hub", "let-me-in");
    let cases = [
        (
            "password",
            with("password", &login("hub", "wrong")),
            fleet.clone(),
            "",
            "ErrorValidatingPermissions",
            "Authentication failed",
        ),
        (
            "reader",
            with("reader", &login("reader", "let-me-see")),
            fleet.clone(),
            "",
            "ErrorValidatingPermissions",
            "read but not write",
        ),
        (
            "repository",
            with("repository", &good),
            server.url("nothing"),
            "",
            "ErrorValidatingPermissions",
            "spec.url",
        ),
        (
            "branch",
            with("branch", &good),
            fleet.clone(),
            "  branch: release\n",
            "ErrorValidatingPermissions",
            "which has main",
        ),
        (
            "authority",
            with("authority", &good[..2]),
            fleet.clone(),
            "",
            "ErrorValidatingPermissions",
            "caFile of Secret default/authority",
        ),
        (
            "nobody",
            with("nobody", &good),
            "https://127.0.0.1:1/x.git".to_owned(),
            "",
            "ErrorValidatingPermissions",
            "tried again",
        ),
        (
            "host",
            with("host", &good),
            "https://no-such-host.invalid/x.git".to_owned(),
            "",
            "ErrorValidatingPermissions",
            "spec.url",
        ),
        (
            "secretless",
            String::new(),
            fleet.clone(),
            "",
            "SecretNotFound",
            "Secret secretless not found in namespace default",
        ),
        (
            "keyless",
            with("keyless", &good[..1]),
            fleet.clone(),
            "",
            "ErrorInitialisingWriter",
            "key password",
        ),
        (
            "method",
            with("method", &good),
            "git@git.example:x.git".to_owned(),
            "",
            "ErrorInitialisingWriter",
            "https://HOST/PATH",
        ),
    ];
    for (name, secret, url, more, _, _) in &cases {
        kubectl.apply(&(secret.clone() + &git_store(name, url, more)));
    }
    for (name, _, _, _, reason, words) in &cases {
        let told = ready_reason(&kubectl, &format!("gitstatestore/{name}"), reason);
        assert!(told.contains(words), "{name}: {told}");
        assert!(!told.contains("let-me"), "{told}");
    }
    // A password in the URL would be read by everybody who may see the store.
    let leaky = git_store("leaky", "https://me:hunter2@git.example/x.git", "");
    let refused = kubectl.refused(&["apply", "-f", "-"], &leaky);
    assert!(refused.contains("spec.url") && refused.contains("Secret"), "{refused}");
    let climbs = git_store("climbs", &fleet, "  path: ../elsewhere\n");
    let refused = kubectl.refused(&["apply", "-f", "-"], &climbs);
    assert!(refused.contains("spec.path") && refused.contains("../elsewhere"), "{refused}");
    // The hub's own files are nobody else's to read.
    let dir = hub.data_dir().join("stores");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir).unwrap());
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn destinations_of_one_repository_stay_apart() {
    let Some(_turn) = turn(&["MUSTER_GIT_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    server.repositories().create("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&(hub_store(&server, "fleet") + &destination("dev", "hub", "")));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");
    for (path, words) in [
        ("dev", "destination path 'dev' already exists for state store 'hub'"),
        ("dev/sub", "one must not hold the other"),
        ("../x", "below the store's top"),
    ] {
        let other =
            destination("other", "hub", "").replace("path: other", &format!("path: {path}"));
        let refused = kubectl.refused(&["apply", "-f", "-"], &other);
        assert!(refused.contains(words), "{path}: {refused}");
    }
    // The same repository by another store is seen through as well.
    let login = [("username", "hub"), ("password", "let-me-in"), ("caFile", &server.authority())];
    let again = destination("again", "again", "").replace("path: again", "path: dev/again");
    kubectl
        .apply(&(secret("again", &login) + &git_store("again", &server.url("fleet"), "") + &again));
    let told = ready_reason(&kubectl, "destination/again", "PathOverlap");
    assert!(told.contains("destination \"dev\""), "{told}");
    // Once the first one is gone, the other one may have the place.
    // What it held stays: its cleanup is none.
    kubectl.ok(&["delete", "destination/dev", "--timeout=120s"]);
    let tree = server.repositories().tree("fleet");
    assert!(
        tree.contains_key("dev/dependencies/kratix-canary-namespace.yaml"),
        "{:?}",
        tree.keys()
    );
    ready_reason(&kubectl, "destination/again", "TestDocumentsWritten");
    kubectl.apply(&promise(ONE_OBJECT));
    kubectl.wait("promise/jar", "Available");
    kubectl.apply(&request("one", "again", "1"));
    kubectl.wait("jar/one", "Reconciled");
    // A Destination whose store goes says so, and can be removed.
    kubectl.ok(&["delete", "gitstatestore/again"]);
    let told = ready_reason(&kubectl, "destination/again", "StateStoreNotFound");
    assert!(told.contains("spec.stateStoreRef"), "{told}");
    // So can a request on it, and neither waits for files that nobody can reach.
    kubectl.ok(&["delete", "jar/one", "--timeout=120s"]);
    kubectl.ok(&["delete", "destination/again", "--timeout=120s"]);
}
