//! `muster explain`: fetches an object and what became of it; what that means is said by the plan.

use anyhow::{Context as _, Result};
use muster_api::{Destination, Work, WorkPlacement, labels};
use muster_plan::{
    explain::{Subject, explain},
    schedule::owns,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    cluster::Cluster,
    get::{escaped, print},
};
use crate::args::{ClientArgs, ExplainArgs};

const PLACEMENTS: &str = "workplacements.platform.kratix.io";

/// Prints a few lines on where the object stands.
pub(crate) async fn run(args: &ExplainArgs, client: &ClientArgs) -> Result<()> {
    let cluster = Cluster::connect(client, args.namespace.as_deref()).await?;
    let kind = cluster.kind(&args.kind)?;
    let object = cluster.get(&kind.object_path(&cluster.namespace, &args.name)).await?;
    let (works, placements) = match (object["kind"].as_str(), selector(&object)) {
        (Some("Work"), _) => {
            let work: Work = read(&object)?;
            let all = list::<WorkPlacement>(&cluster, PLACEMENTS, "").await?;
            let own = all.into_iter().filter(|placement| owns(&work, placement)).collect();
            (vec![work], own)
        }
        (Some("WorkPlacement"), _) => (Vec::new(), vec![read(&object)?]),
        (Some("Destination" | "Agent"), _) => {
            let all = list::<WorkPlacement>(&cluster, PLACEMENTS, "").await?;
            let here = |p: &WorkPlacement| p.spec.target_destination_name == args.name;
            (Vec::new(), all.into_iter().filter(here).collect())
        }
        (_, Some(selector)) => (
            list::<Work>(&cluster, "works.platform.kratix.io", &selector).await?,
            list::<WorkPlacement>(&cluster, PLACEMENTS, &selector).await?,
        ),
        _ => (Vec::new(), Vec::new()),
    };
    let is_work = object["kind"] == "Work";
    let works: Vec<_> =
        works.into_iter().filter(|work| is_work || belongs(work, &object)).collect();
    let destinations = list::<Destination>(&cluster, "destinations.platform.kratix.io", "").await?;
    let subject = Subject {
        object: &object,
        works: &works,
        placements: &placements,
        destinations: &destinations,
    };
    print((explain(&subject).join("\n") + "\n").as_bytes())
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T> {
    serde_json::from_value(object.clone()).context("the server's object is not as it should be")
}

/// The labels that an object's Works and placements have; `None` for what has none.
fn selector(object: &Value) -> Option<String> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str)?;
    if object["kind"] == "Promise" {
        return Some(format!("{}={name},!{}", labels::PROMISE_NAME, labels::RESOURCE_NAME));
    }
    let promise = object["metadata"]["labels"].get(labels::PROMISE_NAME).and_then(Value::as_str)?;
    Some(format!("{}={promise},{}={name}", labels::PROMISE_NAME, labels::RESOURCE_NAME))
}

/// Works may stand in another namespace than their request, which they then name.
fn belongs(work: &Work, object: &Value) -> bool {
    let Some(namespace) = object.pointer("/metadata/namespace").and_then(Value::as_str) else {
        return true;
    };
    let labels = work.metadata.labels.as_ref();
    let named = labels.and_then(|labels| labels.get(labels::RESOURCE_NAMESPACE));
    match named {
        Some(named) => named == namespace,
        None => work.metadata.namespace.as_deref() == Some(namespace),
    }
}

async fn list<T: DeserializeOwned>(
    cluster: &Cluster,
    kind: &str,
    selector: &str,
) -> Result<Vec<T>> {
    let path = format!("{}?labelSelector={}", cluster.kind(kind)?.path(None), escaped(selector));
    let mut list = cluster.get(&path).await?;
    serde_json::from_value(list["items"].take())
        .with_context(|| format!("the server's {kind} are not as they should be"))
}
