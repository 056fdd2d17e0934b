//! What tests and benches apply: Promises with one small pipeline, their requests, state stores, and
//! Destinations.

use crate::GitServer;

/// A Promise whose requests have text fields, and one pipeline that runs a script.
///
/// Its kind is its name with a capital letter, and its plural has an `s`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Promise<'a> {
    /// Its name, and the singular of its requests.
    pub name: &'a str,
    /// The API group of its requests.
    pub group: &'a str,
    /// The label of the destinations that all of it goes to, such as `platform: vm`; empty where
    /// the script chooses.
    pub platform: &'a str,
    /// The fields of a request's `spec`, each with its schema. All are required.
    pub fields: &'a [(&'a str, &'a str)],
    /// Objects that it depends on, as a YAML list.
    pub dependencies: &'a str,
    /// What its pipeline runs in `/kratix/output`: `$name` is the request's, and each field has a
    /// variable.
    pub script: &'a str,
    /// Whether a script that fails is not tried again.
    pub once: bool,
}

impl Promise<'_> {
    /// The Promise itself.
    pub fn yaml(&self) -> String {
        let Self { name, group, .. } = self;
        let selectors = match self.platform {
            "" => String::new(),
            label => format!("  destinationSelectors:\n  - matchLabels: {{{label}}}\n"),
        };
        let dependencies = match self.dependencies {
            "" => String::new(),
            list => format!("  dependencies:\n{}\n", indented(list, 2)),
        };
        let required: Vec<_> = self.fields.iter().map(|(field, _)| *field).collect();
        let required = required.join(", ");
        let fields = self.fields.iter().map(|(field, schema)| format!("{field}: {schema}\n"));
        let fields = indented(&fields.collect::<String>(), 18);
        let once = if self.once { ONCE } else { "" };
        let script = indented(&format!("{}\n{}", self.prelude(), self.script), 14);
        let kind = self.kind();
        format!(
            r#"---
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata:
  name: {name}
spec:
{selectors}{dependencies}  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {{name: {name}s.{group}}}
    spec:
      group: {group}
      scope: Namespaced
      names: {{kind: {kind}, listKind: {kind}List, plural: {name}s, singular: {name}}}
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
                required: [{required}]
                properties:
{fields}
  workflows:
    resource:
      configure:
      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata: {{name: render}}
        spec:
{once}          containers:
          - name: render
            image: docker.io/library/busybox:1.36
            command: [sh, -c]
            args:
            - |
{script}
"#
        )
    }

    /// A request in `default`; `spec` is what stands between its braces.
    pub fn request(&self, name: &str, spec: &str) -> String {
        format!(
            "apiVersion: {}/v1alpha1\nkind: {}\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{{spec}}}\n---\n",
            self.group,
            self.kind()
        )
    }

    /// The kind of its requests.
    pub fn kind(&self) -> String {
        self.name[..1].to_uppercase() + &self.name[1..]
    }

    /// Reads the request into variables. No program is started for it: benches measure the rest.
    fn prelude(&self) -> String {
        let names = || self.fields.iter().map(|(field, _)| *field);
        let unset: String = names().map(|field| format!(" {field}=")).collect();
        let one = |at: &str, name: &str| {
            format!(
                "  \"{at}   {name}: \"*) {name}=${{line#*: }}; {name}=${{{name}#\\\"}}; \
                 {name}=${{{name}%\\\"}} ;;\n"
            )
        };
        let all: String = names().map(|field| one("spec", field)).collect();
        format!(
            "set -eu\ntop= name={unset}\nwhile IFS= read -r line; do\n  \
             case \"$line\" in [a-z]*) top=${{line%%:*}} ;; esac\n  case \"$top $line\" in\n{}{all}  \
             esac\ndone < /kratix/input/object.yaml\ncd /kratix/output",
            one("metadata", "name")
        )
    }
}

/// A Secret in `default`.
pub fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\nstringData:\n"
    );
    for (key, value) in data {
        text.push_str(&format!("  {key}: {}\n", serde_json::Value::from(*value)));
    }
    text + "---\n"
}

/// A GitStateStore whose Secret has its name; `more` are further lines of its `spec`.
pub fn git_store(name: &str, url: &str, more: &str) -> String {
    store("GitStateStore", name, &format!("  url: {url}\n{more}"))
}

/// A BucketStateStore over plain http whose Secret has its name.
pub fn bucket_store(name: &str, endpoint: &str, bucket: &str, more: &str) -> String {
    let spec = format!("  endpoint: {endpoint}\n  bucketName: {bucket}\n  insecure: true\n{more}");
    store("BucketStateStore", name, &spec)
}

/// The store `hub` on a Git server, with its Secret.
pub fn hub_store(server: &GitServer, repository: &str) -> String {
    let login = [("username", "hub"), ("password", "let-me-in"), ("caFile", &server.authority())];
    secret("hub", &login) + &git_store("hub", &server.url(repository), "")
}

/// A Destination of a GitStateStore; its path and its label `place` are its name.
pub fn destination(name: &str, store: &str, more: &str) -> String {
    fed(name, "GitStateStore", store, more)
}

/// A Destination of a store of any kind.
pub fn fed(name: &str, kind: &str, store: &str, more: &str) -> String {
    format!(
        "apiVersion: platform.kratix.io/v1alpha1\nkind: Destination\n\
         metadata: {{name: {name}, labels: {{place: {name}}}}}\nspec:\n  path: {name}\n  \
         stateStoreRef: {{kind: {kind}, name: {store}}}\n{more}---\n"
    )
}

const ONCE: &str = "          restartPolicy: Never\n          jobOptions: {backoffLimit: 0}\n";

fn store(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: platform.kratix.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  \
         secretRef: {{name: {name}, namespace: default}}\n{spec}---\n"
    )
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<_> = text.trim().lines().map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}
