//! What pipelines may put out, on its way to a store.

use muster_e2e::{
    Executor, GitServer, Hub, eventually,
    manifests::{destination, hub_store},
    scratch,
};

use crate::{
    jars::{promise, request},
    ready_reason, reconciled, turn,
};

/// The request's size says what is put out.
const SCRIPT: &str = r#"case "$size" in
script) printf 'apiVersion: fleet.muster.dev/v1alpha1\nkind: Script\nmetadata: {name: s}\nspec: {apply: [\"true\"]}\n' > run.yaml ;;
large) for n in 1 2 3 4 5; do head -c 1048576 /dev/urandom > "part-$n.bin"; done ;;
shared) echo "of $name" > shared.txt ;;
binary) printf 'a\377\376\000b' > logo.png ;;
esac"#;

#[test]
fn scripts_are_refused_and_large_binary_and_colliding_files_end_as_people_expect() {
    let Some(_turn) = turn(&["MUSTER_GIT_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    let repositories = server.repositories();
    repositories.create("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let flat = "  filepath: {mode: none}\n";
    let joined = "  filepath: {mode: aggregatedYAML}\n";
    kubectl.apply(
        &(hub_store(&server, "fleet")
            + &destination("dev", "hub", "")
            + &destination("flat", "hub", flat)
            + &destination("joined", "hub", joined)),
    );
    ready_reason(&kubectl, "destination/joined", "TestDocumentsWritten");
    kubectl.apply(&promise(SCRIPT));
    kubectl.wait("promise/jar", "Available");
    let told = |request: &str, reason: &str| kubectl.reason(request, "Reconciled", reason);

    kubectl.apply(&request("s", "dev", "script"));
    assert!(told("jar/s", "NeedsAgent").contains("\"run.yaml\" is a Script"), "names the file");
    kubectl.apply(&request("b", "joined", "binary"));
    assert!(told("jar/b", "NotText").contains("logo.png"), "names the file");
    kubectl.apply(&(request("c", "dev", "binary") + &request("l", "dev", "large")));
    reconciled(&hub, "jar/c");
    reconciled(&hub, "jar/l");
    let tree = repositories.tree("fleet");
    assert_eq!(tree["dev/resources/default/jar/c/render/5058f/logo.png"], b"a\xff\xfe\0b");
    let parts = tree.iter().filter(|(path, _)| path.contains("/l/render/5058f/part-"));
    assert_eq!(parts.map(|(_, bytes)| bytes.len()).sum::<usize>(), 5 << 20);

    // Two want one file: the first keeps it, and the second gets it when the first goes.
    kubectl.apply(&request("first", "flat", "shared"));
    reconciled(&hub, "jar/first");
    kubectl.apply(&request("second", "flat", "shared"));
    let cause = told("jar/second", "PathCollision");
    assert!(cause.contains("flat/shared.txt") && cause.contains("jar-first-render"), "{cause}");
    assert_eq!(repositories.tree("fleet")["flat/shared.txt"], b"of first\n");
    kubectl.ok(&["delete", "jar/first", "--timeout=120s"]);
    reconciled(&hub, "jar/second");
    eventually("the second's file", || match repositories.tree("fleet").get("flat/shared.txt") {
        Some(bytes) if bytes == b"of second\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
