//! `muster logs`: what the containers of a pod printed, or of all pods that a request had.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::AsyncReadExt as _;
use serde_json::Value;

use super::{
    cluster::Cluster,
    get::{escaped, print},
};
use crate::args::{ClientArgs, LogsArgs};

/// Between two looks at a container that has not started.
const LOOK: Duration = Duration::from_millis(300);
/// Bytes read from a log at once.
const CHUNK: usize = 16 << 10;

/// Prints the logs, container after container in the order in which they run.
pub(crate) async fn run(args: &LogsArgs, client: &ClientArgs) -> Result<()> {
    let cluster = Cluster::connect(client, args.namespace.as_deref()).await?;
    let pods = match args.target.split_once('/') {
        Some((kind, name)) => pods_of(&cluster, kind, name).await?,
        None => {
            let pods = cluster.kind("pods")?;
            vec![cluster.get(&pods.object_path(&cluster.namespace, &args.target)).await?]
        }
    };
    let several = pods.len() > 1;
    for pod in &pods {
        let containers = containers(pod, args.container.as_deref())?;
        for container in &containers {
            if several || containers.len() > 1 {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                print(format!("==> {name} {container} <==\n").as_bytes())?;
            }
            show(&cluster, pod, container, args).await?;
        }
    }
    Ok(())
}

/// The pods of a pod, a job, a promise or a request, the oldest first.
async fn pods_of(cluster: &Cluster, kind: &str, name: &str) -> Result<Vec<Value>> {
    let kind = cluster.kind(kind)?;
    let pods = cluster.kind("pods")?;
    let object = cluster.get(&kind.object_path(&cluster.namespace, name)).await?;
    let labelled = |key: &str| object.pointer(&format!("/metadata/labels/{key}"));
    let selector = match kind.kind.as_str() {
        "Pod" => return Ok(vec![object]),
        "Job" => format!("batch.kubernetes.io/job-name={name}"),
        "Promise" => format!("kratix.io/promise-name={name},kratix.io/workflow-type=promise"),
        _ => match labelled("kratix.io~1promise-name").and_then(Value::as_str) {
            Some(promise) => format!(
                "kratix.io/promise-name={promise},kratix.io/resource-name={name},\
                 kratix.io/workflow-type=resource"
            ),
            None => bail!(
                "{} has no pods: name a pod, a job, a promise or a request",
                kind.object(name)
            ),
        },
    };
    // Pipelines may run in another namespace than their request.
    let path = format!("{}?labelSelector={}", pods.path(None), escaped(&selector));
    let list = cluster.get(&path).await?;
    let mut found = list["items"].as_array().cloned().unwrap_or_default();
    found.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
    if found.is_empty() {
        bail!("{} has no pods (any more): its pipelines have not run yet", kind.object(name));
    }
    Ok(found)
}

/// The containers of a pod in the order in which they run, or the one that is asked for.
fn containers(pod: &Value, only: Option<&str>) -> Result<Vec<String>> {
    let of = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
    let all = [of("initContainers"), of("containers")].concat();
    let names: Vec<_> = all.iter().filter_map(|c| Some(c["name"].as_str()?.to_owned())).collect();
    match only {
        None => Ok(names),
        Some(only) if names.iter().any(|name| name == only) => Ok(vec![only.to_owned()]),
        Some(only) => bail!("there is no container {only:?}: it has {}", names.join(", ")),
    }
}

async fn show(cluster: &Cluster, pod: &Value, container: &str, args: &LogsArgs) -> Result<()> {
    let of = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let path = cluster.kind("pods")?.object_path(of("namespace"), of("name"));
    if !await_start(cluster, &path, container, args.follow).await? {
        return Ok(());
    }
    let mut log = format!("{path}/log?container={}&follow={}", escaped(container), args.follow);
    if let Some(lines) = args.tail {
        log += &format!("&tailLines={lines}");
    }
    let mut reader = cluster.stream(&log, "*/*").await?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            length => print(&buffer[..length])?,
        }
    }
}

/// Whether the container has started; with `follow` waits for it, until the pod has ended.
async fn await_start(cluster: &Cluster, path: &str, container: &str, follow: bool) -> Result<bool> {
    loop {
        let pod = cluster.get(path).await?;
        let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
        let all = [of("initContainerStatuses"), of("containerStatuses")].concat();
        let state = all.iter().find(|status| status["name"] == container).map(|s| &s["state"]);
        if state.is_some_and(|s| s.get("running").is_some() || s.get("terminated").is_some()) {
            return Ok(true);
        }
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if ended || !follow {
            let waiting = state.and_then(|s| s.pointer("/waiting/message")).and_then(Value::as_str);
            eprintln!(
                "(container {container} has not run{})",
                match waiting {
                    Some(message) => format!(": {message}"),
                    None => String::new(),
                }
            );
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}
