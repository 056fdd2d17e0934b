//! `muster`: the hub, and the command line for its API.

mod args;
mod client;
mod commands;
mod data_dir;
mod quickstart;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};

/// A thousand requests at once take a fifth less time than with glibc's, whose work for each grows
/// with what is held already.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before any thread exists: a sandboxed pipeline is this executable, entered anew.
    if let Some(code) = muster_runner::sandbox_entry() {
        return code;
    }
    let args = Args::parse();
    // Before any thread exists: it starts its own, in two processes.
    if let Command::Quickstart(args) = &args.command {
        return quickstart::run(args).unwrap_or_else(|error| fail(&error));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::anyhow!(error).context("cannot start threads")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { client, command } = args;
    match command {
        Command::Hub(args) => serve::run(args).await,
        Command::Pipeline(args) => commands::pipeline::run(args).await,
        Command::Apply(args) => commands::apply::run(&args, &client).await,
        Command::Get(args) => commands::get::run(&args, &client).await,
        Command::Delete(args) => commands::delete::run(&args, &client).await,
        Command::Logs(args) => commands::logs::run(&args, &client).await,
        Command::Explain(args) => commands::explain::run(&args, &client).await,
        Command::Kubeconfig(args) => commands::kubeconfig::run(args, &client).await,
        Command::Quickstart(_) => Ok(()),
        Command::Agents(args) => commands::agents::run(args, &client).await,
        Command::Backup(args) => commands::backup::run(&args, &client).await,
        Command::Restore(args) => commands::restore::run(args).await,
        Command::Destinations(args) => commands::destinations::run(args, &client).await,
        Command::Placements(args) => commands::placements::run(args, &client).await,
    }
}

/// The chain of causes on one line, as every command of ours ends when it fails.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
