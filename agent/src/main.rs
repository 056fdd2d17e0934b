//! `muster-agent`: what runs on every host and in every cluster.

mod args;
mod content;
mod eventloop;
mod join;
mod run;
mod state_dir;
mod status;

use std::process::ExitCode;

use clap::Parser as _;
use muster_daemon::exit;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let Args { command } = Args::parse();
    // Mostly waiting: two threads, so that one slow blocking call never stops the pulse.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(act(command)),
        Err(error) => Err(anyhow::anyhow!(error).context("cannot start threads")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report("muster-agent", &error, exit::FAILED),
    }
}

async fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Join(args) => join::join(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Status(args) => status::status(args),
    }
}
