//! `muster delete`: asks for the end of objects, and shows what it waits for until they are gone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cluster::{Cluster, is_not_found},
    manifests,
};
use crate::args::{ClientArgs, DeleteArgs};

/// Between two looks at an object that is going.
const LOOK: Duration = Duration::from_millis(300);

/// One object to delete.
struct Target {
    title: String,
    path: String,
}

/// Deletes what is named, the last first, and waits.
pub(crate) async fn run(args: &DeleteArgs, client: &ClientArgs) -> Result<()> {
    let deadline = deadline(args.timeout.as_deref())?;
    let cluster = Cluster::connect(client, args.namespace.as_deref()).await?;
    let targets =
        if args.filename.is_empty() { named(&cluster, args)? } else { of_files(&cluster, args)? };
    let mut failed = 0;
    let mut going = Vec::new();
    for target in targets {
        match delete(&cluster, &target.path).await {
            Ok(()) => going.push(target),
            Err(error) => {
                failed += 1;
                eprintln!("error: {}: {error:#}", target.title);
            }
        }
    }
    for target in &going {
        if !args.no_wait {
            let gone = wait_until_gone(&cluster, &target.path, &target.title);
            match deadline {
                None => gone.await?,
                Some(deadline) => tokio::time::timeout_at(deadline, gone)
                    .await
                    .with_context(|| format!("{} is not gone yet; it goes on", target.title))??,
            }
        }
        println!("{} deleted", target.title);
    }
    if failed > 0 {
        bail!("{failed} objects were not deleted");
    }
    Ok(())
}

fn deadline(timeout: Option<&str>) -> Result<Option<Instant>> {
    let Some(text) = timeout else { return Ok(None) };
    let span: SignedDuration =
        text.parse().with_context(|| format!("--timeout {text:?}: write it as 30s or 5m"))?;
    let span = Duration::try_from(span).with_context(|| format!("--timeout {text:?}"))?;
    Ok(Some(Instant::now() + span))
}

/// Asks for the end of an object; what belongs to it follows in the background.
async fn delete(cluster: &Cluster, path: &str) -> Result<()> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                         "propagationPolicy": "Background"});
    let body = Some(("application/json", serde_json::to_vec(&options)?));
    cluster.write(Method::DELETE, path, body).await.map(drop)
}

/// Waits until an object is gone; says on stderr what it waits for, whenever that changes.
async fn wait_until_gone(cluster: &Cluster, path: &str, title: &str) -> Result<()> {
    let mut told = String::new();
    let mut uid = None;
    loop {
        let object = match cluster.get(path).await {
            Ok(object) => object,
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let own = object["metadata"]["uid"].clone();
        // One of the same name that came later is not what was deleted.
        if *uid.get_or_insert_with(|| own.clone()) != own {
            return Ok(());
        }
        let reason = waits_for(&object);
        if !reason.is_empty() && reason != told {
            eprintln!("waiting for {title}: {reason}");
            told = reason;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The API's own words: a condition that does not hold, else the finalizers.
fn waits_for(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let of = |kind: &str| {
        let found = conditions?.iter().find(|c| c["type"] == kind && c["status"] != "True")?;
        found["message"].as_str().filter(|message| !message.is_empty())
    };
    let told = ["DeleteWorkflowCompleted", "Reconciled", "Ready"].iter().find_map(|kind| of(kind));
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let finalizers: Vec<_> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    match told {
        Some(message) => message.to_owned(),
        None if finalizers.is_empty() => String::new(),
        None => format!("its finalizers {}", finalizers.join(", ")),
    }
}

fn named(cluster: &Cluster, args: &DeleteArgs) -> Result<Vec<Target>> {
    let kind = cluster.kind(args.kind.as_deref().unwrap_or_default())?;
    let target = |name: &String| Target {
        title: kind.object(name),
        path: kind.object_path(&cluster.namespace, name),
    };
    Ok(args.names.iter().map(target).collect())
}

fn of_files(cluster: &Cluster, args: &DeleteArgs) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for manifest in manifests::read(&args.filename)?.iter().rev() {
        match cluster.kind_of(&manifest.object) {
            Some(kind) => {
                let namespace = manifest.namespace().unwrap_or(&cluster.namespace);
                targets.push(Target {
                    title: kind.object(manifest.name()),
                    path: kind.object_path(namespace, manifest.name()),
                });
            }
            // Its Promise is gone, and so is it.
            None => eprintln!("{}: its kind is not served here any more", manifest.title()),
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_condition_before_the_finalizers() {
        let mut object = json!({"metadata": {"finalizers": ["kratix.io/work-cleanup"]}});
        assert_eq!(waits_for(&object), "its finalizers kratix.io/work-cleanup");
        object["status"] = json!({"conditions": [
            {"type": "Reconciled", "status": "Unknown", "message": "vm-1 is offline"}]});
        assert_eq!(waits_for(&object), "vm-1 is offline");
    }
}
