//! `muster-agent status`: what the state directory says, whether or not the agent runs.

use std::io::{Write as _, stdout};

use anyhow::bail;
use muster_core::Intent;
use muster_link::Identity;

use crate::{args::RunArgs, state_dir};

/// Prints who the agent is and what it is assigned.
pub(crate) fn status(args: RunArgs) -> anyhow::Result<()> {
    let path = state_dir::resolve(args.state_dir.as_deref())?;
    let Some(identity) = Identity::load(&path)? else {
        bail!("no agent has joined with the state directory {}", path.display());
    };
    let mut out = stdout().lock();
    writeln!(out, "agent     {}", identity.name())?;
    writeln!(out, "state     {}", path.display())?;
    let Some(assignment) = state_dir::assignment(&path)? else {
        writeln!(out, "assigned  nothing yet")?;
        return Ok(());
    };
    writeln!(out, "revision  {}", assignment.revision)?;
    for (placement, order) in &assignment.orders {
        let intent = match order.intent {
            Intent::Present => "hold",
            Intent::Absent => "remove",
        };
        writeln!(out, "{intent:8}  {placement}  {}", order.digest.short())?;
    }
    Ok(())
}
