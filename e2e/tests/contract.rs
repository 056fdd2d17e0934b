//! What Kratix's users type and read: refusals and warnings to the word, printed columns, the
//! platform's configuration, the world that a pipeline finds itself in, its rights, and what it
//! hands over. All through the real kubectl, against the real hub.

#[path = "contract/columns.rs"]
mod columns;
#[path = "contract/configuration.rs"]
mod configuration;
#[path = "contract/health.rs"]
mod health;
#[path = "contract/phrases.rs"]
mod phrases;
#[path = "contract/placing.rs"]
mod placing;
#[path = "contract/releases.rs"]
mod releases;
#[path = "contract/results.rs"]
mod results;
#[path = "contract/rights.rs"]
mod rights;
#[path = "contract/versions.rs"]
mod versions;
#[path = "contract/world.rs"]
mod world;

use muster_e2e::{
    Executor, GitServer, Hub, has_part,
    manifests::{destination, hub_store},
    scratch,
};
use tempfile::TempDir;

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

/// A request of [`GOOD`].
pub(crate) fn good(name: &str, namespace: &str, size: &str) -> String {
    format!(
        "apiVersion: contract.example/v1\nkind: Good\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {{size: {size}}}\n---\n"
    )
}

/// A hub, and the Destination `dev` in the repository `fleet` of a real Git server.
pub(crate) struct Shop {
    pub(crate) hub: Hub,
    pub(crate) server: GitServer,
    _directory: TempDir,
}

impl Shop {
    /// None, said aloud, where there is no Git server.
    pub(crate) fn open() -> Option<Self> {
        if !has_part("MUSTER_GIT_SERVER") {
            return None;
        }
        let directory = scratch();
        let server = GitServer::start(directory.path());
        server.repositories().create("fleet");
        let hub = Hub::start(directory.path(), Executor::Process);
        hub.kubectl().apply(&(hub_store(&server, "fleet") + &destination("dev", "hub", "")));
        Some(Self { hub, server, _directory: directory })
    }
}
