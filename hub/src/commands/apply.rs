//! `muster apply`: server-side apply of every object, and one line about each.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;

use super::{
    cluster::{Cluster, status_of},
    manifests::{self, Manifest},
};
use crate::args::{ApplyArgs, ClientArgs};

/// The manager of the fields that this command sets.
const FIELD_MANAGER: &str = "muster";
/// How long to wait for a kind that an object of the same command brings.
const KIND_WAIT: Duration = Duration::from_secs(30);
/// Between two looks for it.
const KIND_LOOK: Duration = Duration::from_millis(200);
/// Server-side apply (KEP-555); JSON is YAML.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Applies the objects of the files; goes on after a refusal and fails at the end.
pub(crate) async fn run(args: &ApplyArgs, client: &ClientArgs) -> Result<()> {
    let mut manifests = manifests::read(&args.filename)?;
    let mut cluster = Cluster::connect(client, args.namespace.as_deref()).await?;
    manifests.sort_by_key(|manifest| rank(&manifest.object));
    let mut failed = 0;
    for manifest in &manifests {
        match apply(&mut cluster, args, manifest, &manifests).await {
            Ok((object, what)) => println!("{object} {what}"),
            Err(error) => {
                failed += 1;
                eprintln!("error: {}: {error:#}", manifest.title());
                if status_of(&error).is_some_and(|status| status.code == 409) {
                    eprintln!("  --force-conflicts takes these fields over");
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} objects were not applied", manifests.len()),
    }
}

/// Brings an object about: `created`, `configured` or `unchanged`.
async fn apply(
    cluster: &mut Cluster,
    args: &ApplyArgs,
    manifest: &Manifest,
    all: &[Manifest],
) -> Result<(String, &'static str)> {
    let object = &manifest.object;
    await_kind(cluster, object, all).await?;
    let Some(kind) = cluster.kind_of(object) else {
        bail!(
            "apiVersion {}, kind {} is not served here: apply its Promise or \
             CustomResourceDefinition first",
            object["apiVersion"],
            object["kind"]
        );
    };
    let namespace = manifest.namespace().unwrap_or(&cluster.namespace);
    if let (Some(own), Some(asked)) = (manifest.namespace(), &args.namespace)
        && own != asked
    {
        bail!("metadata.namespace is {own:?}, but -n says {asked:?}");
    }
    let path = kind.object_path(namespace, manifest.name());
    let title = kind.object(manifest.name());
    let before = cluster.find_object(&path).await?;
    let patch = format!(
        "{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict&force={}",
        args.force_conflicts
    );
    let body = Some((APPLY_PATCH, serde_json::to_vec(object)?));
    let after = cluster.write(Method::PATCH, &patch, body).await?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let what = match before {
        None => "created",
        Some(before) if version(&before) == version(&after) => "unchanged",
        Some(_) => "configured",
    };
    Ok((title, what))
}

/// Waits for a kind, if something in the same command can bring it.
async fn await_kind(cluster: &mut Cluster, object: &Value, all: &[Manifest]) -> Result<()> {
    let brings = |m: &Manifest| m.object["kind"] == "Promise" || rank(&m.object) == 1;
    let deadline = tokio::time::Instant::now() + KIND_WAIT;
    while cluster.kind_of(object).is_none() {
        if !all.iter().any(brings) || tokio::time::Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(KIND_LOOK).await;
        cluster.refresh().await?;
    }
    Ok(())
}

/// What others need comes first: namespaces, kinds, Promises.
fn rank(object: &Value) -> u8 {
    match object["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        Some("Promise") => 2,
        _ => 3,
    }
}
