//! A Promise whose requests go to the destination that they name.

use muster_e2e::manifests::Promise;

const JARS: Promise<'_> = Promise {
    name: "jar",
    group: "stores.muster.dev",
    platform: "",
    fields: &[("place", "{type: string}"), ("size", "{type: string}")],
    dependencies: "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: shelf}",
    script: "",
    once: false,
};

/// The Promise; a request of some `size` writes what `script` says to the destination that its
/// `place` names.
pub(crate) fn promise(script: &str) -> String {
    let choose =
        "echo \"- matchLabels: {place: $place}\" > /kratix/metadata/destination-selectors.yaml";
    Promise { script: &format!("{choose}\n{script}"), ..JARS }.yaml()
}

/// A request.
pub(crate) fn request(name: &str, place: &str, size: &str) -> String {
    JARS.request(name, &format!("place: {place}, size: \"{size}\""))
}

/// Writes one object with the request's size, and a file beside it while the size is 1.
pub(crate) const ONE_OBJECT: &str = r#"cat > jar.yaml <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: $name, namespace: default}
data: {size: "$size"}
END
if [ "$size" = 1 ]; then mkdir sub; echo first > sub/only-first.txt; fi"#;
