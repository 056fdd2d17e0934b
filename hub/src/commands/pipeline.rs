//! `muster pipeline`: what the hub's own containers in a pipeline run.

use muster_runner::adapter::{self, AdapterArgs};

use crate::args::PipelineArgs;

/// Runs the adapter with the environment of its container.
pub(crate) async fn run(args: PipelineArgs) -> anyhow::Result<()> {
    Ok(adapter::run(AdapterArgs::parse(args.args)?).await?)
}
