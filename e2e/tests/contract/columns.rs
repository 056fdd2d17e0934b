//! What `kubectl get` prints of every kind, by every name.

use muster_e2e::{
    Executor, GitServer, Hub, Kubectl, has_part,
    manifests::{destination, hub_store},
    scratch,
};

use super::{GOOD, with};

/// A table without its spacing: the header, then the rows.
fn table(kubectl: &Kubectl, args: &[&str]) -> Vec<String> {
    let printed = kubectl.ok(&[&["get"], args].concat());
    printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// A table that must have this header and, in its one row, these words in order.
fn prints(kubectl: &Kubectl, args: &[&str], header: &str, row: &str) {
    let printed = table(kubectl, args);
    assert_eq!(printed[0], header, "{args:?}");
    let mut rest = printed[1].as_str();
    for word in row.split(' ') {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} is not in {printed:#?}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn every_kind_prints_its_columns() {
    if !has_part("MUSTER_GIT_SERVER") {
        return;
    }
    let directory = scratch();
    let server = GitServer::start(directory.path());
    server.repositories().create("fleet");
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&(hub_store(&server, "fleet") + &destination("dev", "hub", "")));
    kubectl.apply(&with(GOOD, "{env: dev}", "{place: dev}"));
    kubectl.wait("promise/good", "Available");
    let request =
        "apiVersion: contract.example/v1\nkind: Good\nmetadata: {name: a}\nspec: {size: x}\n";
    kubectl.apply(request);
    kubectl.wait("good/a", "Reconciled");

    let url = server.url("fleet");
    for (args, header, row) in [
        (
            &["promises"] as &[&str],
            "NAME STATUS KIND API VERSION VERSION MESSAGE",
            "good Available Good contract.example/v1 v1.2.0",
        ),
        (&["promiserevisions"], "NAME PROMISE VERSION LATEST", "good- good v1.2.0 true"),
        (
            &["resourcebindings"],
            "NAME RESOURCE PROMISE DESIRED APPLIED",
            "a-good- a good latest v1.2.0",
        ),
        (
            &["resourcebindings", "--field-selector", "spec.version=latest"],
            "NAME RESOURCE PROMISE DESIRED APPLIED",
            "a-good- latest",
        ),
        (&["gitstatestores"], "NAME URL BRANCH READY", &format!("hub {url} main True")),
        (
            &["destinations"],
            "NAME STATESTOREKIND STATESTORENAME READY",
            "dev GitStateStore hub True",
        ),
        (&["dest"], "NAME STATESTOREKIND STATESTORENAME READY", "dev GitStateStore hub True"),
        (&["dests"], "NAME STATESTOREKIND STATESTORENAME READY", "dev GitStateStore hub True"),
        (&["works"], "NAME STATUS", "good-a-run- Ready"),
        (&["workplacements"], "NAME DESTINATION STATUS HEALTH", "good-a-run- .dev-5058f dev Ready"),
        (&["wp"], "NAME DESTINATION STATUS HEALTH", "good-a-run- dev Ready"),
        (&["wps"], "NAME DESTINATION STATUS HEALTH", "good-a-run- dev Ready"),
        (
            &["goods"],
            "NAME MESSAGE STATUS DESTINATION HEALTH",
            "a Resource requested Reconciled dev",
        ),
    ] {
        prints(&kubectl, args, header, row);
    }
    let bucket = "apiVersion: platform.kratix.io/v1alpha1\nkind: BucketStateStore\nmetadata: {name: \
                  pail}\nspec: {bucketName: b, endpoint: '127.0.0.1:1', secretRef: {name: s, \
                  namespace: default}}\n";
    kubectl.apply(bucket);
    kubectl.until(&["get", "bucketstatestores"], |told| told.contains("False"));
    let header = "NAME NAME ENDPOINT READY";
    prints(&kubectl, &["bucketstatestores"], header, "pail b 127.0.0.1:1 False");

    let listed = kubectl.ok(&["get", "kratix", "-A", "-o", "name"]);
    for kind in [
        "promise",
        "promiserevision",
        "resourcebinding",
        "gitstatestore",
        "bucketstatestore",
        "destination",
        "work",
        "workplacement",
    ] {
        let of_kind = format!("{kind}.platform.kratix.io/");
        assert!(listed.contains(&of_kind), "{of_kind} is not in {listed}");
    }
    an_author_s_columns_stay(&kubectl);
}

/// Ours come after the author's, and none of his twice.
fn an_author_s_columns_stay(kubectl: &Kubectl) {
    let columns = "        storage: true\n        additionalPrinterColumns:\n        - {name: Size, \
                   type: string, jsonPath: .spec.size}\n        - {name: Health, type: string, \
                   jsonPath: .spec.size}\n";
    let text = with(GOOD, "        storage: true\n", columns);
    let text = text.replace("good", "fine").replace("Good", "Fine");
    kubectl.apply(&text);
    kubectl.wait("promise/fine", "Available");
    kubectl.apply(
        "apiVersion: contract.example/v1\nkind: Fine\nmetadata: {name: a}\nspec: {size: large}\n",
    );
    let header = "NAME SIZE HEALTH DESTINATION";
    prints(kubectl, &["fines"], header, "a large large");
}
