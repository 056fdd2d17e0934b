//! `muster quickstart`: a hub and agents on this host, the samples, and a live view of what becomes
//! of them. Everything that is shown comes from the API.
//!
//! Nothing outlives it. The command is two processes: an outer one that only waits
//! ([`keeper`]), and an inner one that does the work; each is a subreaper, so whichever is left ends
//! what the other had started, down to services that left their session.

mod fleet;
mod keeper;
mod offer;
mod view;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
};

use self::{
    fleet::Fleet,
    offer::Offer,
    view::{Subject, View},
};
use crate::{
    args::{ApplyArgs, ClientArgs, QuickstartArgs},
    commands::{apply, get},
};

/// How long the samples may take; pipelines of seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the quickstart; returns when everything that it started has ended.
pub(crate) fn run(args: &QuickstartArgs) -> anyhow::Result<ExitCode> {
    match &args.inside {
        None => keeper::run(args),
        Some(directory) => {
            keeper::adopt_orphans()?;
            let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
            let result = runtime.block_on(until_asked_to_end(args, directory));
            // Not dropped: its thread that reads stdin would be waited for.
            runtime.shutdown_background();
            keeper::end_descendants();
            result
        }
    }
}

/// The story, unless Ctrl-C, SIGTERM or the end of the keeper cuts it short.
async fn until_asked_to_end(args: &QuickstartArgs, directory: &Path) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut fleet = Fleet::new(directory);
    let mut nothing = [0];
    let mut keeper = tokio::io::stdin();
    let ended = tokio::select! {
        ended = story(args, &mut fleet) => ended.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        // The keeper holds the other end and never writes.
        _ = keeper.read(&mut nothing) => Ok(ExitCode::FAILURE),
    };
    eprintln!("ending what was started …");
    fleet.end().await;
    ended
}

async fn story(args: &QuickstartArgs, fleet: &mut Fleet) -> anyhow::Result<()> {
    let offers = offer::all(&args.samples)?;
    for missing in offers.iter().filter_map(|offer| offer.missing.as_ref()) {
        println!("left out: {missing}");
    }
    let offers: Vec<_> = offers.into_iter().filter(|offer| offer.missing.is_none()).collect();
    if offers.is_empty() {
        bail!("no sample can run on this host");
    }
    fleet.start_hub(args.executor).await?;
    let client = fleet.client();
    println!("the hub is ready; its data and logs are in {}", fleet.directory().display());
    let mut view = View::new(&client).await?;
    for offer in &offers {
        fleet.join_agent(&offer.agent).await?;
        view.add(Subject::agent(offer.agent.name));
    }
    view.watch_until_done(PATIENCE).await?;
    apply_files(&client, offers.iter().map(|offer| offer.promise.clone()).collect()).await?;
    for offer in &offers {
        view.add(Subject::of_file(&offer.promise)?);
    }
    view.watch_until_done(PATIENCE).await?;
    let requests = offers.iter().map(|offer| offer.request(fleet.directory()));
    let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
    apply_files(&client, requests.clone()).await?;
    for request in &requests {
        view.add(Subject::of_file(request)?);
    }
    let done = view.watch_until_done(PATIENCE).await;
    drop(view);
    summary(&client, &offers).await?;
    done?;
    if args.once {
        return Ok(());
    }
    println!("\nServing until Ctrl-C.");
    fleet.until_hub_ends().await
}

async fn apply_files(client: &ClientArgs, filename: Vec<PathBuf>) -> anyhow::Result<()> {
    let args = ApplyArgs { filename, namespace: None, force_conflicts: false };
    apply::run(&args, client).await
}

/// What runs now, in the server's own tables, and what to try.
async fn summary(client: &ClientArgs, offers: &[Offer]) -> anyhow::Result<()> {
    println!("\nNow running:\n");
    for kind in ["agents.fleet.muster.dev", "promises.platform.kratix.io"] {
        get::table(client, kind, "").await?;
        println!();
    }
    for offer in offers {
        get::table(client, offer.kind, "").await?;
        println!();
    }
    let program = std::env::current_exe()?;
    let kubeconfig = client.kubeconfig.as_deref().unwrap_or(Path::new("")).display();
    println!("Try, in another terminal:\n\n  export KUBECONFIG={kubeconfig}");
    println!("  alias muster={}", program.display());
    for offer in offers {
        for command in offer.try_these {
            println!("  {command}");
        }
    }
    Ok(())
}
