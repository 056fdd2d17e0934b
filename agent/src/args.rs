//! Every flag of `muster-agent`, with its default.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Muster's agent: pulls what its destination must hold from the hub, applies it, reports health.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enrol with a hub, then run
    Join(JoinArgs),
    /// Run again after joining
    Run(RunArgs),
    /// Say who this agent is and what it is assigned
    Status(RunArgs),
}

/// `muster-agent join`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JoinArgs {
    /// The hub's agents' door
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) hub: String,
    /// The digest of the key of the hub's certificate authority: no other hub is spoken to
    #[arg(long, value_name = "sha256:DIGEST")]
    pub(crate) ca_pin: String,
    /// The file that holds the token, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// The appliers that the new policy file enables: kubernetes, terraform, shell. A policy file
    /// that exists already stays as it is
    #[arg(long, value_delimiter = ',', value_name = "APPLIER")]
    pub(crate) appliers: Vec<String>,
    /// The cluster of the kubernetes applier [default: $KUBECONFIG, ~/.kube/config, or the account
    /// of the pod]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `muster-agent run`, and what `join` and `status` share with it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Where the agent keeps everything [default: /var/lib/muster-agent as root, else
    /// $XDG_STATE_HOME/muster-agent or ~/.local/state/muster-agent]
    #[arg(long, env = "MUSTER_AGENT_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// What this host allows [default: policy.yaml in the state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}
