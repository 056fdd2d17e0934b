//! `muster destinations`: what makes a GitOps agent read one, and how one is emptied.

use anyhow::{Context as _, anyhow};
use kube::{Api, Client};
use muster_api::{BucketStateStore, Destination, GitStateStore, destination::StateStoreKind};
use muster_core::yaml::to_yaml;
use muster_plan::gitops::{Reader, Source, setup};

use crate::{
    args::{ClientArgs, DestinationsArgs, DestinationsCommand, GitopsArgs, ReaderArg},
    client,
    commands::placements,
};

pub(crate) async fn run(args: DestinationsArgs, client: &ClientArgs) -> anyhow::Result<()> {
    let api = client::connect(client).await?;
    match args.command {
        DestinationsCommand::Gitops(args) => gitops(api, args).await,
        DestinationsCommand::Drain(args) => placements::drain(api, args).await,
    }
}

/// Prints the documents on standard output, and what else is needed on standard error.
async fn gitops(api: Client, args: GitopsArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let destination = Api::<Destination>::all(api.clone()).get_opt(name).await?;
    let destination = destination
        .with_context(|| format!("there is no destination {name}: muster get destinations"))?;
    let reference = destination.spec.state_store_ref.as_ref().with_context(|| {
        format!(
            "destination {name} has no state store (spec.stateStoreRef): its agent needs no Git"
        )
    })?;
    let missing = || format!("there is no {} {}", reference.kind.as_str(), reference.name);
    let reader = match args.reader {
        ReaderArg::Flux => Reader::Flux,
        ReaderArg::Argocd => Reader::ArgoCd,
    };
    let made = match reference.kind {
        StateStoreKind::GitStateStore => {
            let store = Api::<GitStateStore>::all(api).get_opt(&reference.name).await?;
            setup(reader, &destination, Source::Git(&store.with_context(missing)?))
        }
        StateStoreKind::BucketStateStore => {
            let store = Api::<BucketStateStore>::all(api).get_opt(&reference.name).await?;
            setup(reader, &destination, Source::Bucket(&store.with_context(missing)?))
        }
    };
    let made = made.map_err(|cause| anyhow!(cause))?;
    for note in made.notes {
        eprintln!("# {note}");
    }
    let documents: Vec<_> = made.documents.iter().map(to_yaml).collect();
    print!("{}", documents.join("---\n"));
    Ok(())
}
