//! Every flag of `muster`, with its default.

mod storage;

use std::{net::SocketAddr, path::PathBuf};

pub(crate) use storage::{KeyArgs, StorageArgs};

use clap::{Parser, Subcommand, ValueEnum};

/// Muster: offer services as Promises, run them anywhere, know how they are.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which API the commands speak to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    /// The kubeconfig file. Without it: $KUBECONFIG, then the admin.kubeconfig of a hub with the
    /// default data directory on this host, then ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the hub: the API, pipelines, placement, and the agents' door
    Hub(HubArgs),
    /// Create or change the objects of files, as kubectl apply --server-side does
    Apply(ApplyArgs),
    /// Show objects
    Get(GetArgs),
    /// Delete objects, and wait until they are gone
    Delete(DeleteArgs),
    /// Show what pipelines printed
    Logs(LogsArgs),
    /// Say where an object stands, why, and what to do
    Explain(ExplainArgs),
    /// Enrol agents, list them, remove them
    Agents(AgentsArgs),
    /// Make kubeconfigs for people
    Kubeconfig(KubeconfigArgs),
    /// Write a backup of the running hub into a file
    Backup(BackupArgs),
    /// Make a data directory from a backup
    Restore(RestoreArgs),
    /// Drain a destination; print what makes Flux or Argo CD read one that a state store feeds
    Destinations(DestinationsArgs),
    /// Move what is placed on one destination to another one
    Placements(PlacementsArgs),
    /// Try it: a hub and agents on this host, the samples, a live view, until Ctrl-C
    Quickstart(QuickstartArgs),
    /// What the hub's own containers in a pipeline run
    #[command(hide = true)]
    Pipeline(PipelineArgs),
}

/// `muster hub`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HubArgs {
    /// Where everything is kept [default: /var/lib/muster as root, else
    /// $XDG_STATE_HOME/muster or ~/.local/state/muster]
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the Kubernetes API listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDR:PORT")]
    pub(crate) api_listen: SocketAddr,
    /// Where agents dial in; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDR:PORT")]
    pub(crate) agents_listen: SocketAddr,
    /// The address that agents are told to dial, put into the certificate [default: the address
    /// that the agents' door listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) agents_advertise: Option<String>,
    /// What runs pipelines [default: podman or docker, where one is installed and works]
    #[arg(long, value_enum)]
    pub(crate) executor: Option<ExecutorArg>,
    /// Give pipelines the network of this host; without it they reach this hub's API and nothing
    /// else
    #[arg(long)]
    pub(crate) pipeline_network: bool,
    /// A label of the platform itself; may be repeated. Requests that pipelines put out for these
    /// labels are made by the hub, where no destination takes them [default: environment=platform]
    #[arg(long = "platform-label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) platform_labels: Vec<(String, String)>,
    /// Where it is logged who asked what of the API, as JSON lines; "off": nowhere [default:
    /// audit.log in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Log what the hub's own controllers ask, too: far more than all else
    #[arg(long)]
    pub(crate) audit_own: bool,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    /// Print one line of JSON with addresses and paths when ready
    #[arg(long)]
    pub(crate) print_json: bool,
}

/// What runs pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorArg {
    /// Containers, with podman
    Podman,
    /// Containers, with docker
    Docker,
    /// Sandboxed processes on this host; images are not used
    Process,
}

impl ExecutorArg {
    /// As `--executor` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// `muster apply`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ApplyArgs {
    /// A YAML or JSON file, a directory of them, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Take over fields that another manager owns
    #[arg(long)]
    pub(crate) force_conflicts: bool,
}

/// `muster get`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GetArgs {
    /// The kind: a plural, singular, short name or Kind, with or without its group
    pub(crate) kind: String,
    /// One object instead of all
    pub(crate) name: Option<String>,
    /// The namespace [default: the kubeconfig's, else default]
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// How to print
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<OutputArg>,
    /// Go on and show every change
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputArg {
    /// The table with all its columns
    Wide,
    /// YAML
    Yaml,
    /// JSON
    Json,
    /// KIND/NAME lines
    Name,
}

/// `muster delete`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The kind, unless files are given
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub(crate) kind: Option<String>,
    /// The names
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub(crate) names: Vec<String>,
    /// Delete the objects that these files name
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// The namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Do not wait until they are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Give up waiting after this long, such as 30s or 5m; what was asked for goes on
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

/// `muster logs`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogsArgs {
    /// A pod, or KIND/NAME: the newest pod of a Job, request or Promise
    pub(crate) target: String,
    /// One container instead of all
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on until the pod ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last lines
    #[arg(long)]
    pub(crate) tail: Option<i64>,
    /// The namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// `muster explain`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The kind
    pub(crate) kind: String,
    /// The name
    pub(crate) name: String,
    /// The namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// `muster agents`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentsArgs {
    #[command(subcommand)]
    pub(crate) command: AgentsCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Tokens that let one host enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// List the agents
    List,
    /// Remove an agent and its destination, after what it holds has been removed
    Remove(RemoveArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for one agent, and print the command that joins it
    Create(TokenArgs),
}

/// `muster agents token create`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TokenArgs {
    /// The name of the agent, and of its destination
    pub(crate) name: String,
    /// A label of the destination; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// An applier that the agent may run: nothing else runs there; may be repeated
    #[arg(long = "applier", value_enum, default_values = ["kubernetes"])]
    pub(crate) appliers: Vec<ApplierArg>,
    /// How long the token may be used, such as 30m or 24h
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub(crate) ttl: String,
}

/// What an agent can apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ApplierArg {
    /// Objects, into a cluster
    Kubernetes,
    /// Terraform or OpenTofu modules
    Terraform,
    /// Script documents, on the host
    Shell,
}

/// `muster agents remove`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The agent
    pub(crate) name: String,
    /// Do not wait for it: give up what it holds, and list what stays behind
    #[arg(long)]
    pub(crate) abandon: bool,
}

/// `muster kubeconfig`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KubeconfigArgs {
    #[command(subcommand)]
    pub(crate) command: KubeconfigCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KubeconfigCommand {
    /// Make a kubeconfig for a user, with a certificate that ends soon
    Create(CreateKubeconfigArgs),
}

/// `muster kubeconfig create`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CreateKubeconfigArgs {
    /// The user's name. What he may do is what roles are bound to him or his groups
    pub(crate) user: String,
    /// A group that the user is in; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// How long the certificate is good, such as 30m or 24h; at most 2160h (90 days). It cannot
    /// be called back before
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub(crate) expires: String,
    /// The address of the API that the kubeconfig names [default: the one asked now]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The file to write (mode 0600) [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `muster backup`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BackupArgs {
    /// The file to write, which must not exist; it holds the hub's keys and Secrets, so that its
    /// owner alone may read it
    pub(crate) file: PathBuf,
}

/// `muster restore`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    /// The data directory to make: a new or an empty one [default: as muster hub's]
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

/// `muster destinations`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DestinationsArgs {
    #[command(subcommand)]
    pub(crate) command: DestinationsCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DestinationsCommand {
    /// Print the documents to apply in the destination's cluster
    Gitops(GitopsArgs),
    /// Have requests' placements leave a destination, each when another destination holds it
    Drain(DrainArgs),
}

/// `muster destinations drain`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DrainArgs {
    /// The destination
    pub(crate) name: String,
    /// Do it; without this, what would happen is printed
    #[arg(long)]
    pub(crate) yes: bool,
    /// Let it take requests again; what has left does not come back
    #[arg(long, conflicts_with = "yes")]
    pub(crate) undo: bool,
}

/// `muster placements`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlacementsArgs {
    #[command(subcommand)]
    pub(crate) command: PlacementsCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PlacementsCommand {
    /// Move a placement; its old destination is cleared when the new one holds the files
    Move(MoveArgs),
}

/// `muster placements move`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MoveArgs {
    /// The WorkPlacement
    pub(crate) name: String,
    /// Its namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Do it; without this, what would happen is printed
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `muster destinations gitops`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GitopsArgs {
    /// The destination
    pub(crate) name: String,
    /// Who reads it
    #[arg(long = "for", value_enum, value_name = "READER")]
    pub(crate) reader: ReaderArg,
}

/// Who reads a state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReaderArg {
    /// Flux: a source and Kustomizations
    Flux,
    /// Argo CD: Applications
    Argocd,
}

/// `muster quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// The samples
    #[arg(long, default_value = "e2e/samples", value_name = "DIR")]
    pub(crate) samples: PathBuf,
    /// End when everything is running, instead of serving until Ctrl-C
    #[arg(long)]
    pub(crate) once: bool,
    /// What runs pipelines [default: process, which needs no image; containers where it cannot]
    #[arg(long, value_enum)]
    pub(crate) executor: Option<ExecutorArg>,
    /// The directory of an outer quickstart, whose inner process this is
    #[arg(long, hide = true)]
    pub(crate) inside: Option<PathBuf>,
}

/// `muster pipeline`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PipelineArgs {
    /// The adapter's arguments, as in a Job
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// A label as a flag takes it.
fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| "write it as KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_connect_unless_told_so() {
        let args = Args::parse_from(["muster", "hub"]);
        let Command::Hub(hub) = args.command else { panic!("it is the hub's command") };
        assert!(hub.api_listen.ip().is_loopback() && hub.agents_listen.ip().is_loopback());
        assert!(hub.platform_labels.is_empty(), "the default is the custom among Promises");
        assert!(hub.audit_log.is_none() && !hub.audit_own, "the log is kept where it always is");
    }

    #[test]
    fn labels_of_the_platform_are_written_as_kubectl_takes_them() {
        let parse = |text: &str| Args::try_parse_from(["muster", "hub", "--platform-label", text]);
        let Ok(Args { command: Command::Hub(hub), .. }) = parse("tier=hub") else {
            panic!("it is a label")
        };
        assert_eq!(hub.platform_labels, [("tier".to_owned(), "hub".to_owned())]);
        for wrong in ["tier", "=hub"] {
            let said = parse(wrong).map(drop).unwrap_err().to_string();
            assert!(said.contains("write it as KEY=VALUE"), "{said}");
        }
    }
}
