//! Git over https: the whole story, a revoked password, many placements in one push; and ssh with
//! signed commits, and a GitHub App's tokens.

use std::{fs, process::Command};

use muster_e2e::{
    Executor, GitServer, Hub, SshServer, Tree, eventually,
    manifests::{destination, git_store, hub_store, secret},
    scratch,
};

use crate::{
    jars::{ONE_OBJECT, promise, request},
    ready_reason, reconciled, turn,
};

const GIT: [&str; 2] = ["MUSTER_GIT_SERVER", "MUSTER_KUBECTL"];

fn texts(tree: &Tree, below: &str) -> Vec<(String, String)> {
    let own = tree.iter().filter(|(path, _)| path.starts_with(below) && !path.contains("canary"));
    own.map(|(path, bytes)| (path.clone(), String::from_utf8_lossy(bytes).into_owned())).collect()
}

fn pair(path: &str, text: &str) -> (String, String) {
    (path.to_owned(), text.to_owned())
}

const JAR: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: default}\ndata: {size: \"SIZE\"}\n";
const SHELF: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shelf\n";

#[test]
fn a_request_is_written_changed_repaired_and_removed() {
    let Some(_turn) = turn(&GIT) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    let repositories = server.repositories();
    repositories.create("fleet");
    let mut hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let flat = "  filepath: {mode: none}\n";
    kubectl.apply(
        &(hub_store(&server, "fleet")
            + &destination("dev", "hub", "")
            + &destination("flat", "hub", flat)),
    );
    ready_reason(&kubectl, "gitstatestore/hub", "StateStoreReady");
    for name in ["destination/dev", "destination/flat"] {
        ready_reason(&kubectl, name, "TestDocumentsWritten");
    }
    kubectl.apply(&promise(ONE_OBJECT));
    kubectl.wait("promise/jar", "Available");
    kubectl.apply(&request("one", "dev", "1"));
    reconciled(&hub, "jar/one");
    let nested = "dev/resources/default/jar/one/render/5058f";
    let tree = repositories.tree("fleet");
    assert_eq!(
        texts(&tree, "dev/"),
        [
            pair("dev/dependencies/jar/5058f/static/jar-dependencies.yaml", SHELF),
            pair(&format!("{nested}/jar.yaml"), &JAR.replace("SIZE", "1")),
            pair(&format!("{nested}/sub/only-first.txt"), "first\n"),
        ]
    );
    let lists: Vec<_> = tree.keys().filter(|path| path.starts_with("flat/.kratix/")).collect();
    assert_eq!(lists.len(), 1, "{lists:?}");
    assert_eq!(tree[lists[0]], b"files:\n- flat/static/jar-dependencies.yaml\n");
    assert!(tree.contains_key("README.md"), "what others keep there stays");
    let selector = "kratix.io/resource-name=one";
    let version =
        ["get", "workplacement", "-l", selector, "-o", "jsonpath={.items[*].status.versionID}"];
    let version = kubectl.ok(&version);
    assert!(
        repositories.git("fleet", &["cat-file", "-t", &version]).starts_with(b"commit"),
        "{version}"
    );

    // A file that is no longer put out goes; what others break is repaired.
    kubectl.apply(&request("one", "dev", "2"));
    let jar = format!("{nested}/jar.yaml");
    let is = |path: &str, text: Option<&str>| {
        let found = repositories
            .tree("fleet")
            .get(path)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if found.as_deref() == text { Ok(()) } else { Err(format!("{path}: {found:?}")) }
    };
    let second = JAR.replace("SIZE", "2");
    eventually("the change", || is(&jar, Some(&second)));
    eventually("the stale file to go", || is(&format!("{nested}/sub/only-first.txt"), None));
    repositories.commit(
        "fleet",
        &format!("rm -r dev/dependencies; echo broken > {jar}; echo by-hand > {nested}/more.yaml"),
    );
    eventually("the edit to be repaired", || is(&jar, Some(&second)));
    eventually("the deletion to be repaired", || {
        is("dev/dependencies/jar/5058f/static/jar-dependencies.yaml", Some(SHELF))
    });
    eventually("the addition to be removed", || is(&format!("{nested}/more.yaml"), None));
    let commits = repositories.commits("fleet");

    // A start looks at everything and changes nothing.
    hub.crash_and_restart();
    ready_reason(&kubectl, "gitstatestore/hub", "StateStoreReady");
    kubectl.apply(&request("two", "flat", "1"));
    reconciled(&hub, "jar/two");
    assert_eq!(repositories.commits("fleet"), commits + 1);
    assert!(repositories.tree("fleet").contains_key("flat/sub/only-first.txt"));

    let printed = hub.muster(&["destinations", "gitops", "dev", "--for", "flux"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for words in
        ["kind: GitRepository", &server.url("fleet"), "path: ./dev/resources", "dependsOn:"]
    {
        assert!(printed.contains(words), "{printed}");
    }

    kubectl.ok(&["delete", "jar/one", "jar/two", "--timeout=120s"]);
    let left = texts(&repositories.tree("fleet"), "");
    let left: Vec<_> = left.iter().filter(|(path, _)| path.contains("jar.yaml")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_revoked_password_is_told_and_everything_is_written_once_it_is_back() {
    let Some(_turn) = turn(&GIT) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    let repositories = server.repositories();
    repositories.create_empty("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&(hub_store(&server, "fleet") + &destination("dev", "hub", "")));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");
    kubectl.apply(&promise(ONE_OBJECT));
    kubectl.wait("promise/jar", "Available");

    server.let_in("hub another-one\n");
    let told = ready_reason(&kubectl, "gitstatestore/hub", "ErrorValidatingPermissions");
    assert!(
        told.contains("Authentication failed") && told.contains("Secret default/hub"),
        "{told}"
    );
    assert!(!told.contains("let-me-in"), "{told}");
    let told = ready_reason(&kubectl, "destination/dev", "StateStoreNotReady");
    assert!(told.contains("GitStateStore/hub") && told.contains("Authentication failed"), "{told}");
    let events = kubectl.ok(&["describe", "gitstatestore/hub"]);
    assert!(events.contains("NotReady") && events.contains("Authentication failed"), "{events}");

    kubectl.apply(&(request("one", "dev", "1") + &request("two", "dev", "2")));
    let reason = "jsonpath={.status.conditions[?(@.type==\"Reconciled\")].reason}";
    kubectl.until(&["get", "jar/two", "-o", reason], |reason| reason == "AuthenticationFailed");
    let login = [("username", "hub"), ("password", "another-one"), ("caFile", &server.authority())];
    kubectl.apply(&secret("hub", &login));
    for name in ["jar/one", "jar/two"] {
        reconciled(&hub, name);
    }
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");

    // No less of a server that is away for a while.
    server.down(true);
    kubectl.says("gitstatestore/hub", &["ErrorValidatingPermissions", "does not answer"]);
    kubectl.ok(&["delete", "jar/one", "--wait=false"]);
    kubectl.apply(&request("two", "dev", "3"));
    server.down(false);
    kubectl.gone("jar/one");
    reconciled(&hub, "jar/two");
    let jars = repositories.tree("fleet").keys().filter(|path| path.ends_with("jar.yaml")).count();
    assert_eq!(jars, 1);
}

#[test]
fn what_waits_is_written_in_one_push_that_lists_it() {
    let Some(_turn) = turn(&GIT) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    let repositories = server.repositories();
    repositories.create("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&hub_store(&server, "fleet"));
    ready_reason(&kubectl, "gitstatestore/hub", "StateStoreReady");
    server.down(true);
    kubectl.says("gitstatestore/hub", &["ErrorValidatingPermissions", "does not answer"]);
    const N: usize = 50;
    let quiet = "  initWorkloads: {enabled: false}\n";
    kubectl.apply(&(0..N).map(|n| destination(&format!("d{n}"), "hub", quiet)).collect::<String>());
    kubectl.apply(&promise(ONE_OBJECT));
    let placements = ["get", "workplacements", "-A", "-o", "name"];
    kubectl.until(&placements, |names| names.lines().count() == N);
    let pushes = server.count("push");
    server.down(false);
    let versions = [
        "get",
        "workplacements",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.status.versionID} {end}",
    ];
    let told = kubectl.until(&versions, |told| told.split_whitespace().count() == N);
    let first = told.split_whitespace().next().unwrap();
    assert!(told.split_whitespace().all(|version| version == first), "{told}");
    assert_eq!(server.count("push") - pushes, 1, "one push");
    let message = repositories.git("fleet", &["log", "-1", "--format=%B", "main"]);
    let message = String::from_utf8(message).unwrap();
    assert_eq!(message.matches("Update from: jar-static-deps-").count(), N, "{message}");
}

#[test]
fn ssh_checks_the_host_and_commits_are_signed() {
    let Some(_turn) = turn(&["MUSTER_SSHD", "MUSTER_KUBECTL"]) else { return };
    let scratch = scratch();
    let server = SshServer::start(scratch.path());
    let repositories = server.repositories();
    repositories.create_empty("fleet");
    let hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let login = |right| {
        let key = server.key();
        let hosts = server.known_hosts(right);
        secret("hub", &[("sshPrivateKey", &key), ("knownHosts", &hosts), ("signingKey", &key)])
    };
    let store = git_store("hub", &server.url("fleet"), "  authMethod: ssh\n");
    kubectl.apply(&(login(false) + &store + &destination("dev", "hub", "")));
    let told = ready_reason(&kubectl, "gitstatestore/hub", "ErrorValidatingPermissions");
    assert!(told.contains("knownHosts of Secret default/hub"), "{told}");
    kubectl.apply(&login(true));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");
    let signers = scratch.path().join("signers");
    fs::write(&signers, format!("* {}", server.public_key())).unwrap();
    let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let verified = repositories.git("fleet", &["-c", &allowed, "verify-commit", "--raw", "main"]);
    drop(verified);
    let author = repositories.git("fleet", &["log", "-1", "--format=%an <%ae> %s", "main"]);
    assert_eq!(
        String::from_utf8(author).unwrap(),
        "kratix <kratix@kratix.invalid> Update from: kratix-canary\n"
    );
}

#[test]
fn a_github_app_enters_with_tokens_of_its_own() {
    let Some(_turn) = turn(&GIT) else { return };
    let scratch = scratch();
    let server = GitServer::start(scratch.path());
    server.repositories().create("fleet");
    let key = |name: &str| {
        let (private, public) =
            (scratch.path().join(name), scratch.path().join(format!("{name}.pub")));
        for args in [
            vec!["genrsa", "-traditional", "-out", private.to_str().unwrap(), "2048"],
            vec![
                "rsa",
                "-in",
                private.to_str().unwrap(),
                "-pubout",
                "-out",
                public.to_str().unwrap(),
            ],
        ] {
            let output = Command::new("openssl").args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        (fs::read_to_string(private).unwrap(), public)
    };
    let ((old, _), (new, public)) = (key("old"), key("new"));
    server.know_app(&public);
    let mut hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let login = |key: &str| {
        let app = [
            ("appID", "17"),
            ("installationID", "4"),
            ("privateKey", key),
            ("caFile", &server.authority()),
        ];
        secret("hub", &app)
    };
    let store = git_store("hub", &server.url("fleet"), "  authMethod: githubApp\n");
    kubectl.apply(&(login(&old) + &store + &destination("dev", "hub", "")));
    let told = ready_reason(&kubectl, "gitstatestore/hub", "ErrorValidatingPermissions");
    assert!(told.contains("App 17") && told.contains("privateKey"), "{told}");
    kubectl.apply(&login(&new));
    ready_reason(&kubectl, "destination/dev", "TestDocumentsWritten");
    assert_eq!(server.count("token"), 1, "a token is used while it is valid");

    // One that is about to end is not used any more.
    server.tokens_last(60);
    hub.crash_and_restart();
    let given = server.count("token");
    kubectl.apply(&destination("more", "hub", ""));
    ready_reason(&kubectl, "destination/more", "TestDocumentsWritten");
    assert!(server.count("token") > given, "a new one was asked for");
}
