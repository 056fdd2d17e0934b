//! PromiseRevisions and ResourceBindings as people see them: what is listed while requests move from
//! one version to another, and what is refused.

use muster_e2e::{Executor, Hub, Kubectl, scratch};

use super::{GOOD, good, with};

const REVISIONS: &str = "NAME PROMISE VERSION LATEST";
const BINDINGS: &str = "NAME RESOURCE PROMISE DESIRED APPLIED";

/// The name of an object of this kind that has this version.
fn named(kubectl: &Kubectl, kind: &str, filter: &str) -> String {
    let path = format!("jsonpath={{.items[?({filter})].metadata.name}}");
    kubectl.until(&["get", kind, "-o", &path], |name| !name.is_empty() && !name.contains(' '))
}

/// Sets the version of a binding.
fn bind(kubectl: &Kubectl, binding: &str, version: &str) {
    let patch = format!("{{\"spec\": {{\"version\": \"{version}\"}}}}");
    kubectl.ok(&["patch", "resourcebinding", binding, "--type=merge", "-p", &patch]);
}

#[test]
fn versions_are_listed_while_requests_move_between_them() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(GOOD);
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&(good("a", "default", "x") + &good("b", "default", "x")));
    let applied = |a: &str, b: &str| {
        [BINDINGS.to_owned(), format!("a-good-* a good {a}"), format!("b-good-* b good {b}")]
    };
    let bindings = |a: &str, b: &str| {
        let lines = applied(a, b);
        kubectl.prints(&["resourcebindings"], &lines.each_ref().map(String::as_str));
    };
    bindings("latest v1.2.0", "latest v1.2.0");
    let a = named(&kubectl, "resourcebindings", "@.spec.resourceRef.name==\"a\"");
    bind(&kubectl, &a, "v1.2.0");
    kubectl.apply(&with(GOOD, "v1.2.0", "v1.3.0"));
    bindings("v1.2.0 v1.2.0", "latest v1.3.0");
    let old = named(&kubectl, "promiserevisions", "@.spec.version==\"v1.2.0\"");
    let new = named(&kubectl, "promiserevisions", "@.spec.version==\"v1.3.0\"");
    let (old_row, new_row) = (format!("{old} good v1.2.0"), format!("{new} good v1.3.0 true"));
    kubectl.prints(&["promiserevisions", &old, &new], &[REVISIONS, &old_row, &new_row]);
    let field = ["resourcebindings", "--field-selector", "spec.version=v1.2.0"];
    kubectl.prints(&field, &[BINDINGS, "a-good-* a good v1.2.0 v1.2.0"]);
    kubectl.prints(
        &["promiserevisions", "-l", "kratix.io/latest-revision=true"],
        &[REVISIONS, &new_row],
    );
    wrong_writes_are_refused(&kubectl, &old, &new);

    // An upgrade that fails leaves what was applied, and says so.
    let broken = with(GOOD, "v1.2.0", "v1.4.0");
    let broken = with(&broken, "echo a > /kratix/output/a.txt", "echo no room; exit 1");
    let once = "          restartPolicy: Never\n          jobOptions: {backoffLimit: 0}\n";
    let once = format!("{once}          containers:\n");
    kubectl.apply(&with(&broken, "          containers:\n", &once));
    bindings("v1.2.0 v1.2.0", "latest v1.3.0");
    let b = named(&kubectl, "resourcebindings", "@.spec.resourceRef.name==\"b\"");
    let binding = format!("resourcebinding/{b}");
    let told = kubectl.reason(&binding, "UpgradeSucceeded", "UpgradeFailed");
    assert!(told.starts_with("A Configure Pipeline has failed: run"), "{told}");
    let failed = ["get", &binding, "-o", "jsonpath={.status.failedVersion}"];
    assert_eq!(kubectl.ok(&failed), "v1.4.0");

    // Back to what worked; and then nobody needs the newer one.
    bind(&kubectl, &b, "v1.2.0");
    bindings("v1.2.0 v1.2.0", "v1.2.0 v1.2.0");
    let told = kubectl.reason(&binding, "UpgradeSucceeded", "UpgradeComplete");
    assert_eq!(told, "Resource is at version v1.2.0");
    kubectl.ok(&["delete", "promiserevision", &new, "--timeout=120s"]);
    bindings("v1.2.0 v1.2.0", "v1.2.0 v1.2.0");
}

fn wrong_writes_are_refused(kubectl: &Kubectl, old: &str, new: &str) {
    let denied = "admission webhook \"vpromiserevision-v1alpha1.kb.io\" denied the request: ";
    let refused = |args: &[&str], words: &str| {
        let told = kubectl.refused(args, "");
        let words = format!("{denied}{words}");
        assert!(told.contains(&words), "{words:?} is not in {told}");
    };
    refused(&["delete", "promiserevision", new], "can not delete the latest PromiseRevision");
    refused(
        &["delete", "promiserevision", old],
        &format!(
            "can not delete PromiseRevision {old}: requests are bound to version v1.2.0 of promise \
             good (1: default/a): set spec.version of their ResourceBindings to another version, \
             or delete them"
        ),
    );
    for (patch, words) in [
        (r#"{"spec":{"version":"v9"}}"#, "spec.version: Invalid value: \"v9\": field is immutable"),
        (
            r#"{"spec":{"promiseRef":{"name":"other"}}}"#,
            "spec.promiseRef.name: Invalid value: \"other\": field is immutable",
        ),
        (
            r#"{"spec":{"promiseSpec":{"workflows":null}}}"#,
            "spec.promiseSpec: Invalid value: object: field is immutable",
        ),
    ] {
        refused(
            &["patch", "promiserevision", old, "--type=merge", "-p", patch],
            &format!("PromiseRevision \"{old}\" was not valid: {words}"),
        );
    }
    let binding = "apiVersion: platform.kratix.io/v1alpha1\nkind: ResourceBinding\nmetadata: {name: \
                   mine}\nspec: {promiseRef: {name: good}, resourceRef: {name: c, namespace: \
                   default, generation: 1}}\n";
    let told = kubectl.refused(&["create", "--validate=false", "-f", "-"], binding);
    assert!(told.contains("spec.version: Required value"), "{told}");
}
