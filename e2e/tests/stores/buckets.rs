//! A bucket of a real S3 server: the whole story.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
};

use muster_e2e::{
    Executor, Hub, HubOptions, S3Server, eventually,
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

/// A machine's metadata service as Amazon's hosts have it (version 2: a session first); its address.
/// The role's key is that of the tests' S3 server, which knows no sessions: the token is empty.
fn metadata_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> =
                lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let has_session = head.iter().any(|line| line.ends_with(": the-session"));
            let request = head.first().map(String::as_str).unwrap_or_default();
            let roles = "/latest/meta-data/iam/security-credentials/";
            let (code, body) = match request.split(' ').collect::<Vec<_>>()[..] {
                ["PUT", "/latest/api/token", _] => (200, "the-session".to_owned()),
                ["GET", path, _] if !has_session => (401, format!("{path} needs a session")),
                ["GET", path, _] if path == roles => (200, "hub-role".to_owned()),
                ["GET", path, _] if path == format!("{roles}hub-role") => (200, key_of_role()),
                _ => (404, request.to_owned()),
            };
            let head = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\n", body.len());
            let sent =
                stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
            sent.unwrap();
        }
    });
    address
}

fn key_of_role() -> String {
    serde_json::json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": S3Server::ID,
        "SecretAccessKey": S3Server::SECRET, "Token": "",
        "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2100-01-01T00:00:00Z",
    })
    .to_string()
}

#[test]
fn a_machines_role_enters_a_bucket_without_a_secret() {
    let Some(_turn) = turn(&["MUSTER_S3_SERVER", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = S3Server::start(scratch.path());
    server.create("pail");
    let endpoint = format!("http://{}", metadata_service());
    let environment = vec![("AWS_METADATA_ENDPOINT".to_owned(), endpoint)];
    let options = HubOptions { environment, ..HubOptions::default() };
    let hub = Hub::start_with(scratch.path(), options);
    let kubectl = hub.kubectl();
    let by_role = store(&server, "pail", "pail", "  authMethod: IAM\n")
        .replace("  secretRef: {name: pail, namespace: default}\n", "");
    assert!(!by_role.contains("secretRef"), "{by_role}");
    kubectl.apply(&(by_role + &fed("dev", "BucketStateStore", "pail", "")));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");
    assert!(server.keys("pail").iter().all(|key| key.starts_with("dev/")));
}
