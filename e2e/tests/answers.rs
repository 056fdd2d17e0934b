//! Bad input gets a clear answer and loses nothing: each through the public way in, and correcting
//! only the input completes what was asked.

#[path = "answers/agents.rs"]
mod agents;
#[path = "answers/placements.rs"]
mod placements;
#[path = "answers/promises.rs"]
mod promises;
#[path = "answers/results.rs"]
mod results;

use muster_e2e::{Kubectl, eventually};

/// A Promise whose requests have a `mode`, and whose pipeline does what `script` says with it.
pub(crate) fn promise(name: &str, platform: &str, script: &str) -> String {
    let indented: String =
        script.trim().lines().map(|line| format!("              {}\n", line.trim_end())).collect();
    let kind = kind_of(name);
    format!(
        r#"
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata:
  name: {name}
spec:
  destinationSelectors:
  - matchLabels: {{platform: {platform}}}
  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {{name: {name}s.answers.example.com}}
    spec:
      group: answers.example.com
      scope: Namespaced
      names: {{kind: {kind}, plural: {name}s, singular: {name}}}
      versions:
      - name: v1
        served: true
        storage: true
        schema:
          openAPIV3Schema:
            type: object
            properties:
              spec:
                type: object
                required: [mode]
                properties:
                  mode: {{type: string, maxLength: 12}}
  workflows:
    resource:
      configure:
      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata: {{name: render}}
        spec:
          restartPolicy: Never
          jobOptions: {{backoffLimit: 0}}
          containers:
          - name: render
            image: docker.io/library/busybox:1.36
            command: [sh, -c]
            args:
            - |
              set -eu
              mode=$(awk '$1 == "mode:" {{print $2; exit}}' /kratix/input/object.yaml)
              cd /kratix/output
{indented}"#
    )
}

/// A request of such a Promise.
pub(crate) fn request(promise: &str, name: &str, mode: &str) -> String {
    format!(
        "apiVersion: answers.example.com/v1\nkind: {}\n\
         metadata: {{name: {name}, namespace: default}}\nspec: {{mode: {mode}}}\n",
        kind_of(promise)
    )
}

fn kind_of(promise: &str) -> String {
    promise[..1].to_uppercase() + &promise[1..]
}

/// Waits until the conditions of an object say all of `fragments`.
pub(crate) fn says(kubectl: &Kubectl, object: &str, fragments: &[&str]) {
    const MESSAGES: &str = r#"jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}"#;
    eventually(&format!("{object} to say {fragments:?}"), || {
        let told = kubectl.run(&["get", object, "-o", MESSAGES]);
        let missing: Vec<_> = fragments.iter().filter(|f| !told.stdout.contains(**f)).collect();
        if told.ok && missing.is_empty() {
            return Ok(());
        }
        Err(format!("{}{} (without {missing:?})", told.stdout, told.stderr))
    });
}

/// Applies a Promise and waits until it takes requests.
pub(crate) fn install(kubectl: &Kubectl, promise: &str, name: &str) {
    kubectl.apply(promise);
    kubectl.wait(&format!("promise/{name}"), "Available");
}
