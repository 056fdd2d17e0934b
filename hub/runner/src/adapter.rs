//! The hub's own containers in a pipeline's pod: what `/bin/pipeline-adapter` is in Kratix's Jobs.
//!
//! `reader` fetches the object, and the requests made for it, and writes them for the pipeline;
//! `work-creator` hands the pipeline's output to the hub; `update-status` hands over what it says
//! about status. All decisions are the hub's: this side only reads files, carefully, and sends them
//! with the pod's own token.

mod api;
mod collect;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use kube::Client;
use muster_core::{
    FileSet,
    content::{FileError, check_path},
};

use api::Api;

/// The API's answer when there is nothing else to say about a failed call.
pub use api::CallError;

/// The Job that this pod belongs to.
pub(crate) const JOB_VARIABLE: &str = "MUSTER_JOB";
/// Where the results endpoint is, if not at the API's address (in a cluster: a Service of the hub).
const RESULTS_VARIABLE: &str = "MUSTER_RESULTS_URL";

const INPUT_DIR: &str = "/kratix/input";
const INPUT_FILE: &str = "/kratix/input/object.yaml";
/// Where `update-status` finds what the pipeline says about status, as in Kratix.
const METADATA_DIR: &str = "/work-creator-files/metadata";
/// The files that mean something to the hub; others are between the pipeline's own containers.
const METADATA_FILES: [&str; 3] =
    ["destination-selectors.yaml", "status.yaml", "workflow-control.yaml"];

/// Beside the output: the top directories that are there and hold no file, which a set of files cannot
/// say.
const EMPTY_DIRECTORIES: &str = "empty-directories";

/// The flags of `work-creator`. Only the directory matters here: whose output it is, the hub knows
/// from the Job that the token is bound to.
const FLAGS: [&str; 7] = [
    "input-directory",
    "promise-name",
    "pipeline-name",
    "namespace",
    "workflow-type",
    "resource-name",
    "resource-namespace",
];

/// What the adapter is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterArgs {
    /// Write the live object to `/kratix/input/object.yaml`, its children below `children/`.
    Reader,
    /// Send the output below this directory (`input/`, `metadata/`) to the hub.
    WorkCreator {
        /// As the container sees it.
        input_directory: PathBuf,
    },
    /// Send what the pipeline wrote to `/kratix/metadata` to the hub.
    UpdateStatus,
}

/// Why a hub's container in a pipeline failed; printed to its log.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The arguments are not those of Kratix's adapter.
    #[error("{0}")]
    Usage(String),
    /// A variable that the Job must set is missing or malformed.
    #[error("environment variable {name} {cause}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write` or `make`.
        action: &'static str,
        /// As the container sees it.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The output holds something that cannot be delivered.
    #[error("{path}: {cause}")]
    Refused {
        /// Relative to the output or metadata directory.
        path: String,
        /// What it is, and what to do instead.
        cause: String,
    },
    /// The output is too much, or one of its paths is no path.
    #[error(transparent)]
    Output(#[from] FileError),
    /// The hub or its API refused, or could not be reached.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl AdapterArgs {
    /// Reads the arguments that follow `pipeline` (or `/bin/pipeline-adapter`).
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, AdapterError> {
        let usage = |text: String| AdapterError::Usage(text);
        let mut args = args.into_iter();
        let command = args.next().ok_or_else(|| {
            usage("name what to do: reader, work-creator or update-status".to_owned())
        })?;
        let mut flags = BTreeMap::new();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").unwrap_or_default();
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (name.to_owned(), args.next()),
            };
            if !FLAGS.contains(&name.as_str()) {
                return Err(usage(format!("{command} does not know the argument {arg}")));
            }
            let value = value.ok_or_else(|| usage(format!("{arg} needs a value")))?;
            flags.insert(name, value);
        }
        match command.as_str() {
            "reader" => Ok(Self::Reader),
            "update-status" => Ok(Self::UpdateStatus),
            "work-creator" => {
                let input_directory = flags
                    .remove("input-directory")
                    .ok_or_else(|| usage("work-creator needs --input-directory".to_owned()))?
                    .into();
                Ok(Self::WorkCreator { input_directory })
            }
            other => Err(usage(format!(
                "unknown command {other}: use reader, work-creator or update-status"
            ))),
        }
    }
}

/// Does what `args` say, with the environment of the container that this process is; what there is
/// to say of it.
pub async fn run(args: AdapterArgs) -> Result<Option<String>, AdapterError> {
    run_in(&PodView::of_this_process(), args).await
}

/// Does what `args` say for a pod. Reads files without yielding.
pub(crate) async fn run_in(
    pod: &PodView,
    args: AdapterArgs,
) -> Result<Option<String>, AdapterError> {
    match args {
        AdapterArgs::Reader => read_object(pod).await.map(|()| None),
        AdapterArgs::WorkCreator { input_directory } => {
            let output = &pod.path(&input_directory.join("input"));
            let mut files = FileSet::new();
            let empty = collect::tree(output, "output", &mut files)?;
            if !empty.is_empty() {
                files.insert(EMPTY_DIRECTORIES, empty.join("\n").into_bytes())?;
            }
            add_metadata(pod, &input_directory.join("metadata"), &mut files)?;
            send(pod, "output", &files).await.map(Some)
        }
        AdapterArgs::UpdateStatus => {
            let mut files = FileSet::new();
            add_metadata(pod, Path::new(METADATA_DIR), &mut files)?;
            send(pod, "status", &files).await.map(Some)
        }
    }
}

/// What a container of the pod sees.
pub(crate) struct PodView {
    /// Its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Host paths of its mounts, for a container that has no root of its own.
    pub(crate) mounts: BTreeMap<PathBuf, PathBuf>,
    /// The API, where it is in this process; else it is at the address that the environment names.
    pub(crate) door: Option<Client>,
}

impl PodView {
    fn of_this_process() -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let env = std::env::vars_os().filter_map(text).collect();
        Self { env, mounts: BTreeMap::new(), door: None }
    }

    /// The path of this host behind a path of the container: that of the innermost mount.
    fn path(&self, path: &Path) -> PathBuf {
        let innermost = self
            .mounts
            .iter()
            .filter_map(|(mount, host)| Some((mount, host, path.strip_prefix(mount).ok()?)))
            .max_by_key(|(mount, ..)| mount.components().count());
        match innermost {
            Some((_, host, rest)) if rest.as_os_str().is_empty() => host.clone(),
            Some((_, host, rest)) => host.join(rest),
            None => path.to_owned(),
        }
    }

    fn api(&self) -> Result<Api, AdapterError> {
        let account = self.path(Path::new(crate::pod::SERVICE_ACCOUNT_DIR));
        if let Some(door) = &self.door {
            return Ok(Api::through(door.clone(), &account)?);
        }
        let host = self.variable("KUBERNETES_SERVICE_HOST")?;
        let port = self.variable("KUBERNETES_SERVICE_PORT")?;
        let results = self.env.get(RESULTS_VARIABLE).map(String::as_str);
        Ok(Api::at(&format!("https://{host}:{port}"), results, &account)?)
    }

    fn variable(&self, name: &'static str) -> Result<&str, AdapterError> {
        let unset = || AdapterError::Variable { name, cause: "is not set by the Job".to_owned() };
        self.env.get(name).map(String::as_str).ok_or_else(unset)
    }
}

async fn read_object(pod: &PodView) -> Result<(), AdapterError> {
    let group = pod.variable("KRATIX_OBJECT_GROUP")?;
    let version = pod.variable("KRATIX_OBJECT_VERSION")?;
    let plural = pod.variable("KRATIX_CRD_PLURAL")?;
    let name = pod.variable("KRATIX_OBJECT_NAME")?;
    let namespace = match pod.variable("KRATIX_CLUSTER_SCOPED")? {
        "true" => String::new(),
        _ => format!("namespaces/{}/", pod.variable("KRATIX_OBJECT_NAMESPACE")?),
    };
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    let object = pod.api()?.get(&format!("{root}/{version}/{namespace}{plural}/{name}")).await?;
    write(pod, Path::new(INPUT_FILE), &muster_core::yaml::to_yaml(&object))?;
    let has_children = object.pointer("/status/children").is_some();
    if has_children { read_children(pod).await } else { Ok(()) }
}

/// Writes the requests that earlier pipelines put out, as they are now.
async fn read_children(pod: &PodView) -> Result<(), AdapterError> {
    let job = pod.variable(JOB_VARIABLE)?;
    for (name, text) in pod.api()?.get_children(job).await? {
        // The hub is trusted with what it says, and not with where it is written.
        check_path(&name)?;
        let path = Path::new(INPUT_DIR).join(&name);
        if let Some(dir) = path.parent() {
            let failed = |source| AdapterError::File { action: "make", path: dir.into(), source };
            fs::create_dir_all(pod.path(dir)).map_err(failed)?;
        }
        write(pod, &path, &text)?;
    }
    Ok(())
}

/// Writes a file for all to read, never through a link.
fn write(pod: &PodView, path: &Path, text: &str) -> Result<(), AdapterError> {
    let failed = |source| AdapterError::File { action: "write", path: path.into(), source };
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(pod.path(path))
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn add_metadata(pod: &PodView, dir: &Path, files: &mut FileSet) -> Result<(), AdapterError> {
    for name in METADATA_FILES {
        if let Some(bytes) = collect::file(&pod.path(dir), name)? {
            files.insert(&format!("metadata/{name}"), bytes)?;
        }
    }
    Ok(())
}

async fn send(pod: &PodView, part: &str, files: &FileSet) -> Result<String, AdapterError> {
    let job = pod.variable(JOB_VARIABLE)?;
    pod.api()?.post_results(job, part, files).await?;
    Ok(format!("handed {} files ({} bytes) to the hub", files.len(), files.size()))
}

#[cfg(test)]
mod tests;
