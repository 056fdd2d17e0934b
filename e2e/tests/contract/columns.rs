//! What `kubectl get` prints of every kind, by every name.

use muster_e2e::Kubectl;

use super::{GOOD, Shop, good, with};

#[test]
fn every_kind_prints_its_columns() {
    let Some(shop) = Shop::open() else { return };
    let kubectl = shop.hub.kubectl();
    kubectl.apply(&with(GOOD, "{env: dev}", "{place: dev}"));
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&good("a", "default", "x"));
    kubectl.wait("good/a", "Reconciled");

    let url = shop.server.url("fleet");
    let store = format!("hub {url} main True");
    let bindings = ["NAME RESOURCE PROMISE DESIRED APPLIED", "a-good-* a good latest v1.2.0"];
    let destinations = ["NAME STATESTOREKIND STATESTORENAME READY", "dev GitStateStore hub True"];
    let placements = ["NAME DESTINATION STATUS HEALTH", "good-a-run-*.dev-5058f dev Ready"];
    for (args, lines) in [
        (
            &["promises"] as &[&str],
            [
                "NAME STATUS KIND API VERSION VERSION MESSAGE",
                "good Available Good contract.example/v1 v1.2.0",
            ],
        ),
        (&["promiserevisions"], ["NAME PROMISE VERSION LATEST", "good-* good v1.2.0 true"]),
        (&["resourcebindings"], bindings),
        (&["resourcebindings", "--field-selector", "spec.version=latest"], bindings),
        (&["gitstatestores"], ["NAME URL BRANCH READY", &store]),
        (&["destinations"], destinations),
        (&["dest"], destinations),
        (&["dests"], destinations),
        (&["works"], ["NAME STATUS", "good-a-run-* Ready"]),
        (&["workplacements"], placements),
        (&["wp"], placements),
        (&["wps"], placements),
        (
            &["goods"],
            [
                "NAME MESSAGE STATUS DESTINATION HEALTH",
                "a Resource requested Reconciled dev Unknown",
            ],
        ),
    ] {
        kubectl.prints(args, &lines);
    }
    let bucket = "apiVersion: platform.kratix.io/v1alpha1\nkind: BucketStateStore\nmetadata: {name: \
                  pail}\nspec: {bucketName: b, endpoint: '127.0.0.1:1', secretRef: {name: s, \
                  namespace: default}}\n";
    kubectl.apply(bucket);
    kubectl
        .prints(&["bucketstatestores"], &["NAME NAME ENDPOINT READY", "pail b 127.0.0.1:1 False"]);

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
    kubectl.prints(&["fines"], &["NAME SIZE HEALTH DESTINATION", "a large large none"]);
}
