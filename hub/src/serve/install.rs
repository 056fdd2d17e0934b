//! Our kinds, put into the API at every start.

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};

/// The manager of the fields that the hub installs.
const MANAGER: &str = "muster-hub";

/// Installs every CRD, new or changed.
pub(crate) async fn kinds(client: &Client) -> anyhow::Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in muster_api::crds::all() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd))
            .await
            .with_context(|| format!("cannot install the CRD {name}"))?;
    }
    Ok(())
}
