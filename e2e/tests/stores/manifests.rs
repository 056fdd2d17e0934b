//! What the tests apply.

use muster_e2e::GitServer;

/// A Secret in `default`.
pub(crate) fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\nstringData:\n"
    );
    for (key, value) in data {
        text.push_str(&format!("  {key}: {}\n", serde_json::to_string(value).unwrap()));
    }
    text + "---\n"
}

/// A GitStateStore whose Secret has its name.
pub(crate) fn git_store(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: platform.kratix.io/v1alpha1\nkind: GitStateStore\nmetadata: {{name: {name}}}\nspec:\n  \
         url: {url}\n  secretRef: {{name: {name}, namespace: default}}\n{more}---\n"
    )
}

/// The store `hub` on a Git server, with its Secret.
pub(crate) fn hub_store(server: &GitServer, repository: &str) -> String {
    let login = [("username", "hub"), ("password", "let-me-in"), ("caFile", &server.authority())];
    secret("hub", &login) + &git_store("hub", &server.url(repository), "")
}

/// A Destination of a GitStateStore.
pub(crate) fn destination(name: &str, store: &str, more: &str) -> String {
    fed(name, "GitStateStore", store, more)
}

/// A Destination of a store of any kind.
pub(crate) fn fed(name: &str, kind: &str, store: &str, more: &str) -> String {
    format!(
        "apiVersion: platform.kratix.io/v1alpha1\nkind: Destination\n\
         metadata: {{name: {name}, labels: {{place: {name}}}}}\nspec:\n  path: {name}\n  \
         stateStoreRef: {{kind: {kind}, name: {store}}}\n{more}---\n"
    )
}

/// A Promise whose request `size` writes what `SCRIPT` says to the destination that its `place` names.
pub(crate) fn promise(script: &str) -> String {
    let script: String = script.lines().map(|line| format!("              {line}\n")).collect();
    PROMISE.replace("              SCRIPT\n", &script)
}

/// A request.
pub(crate) fn request(name: &str, place: &str, size: &str) -> String {
    format!(
        "apiVersion: stores.muster.dev/v1alpha1\nkind: Jar\nmetadata: {{name: {name}}}\n\
         spec: {{place: {place}, size: \"{size}\"}}\n---\n"
    )
}

/// Writes one object with the request's size, and a file beside it while the size is 1.
pub(crate) const ONE_OBJECT: &str = r#"cat > /kratix/output/jar.yaml <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: $name, namespace: default}
data: {size: "$size"}
END
if [ "$size" = 1 ]; then mkdir /kratix/output/sub; echo first > /kratix/output/sub/only-first.txt; fi"#;

const PROMISE: &str = r#"
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata: {name: jar}
spec:
  dependencies:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shelf}
  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: jars.stores.muster.dev}
    spec:
      group: stores.muster.dev
      scope: Namespaced
      names: {kind: Jar, listKind: JarList, plural: jars, singular: jar}
      versions:
      - name: v1alpha1
        served: true
        storage: true
        schema:
          openAPIV3Schema:
            type: object
            properties:
              spec:
                type: object
                properties:
                  place: {type: string}
                  size: {type: string}
  workflows:
    resource:
      configure:
      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata: {name: fill}
        spec:
          containers:
          - name: fill
            image: docker.io/library/busybox:1.36
            command: [sh, -c]
            args:
            - |
              set -eu
              of() { sed -n "/^$1:/,/^[a-z]/s/^  $2: //p" /kratix/input/object.yaml | tr -d '"' | head -1; }
              name=$(of metadata name) place=$(of spec place) size=$(of spec size)
              echo "- matchLabels: {place: $place}" > /kratix/metadata/destination-selectors.yaml
              SCRIPT
"#;
