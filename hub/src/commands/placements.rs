//! `muster placements move`, `muster destinations drain`: tells what would happen, and asks for it
//! by an annotation, as anybody can with kubectl. The hub does the rest.

use anyhow::{Context as _, bail};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use muster_api::{Destination, Work, WorkPlacement, labels};
use muster_plan::relocation::{Fleet, of_destination, of_placement};
use serde_json::json;

use crate::{
    args::{ClientArgs, DrainArgs, MoveArgs, PlacementsArgs, PlacementsCommand},
    client,
};

pub(crate) async fn run(args: PlacementsArgs, client: &ClientArgs) -> anyhow::Result<()> {
    let api = client::connect(client).await?;
    match args.command {
        PlacementsCommand::Move(args) => relocate(api, args).await,
    }
}

/// Moves one placement, or tells what would happen.
async fn relocate(api: Client, args: MoveArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let namespace = args.namespace.unwrap_or_else(|| api.default_namespace().to_owned());
    let seen = Seen::of(&api).await?;
    let placement = seen.placements.iter().find(|placement| {
        placement.metadata.name.as_ref() == Some(name)
            && placement.metadata.namespace.as_ref() == Some(&namespace)
    });
    let placement = placement.with_context(|| {
        format!("there is no WorkPlacement {namespace}/{name}: muster get workplacements -A")
    })?;
    let preview = of_placement(seen.fleet(), placement);
    for line in &preview.lines {
        println!("{line}");
    }
    if !preview.possible {
        bail!("WorkPlacement {namespace}/{name} is left where it is");
    }
    if !args.yes {
        println!("To do it: muster placements move {name} -n {namespace} --yes");
        return Ok(());
    }
    let all: Api<WorkPlacement> = Api::namespaced(api, &namespace);
    let asked = json!({"metadata": {"annotations": {labels::MOVE: "true"}}});
    all.patch(name, &PatchParams::default(), &Patch::Merge(asked)).await?;
    println!("asked; to call it back before it is done, take the annotation {} off", labels::MOVE);
    Ok(())
}

/// Drains a destination, tells what would happen, or ends a drain.
pub(crate) async fn drain(api: Client, args: DrainArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let seen = Seen::of(&api).await?;
    if !seen.destinations.iter().any(|found| found.metadata.name.as_ref() == Some(name)) {
        bail!("there is no destination {name}: muster get destinations");
    }
    if !args.undo {
        for line in of_destination(seen.fleet(), name).lines {
            println!("{line}");
        }
        if !args.yes {
            println!("To do it: muster destinations drain {name} --yes");
            return Ok(());
        }
    }
    let all: Api<Destination> = Api::all(api);
    let value = (!args.undo).then_some("true");
    let asked = json!({"metadata": {"annotations": {labels::DRAIN: value}}});
    all.patch(name, &PatchParams::default(), &Patch::Merge(asked)).await?;
    match args.undo {
        true => println!("destination {name} takes requests again"),
        false => println!("asked; to end it: muster destinations drain {name} --undo"),
    }
    Ok(())
}

/// What a move depends on, as it is now.
struct Seen {
    works: Vec<Work>,
    placements: Vec<WorkPlacement>,
    destinations: Vec<Destination>,
}

impl Seen {
    async fn of(api: &Client) -> anyhow::Result<Self> {
        let all = ListParams::default();
        Ok(Self {
            works: Api::all(api.clone()).list(&all).await?.items,
            placements: Api::all(api.clone()).list(&all).await?.items,
            destinations: Api::all(api.clone()).list(&all).await?.items,
        })
    }

    fn fleet(&self) -> Fleet<'_> {
        let Self { works, placements, destinations } = self;
        Fleet { works, placements, destinations }
    }
}
