//! A container's environment: values, references, and `$(NAME)` in them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::{
    field,
    volumes::{Referenced, References},
};

/// Why a container's environment, or a volume, cannot be made (yet): the object may still come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReferenceError {
    #[error("{kind} {name:?} not found")]
    Absent { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {name:?}")]
    Key { kind: &'static str, name: String, key: String },
    #[error("field {0:?} is not known")]
    Field(String),
    #[error("cannot read {kind} {name:?}: {cause}")]
    Api { kind: &'static str, name: String, cause: String },
    #[error("cannot write volume {name:?}: {cause}")]
    Write { name: String, cause: String },
    #[error("path {path:?} in volume {name:?} climbs out of it")]
    Path { name: String, path: String },
}

/// The environment of `container`, references resolved, later ones over earlier ones.
pub(crate) async fn environment(
    pod: &Pod,
    container: &Container,
    references: &References,
    base: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ReferenceError> {
    let mut env = base;
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let found = if let Some(map) = &source.config_map_ref {
            references.get("ConfigMap", &map.name, map.optional).await?
        } else if let Some(secret) = &source.secret_ref {
            references.get("Secret", &secret.name, secret.optional).await?
        } else {
            Referenced::new()
        };
        for (key, value) in found {
            env.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(source)) => referenced(pod, source, references).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

async fn referenced(
    pod: &Pod,
    source: &EnvVarSource,
    references: &References,
) -> Result<Option<String>, ReferenceError> {
    if let Some(reference) = &source.field_ref {
        let path = &reference.field_path;
        return field(pod, path).map(Some).ok_or_else(|| ReferenceError::Field(path.clone()));
    }
    let (kind, name, key, optional) = if let Some(map) = &source.config_map_key_ref {
        ("ConfigMap", &map.name, &map.key, map.optional)
    } else if let Some(secret) = &source.secret_key_ref {
        ("Secret", &secret.name, &secret.key, secret.optional)
    } else {
        return Ok(None);
    };
    let found = references.get(kind, name, optional).await?;
    match found.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(ReferenceError::Key { kind, name: name.clone(), key: key.clone() }),
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is one dollar; unknown names stay as they are.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|a| a.split_once(')'))
        {
            match env.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}
