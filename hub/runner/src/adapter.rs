//! The hub's own containers in a pipeline's pod: what `/bin/pipeline-adapter` is in Kratix's Jobs.
//!
//! `reader` fetches the object and writes it for the pipeline; `work-creator` hands the pipeline's
//! output to the hub; `update-status` hands over what it says about status. All decisions are the
//! hub's: this side only reads files, carefully, and sends them with the pod's own token.

mod api;
mod collect;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use muster_core::{FileSet, content::FileError};

use api::Api;

/// The API's answer when there is nothing else to say about a failed call.
pub use api::CallError;

/// Host paths of the pod's mounts, JSON: set by the runner, whose adapter containers run in no root
/// of their own. Absent in a cluster, where paths are what they seem.
pub(crate) const MOUNTS_VARIABLE: &str = "MUSTER_MOUNTS";
/// The Job that this pod belongs to.
pub(crate) const JOB_VARIABLE: &str = "MUSTER_JOB";
/// Set by the runner: the adapter's stdin ends with the hub, and then so does the adapter.
pub(crate) const OWNER_VARIABLE: &str = "MUSTER_OWNER_ON_STDIN";
/// Where the results endpoint is, if not at the API's address (in a cluster: a Service of the hub).
const RESULTS_VARIABLE: &str = "MUSTER_RESULTS_URL";

const INPUT_FILE: &str = "/kratix/input/object.yaml";
const METADATA_DIR: &str = "/kratix/metadata";
/// The files that mean something to the hub; others are between the pipeline's own containers.
const METADATA_FILES: [&str; 3] =
    ["destination-selectors.yaml", "status.yaml", "workflow-control.yaml"];

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
    /// Write the live object to `/kratix/input/object.yaml`.
    Reader,
    /// Send the output below this directory (`input/`, `metadata/`) to the hub.
    WorkCreator {
        /// As the container sees it.
        input_directory: PathBuf,
    },
    /// Send `/kratix/metadata` to the hub.
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
        /// `read` or `write`.
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

/// Does what `args` say, with the environment of the container that this process is.
pub async fn run(args: AdapterArgs) -> Result<(), AdapterError> {
    if std::env::var_os(OWNER_VARIABLE).is_some() {
        end_with_owner();
    }
    let pod = PodView::from_environment()?;
    match args {
        AdapterArgs::Reader => read_object(&pod).await,
        AdapterArgs::WorkCreator { input_directory } => {
            let mut files = FileSet::new();
            collect::tree(&pod.path(&input_directory.join("input")), "output", &mut files)?;
            add_metadata(&pod, &input_directory.join("metadata"), &mut files)?;
            send(&pod, "output", &files).await
        }
        AdapterArgs::UpdateStatus => {
            let mut files = FileSet::new();
            add_metadata(&pod, Path::new(METADATA_DIR), &mut files)?;
            send(&pod, "status", &files).await
        }
    }
}

/// The pod's mounts and variables.
struct PodView {
    mounts: BTreeMap<PathBuf, PathBuf>,
}

impl PodView {
    fn from_environment() -> Result<Self, AdapterError> {
        let mounts = match std::env::var(MOUNTS_VARIABLE) {
            Err(_) => BTreeMap::new(),
            Ok(text) => serde_json::from_str(&text).map_err(|error| AdapterError::Variable {
                name: MOUNTS_VARIABLE,
                cause: format!("is not a map of paths: {error}"),
            })?,
        };
        Ok(Self { mounts })
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
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let account = self.path(Path::new("/var/run/secrets/kubernetes.io/serviceaccount"));
        Ok(Api::new(&format!("https://{host}:{port}"), &account)?)
    }
}

fn variable(name: &'static str) -> Result<String, AdapterError> {
    std::env::var(name)
        .map_err(|_| AdapterError::Variable { name, cause: "is not set by the Job".to_owned() })
}

async fn read_object(pod: &PodView) -> Result<(), AdapterError> {
    let group = variable("KRATIX_OBJECT_GROUP")?;
    let version = variable("KRATIX_OBJECT_VERSION")?;
    let plural = variable("KRATIX_CRD_PLURAL")?;
    let name = variable("KRATIX_OBJECT_NAME")?;
    let namespace = match variable("KRATIX_CLUSTER_SCOPED")?.as_str() {
        "true" => String::new(),
        _ => format!("namespaces/{}/", variable("KRATIX_OBJECT_NAMESPACE")?),
    };
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    let object = pod.api()?.get(&format!("{root}/{version}/{namespace}{plural}/{name}")).await?;
    let text = muster_core::yaml::to_yaml(&object);
    let failed = |source| AdapterError::File { action: "write", path: INPUT_FILE.into(), source };
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(pod.path(Path::new(INPUT_FILE)))
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

async fn send(pod: &PodView, part: &str, files: &FileSet) -> Result<(), AdapterError> {
    let job = variable(JOB_VARIABLE)?;
    let api = pod.api()?;
    let results = std::env::var(RESULTS_VARIABLE).ok();
    api.post_results(results.as_deref(), &job, part, files).await?;
    println!("handed {} files ({} bytes) to the hub", files.len(), files.size());
    Ok(())
}

/// The hub holds the other end of stdin: its end means that nobody waits for this work.
fn end_with_owner() {
    std::thread::spawn(|| {
        let mut nothing = [0; 1];
        while io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests;
