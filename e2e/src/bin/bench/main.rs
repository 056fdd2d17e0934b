//! What does Muster cost, and how fast is it? The real programs, measured from outside.
//!
//! `make bench` prints the median of several runs of each figure, beside the goal for later work.
//! No figure can fail: a slow machine prints larger ones. Everything is on loopback, and ends with
//! the bench, also when it is interrupted.

mod api;
mod audit;
mod figures;
mod fleet;
mod machine;
mod requests;
mod rest;
mod stores;
mod works;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use figures::Figures;

/// The parts of the bench, by the names that choose them.
const PARTS: [&str; 5] = ["requests", "rest", "fleet", "works", "stores"];

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = chosen.iter().find(|part| !PARTS.contains(&part.as_str())) {
        anyhow::bail!("there is no part {unknown:?}: choose of {}", PARTS.join(", "));
    }
    let mut terminated = signal(SignalKind::terminate())?;
    // An interrupted bench is dropped where it waits, and with it the programs it started.
    tokio::select! {
        done = measure(&chosen) => done.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        _ = terminated.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn measure(chosen: &[String]) -> anyhow::Result<()> {
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    let mut figures = Figures::default();
    println!("{}", machine::described()?);
    if wanted("rest") {
        rest::measure(&mut figures).await?;
    }
    if wanted("requests") {
        requests::measure(&mut figures).await?;
    }
    if wanted("works") {
        works::measure(&mut figures).await?;
    }
    if wanted("stores") {
        stores::measure(&mut figures).await?;
    }
    if wanted("fleet") {
        fleet::measure(&mut figures).await?;
    }
    println!("{figures}");
    Ok(())
}
