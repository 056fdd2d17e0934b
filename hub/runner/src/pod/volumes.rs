//! A pod's volumes as directories of this host, and the objects that they are made from.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount,
        ServiceAccountTokenProjection, Volume, VolumeProjection,
    },
};
use kube::{Api, Client, ResourceExt, api::PostParams};

use super::{env::ReferenceError, field};

/// A ConfigMap's or Secret's entries.
pub(crate) type Referenced = BTreeMap<String, Vec<u8>>;

/// The audience of a token for the API itself, as the API server has it by default.
const TOKEN_SECONDS_MIN: i64 = 600;
/// A token outlives its pod's deadline by this much, so that it needs no renewal.
const TOKEN_SECONDS_SPARE: i64 = 60;

/// Reads the objects of one namespace that a pod refers to.
pub(crate) struct References {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Stands in for the ConfigMap `kube-root-ca.crt` where no controller publishes it.
    pub(crate) ca_pem: String,
    /// How long the pod may run, seconds.
    pub(crate) deadline: i64,
}

impl References {
    /// The entries of an object; none if it is absent and `optional`.
    pub(crate) async fn get(
        &self,
        kind: &'static str,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Referenced, ReferenceError> {
        let found = match kind {
            "Secret" => self.secret(name).await,
            _ => self.config_map(name).await,
        };
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) if name == "kube-root-ca.crt" && kind == "ConfigMap" => {
                Ok([("ca.crt".to_owned(), self.ca_pem.clone().into_bytes())].into())
            }
            Ok(None) if optional == Some(true) => Ok(Referenced::new()),
            Ok(None) => Err(ReferenceError::Absent { kind, name: name.to_owned() }),
            Err(error) => {
                Err(ReferenceError::Api { kind, name: name.to_owned(), cause: error.to_string() })
            }
        }
    }

    async fn config_map(&self, name: &str) -> kube::Result<Option<Referenced>> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get_opt(name).await?.map(|map| {
            let text = map.data.unwrap_or_default().into_iter();
            let binary = map.binary_data.unwrap_or_default().into_iter();
            text.map(|(key, value)| (key, value.into_bytes()))
                .chain(binary.map(|(key, value)| (key, value.0)))
                .collect()
        }))
    }

    async fn secret(&self, name: &str) -> kube::Result<Option<Referenced>> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get_opt(name).await?.map(|secret| {
            secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
        }))
    }

    /// A token of the pod's ServiceAccount that ends with the pod.
    async fn token(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, ReferenceError> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let name = account.unwrap_or_else(|| "default".to_owned());
        let seconds = wanted.expiration_seconds.unwrap_or(0).max(TOKEN_SECONDS_MIN);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wanted.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(seconds.max(self.deadline + TOKEN_SECONDS_SPARE)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), &self.namespace);
        let failed = |cause: String| ReferenceError::Api {
            kind: "the token of ServiceAccount",
            name: name.clone(),
            cause,
        };
        let answer = api
            .create_token_request(&name, &PostParams::default(), &request)
            .await
            .map_err(|error| failed(error.to_string()))?;
        answer
            .status
            .and_then(|status| status.token)
            .ok_or_else(|| failed("the API sent none".to_owned()))
    }
}

/// Makes every volume of the pod below `root`; their directories by name.
pub(crate) async fn make(
    pod: &Pod,
    root: &Path,
    references: &References,
) -> Result<BTreeMap<String, PathBuf>, ReferenceError> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
    let mut made = BTreeMap::new();
    for volume in volumes {
        let dir = root.join(&volume.name);
        make_dir(&dir, &volume)?;
        for (path, file) in files(pod, &volume, references).await? {
            place(&dir, &volume.name, &path, &file)?;
        }
        made.insert(volume.name, dir);
    }
    Ok(made)
}

/// A volume's directory is open to every user of the pod, as a kubelet makes it; the directory
/// above keeps the users of the host out.
fn make_dir(dir: &Path, volume: &Volume) -> Result<(), ReferenceError> {
    let failed = |error: std::io::Error| ReferenceError::Write {
        name: volume.name.clone(),
        cause: error.to_string(),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let mode = if volume.empty_dir.is_some() { 0o777 } else { 0o755 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(failed)
}

struct VolumeFile {
    bytes: Vec<u8>,
    mode: u32,
}

type Files = Vec<(String, VolumeFile)>;

async fn files(
    pod: &Pod,
    volume: &Volume,
    references: &References,
) -> Result<Files, ReferenceError> {
    if let Some(map) = &volume.config_map {
        let found = references.get("ConfigMap", &map.name, map.optional).await?;
        let what = ("ConfigMap", map.name.as_str(), map.optional);
        return select(found, map.items.as_deref(), map.default_mode, what);
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        let found = references.get("Secret", &name, secret.optional).await?;
        let what = ("Secret", name.as_str(), secret.optional);
        return select(found, secret.items.as_deref(), secret.default_mode, what);
    }
    if let Some(downward) = &volume.downward_api {
        return downward_files(pod, downward.items.as_deref(), downward.default_mode);
    }
    let mut files = Files::new();
    if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            files.extend(projected_files(pod, source, projected.default_mode, references).await?);
        }
    }
    Ok(files)
}

async fn projected_files(
    pod: &Pod,
    source: &VolumeProjection,
    mode: Option<i32>,
    references: &References,
) -> Result<Files, ReferenceError> {
    if let Some(wanted) = &source.service_account_token {
        let token = references.token(pod, wanted).await?;
        let file = VolumeFile { bytes: token.into_bytes(), mode: file_mode(mode) };
        return Ok(vec![(wanted.path.clone(), file)]);
    }
    if let Some(map) = &source.config_map {
        let found = references.get("ConfigMap", &map.name, map.optional).await?;
        let what = ("ConfigMap", map.name.as_str(), map.optional);
        return select(found, map.items.as_deref(), mode, what);
    }
    if let Some(secret) = &source.secret {
        let found = references.get("Secret", &secret.name, secret.optional).await?;
        let what = ("Secret", secret.name.as_str(), secret.optional);
        return select(found, secret.items.as_deref(), mode, what);
    }
    let items = source.downward_api.as_ref().and_then(|downward| downward.items.as_deref());
    downward_files(pod, items, mode)
}

fn select(
    mut found: Referenced,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    (kind, name, optional): (&'static str, &str, Option<bool>),
) -> Result<Files, ReferenceError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = found.into_iter();
        return Ok(all
            .map(|(key, bytes)| (key, VolumeFile { bytes, mode: file_mode(mode) }))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match found.remove(&item.key) {
            Some(bytes) => {
                let mode = file_mode(item.mode.or(mode));
                files.push((item.path.clone(), VolumeFile { bytes, mode }));
            }
            None if optional == Some(true) => {}
            None => {
                let (name, key) = (name.to_owned(), item.key.clone());
                return Err(ReferenceError::Key { kind, name, key });
            }
        }
    }
    Ok(files)
}

fn downward_files(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<Files, ReferenceError> {
    let mut files = Files::new();
    for item in items.into_iter().flatten() {
        let path = item.field_ref.as_ref().map(|field| field.field_path.as_str());
        let text = path
            .and_then(|path| field(pod, path))
            .ok_or_else(|| ReferenceError::Field(path.unwrap_or("resourceFieldRef").to_owned()))?;
        let mode = file_mode(item.mode.or(mode));
        files.push((item.path.clone(), VolumeFile { bytes: text.into_bytes(), mode }));
    }
    Ok(files)
}

/// A container's user is not the owner of these files, so whoever may read may be everybody: what
/// is kept of the mode is whether the file is a program.
fn file_mode(mode: Option<i32>) -> u32 {
    let executable = mode.unwrap_or(0o644) & 0o111 != 0;
    if executable { 0o755 } else { 0o644 }
}

fn place(dir: &Path, volume: &str, path: &str, file: &VolumeFile) -> Result<(), ReferenceError> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || path.is_empty() {
        return Err(ReferenceError::Path { name: volume.to_owned(), path: path.to_owned() });
    }
    let failed = |error: std::io::Error| ReferenceError::Write {
        name: volume.to_owned(),
        cause: error.to_string(),
    };
    let target = dir.join(path);
    if let Some(parent) = target.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(file.mode);
    let mut opened = options.open(&target).map_err(failed)?;
    opened.write_all(&file.bytes).map_err(failed)?;
    opened.set_permissions(fs::Permissions::from_mode(file.mode)).map_err(failed)
}
