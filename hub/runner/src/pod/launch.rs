//! From a container of a Pod object to what an executor is asked to run.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};

use serde_json::{Value, json};

use super::{
    GRACE_SECONDS,
    env::{ReferenceError, environment, expand},
    volumes::References,
};
use crate::launch::{ContainerLaunch, Limits, Mount, Pull, Security};

/// Resolves everything that `container` refers to.
pub(crate) async fn container(
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    references: &References,
    base: BTreeMap<String, String>,
) -> Result<ContainerLaunch, ReferenceError> {
    let env = environment(pod, container, references, base).await?;
    let expanded = |words: &Option<Vec<String>>| {
        words.iter().flatten().map(|word| expand(word, &env)).collect::<Vec<_>>()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    Ok(ContainerLaunch {
        name: container.name.clone(),
        restart: 0,
        image: container.image.clone().unwrap_or_default(),
        pull: match container.image_pull_policy.as_deref() {
            Some("Always") => Pull::Always,
            Some("Never") => Pull::Never,
            _ => Pull::IfAbsent,
        },
        registry_auth: registry_auth(pod, references).await?,
        command,
        args,
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        env,
        mounts: mounts(pod, container, volumes)?,
        limits: limits(container),
        security: security(pod, container),
        grace: Duration::from_secs(grace.unwrap_or(GRACE_SECONDS).max(0).unsigned_abs()),
    })
}

/// The pod's `imagePullSecrets` as one document; absent ones are passed over, as by a kubelet.
async fn registry_auth(
    pod: &Pod,
    references: &References,
) -> Result<Option<String>, ReferenceError> {
    let secrets = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
    let mut auths = serde_json::Map::new();
    for secret in secrets.into_iter().flatten() {
        let found = references.get("Secret", &secret.name, Some(true)).await?;
        let document = found.get(".dockerconfigjson").map(Vec::as_slice).unwrap_or_default();
        let document: Value = serde_json::from_slice(document).unwrap_or_default();
        auths.extend(document["auths"].as_object().cloned().unwrap_or_default());
    }
    Ok((!auths.is_empty()).then(|| json!({"auths": auths}).to_string()))
}

fn mounts(
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Mount>, ReferenceError> {
    let all = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let writable = |name: &str| {
        let of_name = all.into_iter().flatten().find(|volume| volume.name == name);
        of_name.is_some_and(|volume| volume.empty_dir.is_some())
    };
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let source = volumes
            .get(&mount.name)
            .ok_or_else(|| ReferenceError::Absent { kind: "volume", name: mount.name.clone() })?;
        let part = mount.sub_path.as_deref().unwrap_or_default();
        mounts.push(Mount {
            source: within(source, part, &mount.name)?,
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || !writable(&mount.name),
        });
    }
    // Outer before inner, or the outer one would hide the inner.
    mounts.sort_by_key(|mount| mount.target.split('/').count());
    Ok(mounts)
}

/// A part of a volume that the runner made, or all of it.
fn within(volume: &Path, part: &str, name: &str) -> Result<PathBuf, ReferenceError> {
    if part.is_empty() {
        return Ok(volume.to_owned());
    }
    let path = Path::new(part);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(ReferenceError::Path { name: name.to_owned(), path: part.to_owned() });
    }
    let whole = volume.join(path);
    match whole.exists() {
        true => Ok(whole),
        false => {
            let name = format!("{part} of volume {name}");
            Err(ReferenceError::Absent { kind: "file", name })
        }
    }
}

fn limits(container: &Container) -> Limits {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let of = |name: &str| limits.and_then(|limits| limits.get(name));
    Limits {
        cpu_millis: of("cpu").and_then(|cpu| quantity(cpu, 1000.0)),
        memory_bytes: of("memory").and_then(|memory| quantity(memory, 1.0)),
        storage_bytes: of("ephemeral-storage").and_then(|storage| quantity(storage, 1.0)),
    }
}

/// A Kubernetes quantity in units of 1/`scale`, rounded up.
pub(crate) fn quantity(quantity: &Quantity, scale: f64) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * factor * scale;
    (value.is_finite() && value >= 0.0).then_some(value.ceil() as u64)
}

fn security(pod: &Pod, container: &Container) -> Security {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let dropped = own.and_then(|own| own.capabilities.as_ref()).and_then(|c| c.drop.clone());
    Security {
        user: id(own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user))),
        group: id(own.and_then(|c| c.run_as_group).or(of_pod.and_then(|c| c.run_as_group))),
        non_root: own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root))
            == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        drop_capabilities: dropped.unwrap_or_default(),
    }
}
