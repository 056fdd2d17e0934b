//! PromiseReleases as people see them: listed, refused, waited for, installed, taken away.

use muster_e2e::{Executor, Hub, Kubectl, Site, scratch};

use super::{GOOD, with};

const HEADER: &str = "NAME STATUS VERSION";

fn release(name: &str, url: &str, version: &str) -> String {
    format!(
        "apiVersion: platform.kratix.io/v1alpha1\nkind: PromiseRelease\nmetadata: {{name: \
         {name}}}\nspec:\n  version: '{version}'\n  sourceRef: {{type: http, url: '{url}'}}\n"
    )
}

#[test]
fn a_release_is_listed_with_what_became_of_it() {
    let directory = scratch();
    let site = Site::open();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    wrong_ones_are_refused(&kubectl, &site.url("/good.yaml"));

    // Nothing is there yet; what is missing is told, and looked for again.
    kubectl.apply(&release("good", &site.url("/good.yaml"), ""));
    let told = kubectl.reason("promiserelease/good", "Installed", "FailedToFetchPromise");
    assert!(told.starts_with("failed to fetch promise: ") && told.contains("404"), "{told}");
    kubectl.prints(&["promisereleases"], &[HEADER, "good Error installing"]);

    // Its version is that of what it found.
    let first = site.put("/v1.yaml", GOOD);
    kubectl.apply(&release("good", &first, ""));
    kubectl.wait("promiserelease/good", "Installed");
    kubectl.prints(&["promisereleases"], &[HEADER, "good Installed v1.2.0"]);
    let ours = ["promises", "-l", "kratix.io/promise-release-name=good"];
    let header = "NAME STATUS KIND API VERSION VERSION MESSAGE";
    let row = |version: &str| format!("good Available Good contract.example/v1 {version}");
    kubectl.prints(&ours, &[header, &row("v1.2.0")]);

    // Another version than the one that is asked for is not taken.
    let second = site.put("/v2.yaml", &with(GOOD, "v1.2.0", "v2.0.0"));
    kubectl.apply(&release("good", &second, "v1.9.0"));
    let told = kubectl.reason("promiserelease/good", "Installed", "VersionNotMatching");
    assert!(told.contains("found: v2.0.0, expected: v1.9.0"), "{told}");
    kubectl.prints(&["promisereleases"], &[HEADER, "good Error installing v1.9.0"]);
    kubectl.prints(&ours, &[header, &row("v1.2.0")]);

    kubectl.apply(&release("good", &second, "v2.0.0"));
    kubectl.prints(&["promisereleases"], &[HEADER, "good Installed v2.0.0"]);
    kubectl.prints(&ours, &[header, &row("v2.0.0")]);
    let listed = kubectl.ok(&["get", "kratix", "-o", "name"]);
    assert!(listed.contains("promiserelease.platform.kratix.io/good"), "{listed}");

    kubectl.ok(&["delete", "promiserelease", "good", "--timeout=120s"]);
    kubectl.gone("promise/good");
}

fn wrong_ones_are_refused(kubectl: &Kubectl, url: &str) {
    let wrong = |good: &str, from: &str, to: &str| {
        kubectl.refused(&["create", "--validate=false", "-f", "-"], &with(good, from, to))
    };
    let good = release("bad", url, "v1");
    let denied = "admission webhook \"vpromiserelease.kb.io\" denied the request: ";
    for (from, to, words) in [
        (url, "", "sourceRef.url must be set"),
        (url, "ftp://site.example/a", "must begin with https:// or http://"),
        (
            "{type: http,",
            "{type: http, secretRef: {name: ''},",
            "sourceRef.secretRef.name must be set",
        ),
    ] {
        let told = wrong(&good, from, to);
        assert!(told.contains(denied) && told.contains(words), "{words:?} is not in {told}");
    }
    let told = wrong(&good, "type: http", "type: pigeon");
    assert!(told.contains("spec.sourceRef.type: Unsupported value: \"pigeon\""), "{told}");
    kubectl.prints(&["promisereleases"], &[]);
}
