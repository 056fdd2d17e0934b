//! `muster pipeline`: what the hub's own containers in a pipeline run.

use muster_runner::adapter::{self, AdapterArgs};

use crate::args::PipelineArgs;

/// Runs the adapter with the environment of its container: in a cluster, where Kubernetes runs it.
pub(crate) async fn run(args: PipelineArgs) -> anyhow::Result<()> {
    if let Some(said) = adapter::run(AdapterArgs::parse(args.args)?).await? {
        println!("{said}");
    }
    Ok(())
}
