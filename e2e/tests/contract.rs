//! What Kratix's users type and read: refusals and warnings to the word, printed columns, the
//! platform's configuration, the world that a pipeline finds itself in, its rights, and what it
//! hands over. All through the real kubectl, against the real hub.

#[path = "contract/columns.rs"]
mod columns;
#[path = "contract/configuration.rs"]
mod configuration;
#[path = "contract/phrases.rs"]
mod phrases;
#[path = "contract/results.rs"]
mod results;
#[path = "contract/rights.rs"]
mod rights;
#[path = "contract/world.rs"]
mod world;

/// A Promise that is in order, for tests to spoil.
pub(crate) const GOOD: &str = "\
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata:
  name: good
  labels: {kratix.io/promise-version: v1.2.0}
spec:
  destinationSelectors:
  - matchLabels: {env: dev}
  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: goods.contract.example}
    spec:
      group: contract.example
      scope: Namespaced
      names: {kind: Good, plural: goods, singular: good}
      versions:
      - name: v1
        served: true
        storage: true
        schema:
          openAPIV3Schema:
            type: object
            properties:
              spec: {type: object, properties: {size: {type: string}}}
  workflows:
    config: {reconciliationInterval: 1h}
    resource:
      configure:
      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata: {name: run, labels: {team: blue}}
        spec:
          containers:
          - {name: emit, image: box, command: [sh, -c, 'echo a > /kratix/output/a.txt']}
";

/// Text that was changed in one place, which must be there.
pub(crate) fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the text");
    text.replacen(from, to, 1)
}
