//! A bucket of a real S3 server: the whole story.

use muster_e2e::{
    Executor, Hub, S3Server, eventually,
    manifests::{bucket_store, fed, secret},
    scratch,
};

use crate::{
    jars::{ONE_OBJECT, promise, request},
    ready_reason, reconciled, turn,
};

fn store(server: &S3Server, name: &str, bucket: &str, more: &str) -> String {
    bucket_store(name, &server.endpoint(), bucket, more)
}

fn login(name: &str, password: &str) -> String {
    secret(name, &[("accessKeyID", S3Server::ID), ("secretAccessKey", password)])
}

#[test]
fn a_request_is_written_changed_and_removed_and_a_revoked_key_is_told() {
    let Some(_turn) = turn(&["MUSTER_S3_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = S3Server::start(scratch.path());
    server.create("pail");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let flat = "  filepath: {mode: none}\n  cleanup: all\n";
    kubectl.apply(
        &(login("pail", S3Server::SECRET)
            + &store(&server, "pail", "pail", "  path: yard\n")
            + &fed("dev", "BucketStateStore", "pail", "")
            + &fed("flat", "BucketStateStore", "pail", flat)),
    );
    for name in ["destination/dev", "destination/flat"] {
        ready_reason(&kubectl, name, "TestDocumentsWritten");
    }
    kubectl.apply(&promise(ONE_OBJECT));
    kubectl.wait("promise/jar", "Available");
    kubectl.apply(&(request("one", "dev", "1") + &request("two", "flat", "1")));
    reconciled(&hub, "jar/one");
    reconciled(&hub, "jar/two");
    let nested = "yard/dev/resources/default/jar/one/render/5058f";
    let tree = server.tree("pail");
    for path in [
        &format!("{nested}/jar.yaml"),
        &format!("{nested}/sub/only-first.txt"),
        "yard/flat/sub/only-first.txt",
    ] {
        assert!(tree.contains_key(path), "{path}: {:?}", tree.keys());
    }
    let listed = |tree: &muster_e2e::Tree| {
        let list =
            tree.iter().find(|(path, _)| path.starts_with("yard/flat/.kratix/default-jar-two"));
        list.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
    };
    assert_eq!(listed(&tree).unwrap(), "files:\n- flat/jar.yaml\n- flat/sub/only-first.txt\n");

    kubectl.apply(&(request("one", "dev", "2") + &request("two", "flat", "2")));
    eventually("stale objects to go", || {
        let tree = server.tree("pail");
        let stale: Vec<_> = tree.keys().filter(|path| path.contains("only-first")).collect();
        let list = listed(&tree);
        let done = stale.is_empty() && list.as_deref() == Some("files:\n- flat/jar.yaml\n");
        if done { Ok(()) } else { Err(format!("{stale:?} {list:?}")) }
    });

    kubectl.apply(&login("pail", "another-secret"));
    let told = ready_reason(&kubectl, "bucketstatestore/pail", "ErrorValidatingPermissions");
    assert!(told.contains("Error validating state store permissions"), "{told}");
    assert!(told.contains("Secret default/pail") && !told.contains("another-secret"), "{told}");
    ready_reason(&kubectl, "destination/dev", "StateStoreNotReady");
    kubectl.apply(&login("pail", S3Server::SECRET));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");

    // With the Destination goes what it held, and nothing of the other's.
    kubectl.ok(&["delete", "destination/flat", "--timeout=120s"]);
    let left: Vec<_> = server.tree("pail").into_keys().collect();
    assert!(left.iter().all(|path| path.starts_with("yard/dev/")), "{left:?}");
    kubectl.ok(&["delete", "jar/one", "--timeout=120s"]);
    let left: Vec<_> =
        server.tree("pail").into_keys().filter(|path| path.contains("jar.yaml")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_wrong_with_a_bucket_is_told_with_its_cure() {
    let Some(_turn) = turn(&["MUSTER_S3_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = S3Server::start(scratch.path());
    server.create("pail");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let nobody = store(&server, "nobody", "pail", "").replace(&server.endpoint(), "127.0.0.1:1");
    let tls = store(&server, "tls", "pail", "").replace("insecure: true", "insecure: false");
    kubectl.apply(
        &(login("missing", S3Server::SECRET)
            + &store(&server, "missing", "no-such-bucket", "")
            + &login("nobody", S3Server::SECRET)
            + &nobody
            + &login("tls", S3Server::SECRET)
            + &tls
            + &store(&server, "secretless", "pail", "")),
    );
    for (name, reason, words) in [
        ("missing", "ErrorValidatingPermissions", "no bucket no-such-bucket"),
        ("nobody", "ErrorValidatingPermissions", "127.0.0.1:1 does not answer"),
        ("tls", "ErrorValidatingPermissions", "spec.insecure"),
        ("secretless", "SecretNotFound", "Secret secretless not found in namespace default"),
    ] {
        let told = ready_reason(&kubectl, &format!("bucketstatestore/{name}"), reason);
        assert!(told.contains(words), "{told}");
    }
}
