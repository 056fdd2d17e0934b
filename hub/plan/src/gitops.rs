//! What makes Flux or Argo CD read a Destination: the documents to apply in its cluster.

use muster_api::{
    BucketStateStore, Destination, GitStateStore, bucket_state_store::BucketAuthMethod,
    destination::FilepathMode, git_state_store::GitAuthMethod,
};
use muster_core::directory;
use serde_json::{Value, json};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Flux.
    Flux,
    /// Argo CD.
    ArgoCd,
}

/// Where it reads.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A branch.
    Git(&'a GitStateStore),
    /// A bucket.
    Bucket(&'a BucketStateStore),
}

/// Documents, and what a person has to know before applying them.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// To be read first, a line each.
    pub notes: Vec<String>,
    /// To be applied.
    pub documents: Vec<Value>,
}

/// How often a reader looks: soon enough for a person who waits, seldom enough for the server.
const LOOK_EVERY: &str = "30s";
/// How often what runs is compared with what was read.
const COMPARE_EVERY: &str = "10m";
/// The lists of files that lie beside the files are no objects.
const LISTS: &str = ".kratix/";

/// The documents for one Destination; an error says why there are none.
pub fn setup(
    reader: Reader,
    destination: &Destination,
    source: Source<'_>,
) -> Result<Setup, String> {
    let prefix = match source {
        Source::Git(store) => store.spec.path.as_deref(),
        Source::Bucket(store) => store.spec.path.as_deref(),
    };
    let own = destination.spec.path.as_deref();
    let parse = |path: Option<&str>| directory::parse(path.unwrap_or_default());
    let place = directory::join(&parse(prefix)?, &parse(own)?);
    let name = destination.metadata.name.as_deref().unwrap_or_default();
    match reader {
        Reader::Flux => Ok(flux(name, destination, source, &place)),
        Reader::ArgoCd => argo(name, destination, source, &place),
    }
}

/// The directories to be read, in order, each with the end of a name.
fn parts(destination: &Destination, place: &str) -> Vec<(&'static str, String)> {
    match destination.spec.filepath.mode {
        FilepathMode::NestedByMetadata => {
            ["dependencies", "resources"].map(|part| (part, directory::join(place, part))).into()
        }
        FilepathMode::AggregatedYaml | FilepathMode::None => vec![("", place.to_owned())],
    }
}

fn named(name: &str, part: &str) -> String {
    if part.is_empty() { name.to_owned() } else { format!("{name}-{part}") }
}

fn flux(name: &str, destination: &Destination, source: Source<'_>, place: &str) -> Setup {
    let (kind, spec, keys) = flux_source(name, destination, source, place);
    let metadata = |name: &str| json!({ "name": name, "namespace": "flux-system" });
    let mut documents = vec![json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": kind,
        "metadata": metadata(name),
        "spec": spec,
    })];
    let mut before: Option<String> = None;
    for (part, path) in parts(destination, place) {
        let own = named(name, part);
        let mut spec = json!({
            "interval": COMPARE_EVERY,
            "path": format!("./{path}"),
            "prune": true,
            "sourceRef": { "kind": kind, "name": name },
        });
        if let Some(before) = before.replace(own.clone()) {
            spec["dependsOn"] = json!([{ "name": before }]);
        }
        documents.push(json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization",
            "metadata": metadata(&own),
            "spec": spec,
        }));
    }
    let note = keys.map(|keys| {
        format!("Flux logs in with Secret {name} in namespace flux-system, with the keys {keys}.")
    });
    Setup { notes: note.into_iter().collect(), documents }
}

/// Flux's source: its kind, its spec, and the keys of the Secret that it logs in with.
fn flux_source(
    name: &str,
    destination: &Destination,
    source: Source<'_>,
    place: &str,
) -> (&'static str, Value, Option<&'static str>) {
    let (kind, mut spec, keys) = match source {
        Source::Git(store) => {
            let keys = match store.spec.auth_method {
                GitAuthMethod::BasicAuth => "username, password",
                GitAuthMethod::Ssh => "identity, known_hosts",
                GitAuthMethod::GithubApp => {
                    "githubAppID, githubAppInstallationID, githubAppPrivateKey"
                }
            };
            let spec = json!({
                "interval": LOOK_EVERY,
                "url": ssh_url(&store.spec.url),
                "ref": { "branch": store.spec.branch },
                "secretRef": { "name": name },
            });
            ("GitRepository", spec, Some(keys))
        }
        Source::Bucket(store) => {
            let ambient = store.spec.auth_method == BucketAuthMethod::Iam;
            let mut spec = json!({
                "interval": LOOK_EVERY,
                "provider": if ambient { "aws" } else { "generic" },
                "bucketName": store.spec.bucket_name,
                "endpoint": store.spec.endpoint,
                "insecure": store.spec.insecure.unwrap_or_default(),
            });
            if !ambient {
                spec["secretRef"] = json!({ "name": name });
            }
            if !place.is_empty() {
                spec["prefix"] = json!(format!("{place}/"));
            }
            ("Bucket", spec, (!ambient).then_some("accesskey, secretkey"))
        }
    };
    if let Source::Git(store) = source
        && store.spec.auth_method == GitAuthMethod::GithubApp
    {
        spec["provider"] = json!("github");
    }
    if destination.spec.filepath.mode == FilepathMode::None {
        spec["ignore"] = json!(format!("{LISTS}\n.git/\n"));
    }
    (kind, spec, keys)
}

fn argo(
    name: &str,
    destination: &Destination,
    source: Source<'_>,
    place: &str,
) -> Result<Setup, String> {
    let Source::Git(store) = source else {
        return Err(format!(
            "destination {name} is fed by a bucket, which Argo CD does not read: use a GitStateStore, \
             or --for flux"
        ));
    };
    let parts = parts(destination, place);
    let documents = parts.iter().enumerate().map(|(wave, (part, path))| {
        let mut from = json!({
            "repoURL": store.spec.url,
            "targetRevision": store.spec.branch,
            "path": if path.is_empty() { "." } else { path },
            "directory": { "recurse": true },
        });
        if destination.spec.filepath.mode == FilepathMode::None {
            from["directory"]["exclude"] = json!(format!("{LISTS}*"));
        }
        json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {
                "name": named(name, part),
                "namespace": "argocd",
                "annotations": { "argocd.argoproj.io/sync-wave": wave.to_string() },
            },
            "spec": {
                "project": "default",
                "source": from,
                "destination": { "server": "https://kubernetes.default.svc" },
                "syncPolicy": {
                    "automated": { "prune": true, "selfHeal": true },
                    // What a dependency defines may come a moment after what uses it.
                    "retry": { "limit": 10 },
                },
            },
        })
    });
    let note = format!(
        "Argo CD must know how to log in to {}: argocd repo add, or a repository Secret.",
        store.spec.url
    );
    Ok(Setup { notes: vec![note], documents: documents.collect() })
}

/// `user@host:path` as a URL: Flux takes no other form.
fn ssh_url(url: &str) -> String {
    match url.split_once(':') {
        Some((host, path)) if !url.contains("://") => {
            format!("ssh://{host}/{}", path.trim_start_matches('/'))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::{DestinationSpec, GitStateStoreSpec};

    fn git(url: &str) -> GitStateStore {
        let spec = GitStateStoreSpec {
            url: url.into(),
            branch: "main".into(),
            path: Some("fleet".into()),
            ..Default::default()
        };
        GitStateStore::new("hub", spec)
    }

    fn destination(mode: FilepathMode) -> Destination {
        let mut spec = DestinationSpec { path: Some("dev/".into()), ..Default::default() };
        spec.filepath.mode = mode;
        Destination::new("dev", spec)
    }

    #[test]
    fn resources_wait_for_dependencies() {
        let store = git("git@git.example:fleet.git");
        let destination = destination(FilepathMode::NestedByMetadata);
        let made = setup(Reader::Flux, &destination, Source::Git(&store)).unwrap();
        let [source, dependencies, resources] = &made.documents[..] else { panic!("{made:?}") };
        assert_eq!(source["spec"]["url"], "ssh://git@git.example/fleet.git");
        assert_eq!(dependencies["spec"]["path"], "./fleet/dev/dependencies");
        assert_eq!(resources["spec"]["dependsOn"][0]["name"], "dev-dependencies");
        let argo = setup(Reader::ArgoCd, &destination, Source::Git(&store)).unwrap();
        assert_eq!(argo.documents[1]["spec"]["source"]["path"], "fleet/dev/resources");
    }

    #[test]
    fn lists_of_files_are_not_applied() {
        let store = git("https://git.example/fleet.git");
        let destination = destination(FilepathMode::None);
        let flux = setup(Reader::Flux, &destination, Source::Git(&store)).unwrap();
        assert_eq!(flux.documents.len(), 2);
        assert!(flux.documents[0]["spec"]["ignore"].as_str().unwrap().contains(".kratix/"));
        let argo = setup(Reader::ArgoCd, &destination, Source::Git(&store)).unwrap();
        assert_eq!(argo.documents[0]["spec"]["source"]["directory"]["exclude"], ".kratix/*");
    }

    #[test]
    fn argo_cd_reads_no_bucket() {
        let store = BucketStateStore::new("pail", Default::default());
        let destination = destination(FilepathMode::NestedByMetadata);
        let error = setup(Reader::ArgoCd, &destination, Source::Bucket(&store)).unwrap_err();
        assert!(error.contains("--for flux"), "{error}");
        let flux = setup(Reader::Flux, &destination, Source::Bucket(&store)).unwrap();
        assert_eq!(flux.documents[0]["spec"]["prefix"], "dev/");
    }
}
