//! Which API a command speaks to.

use std::{env, path::PathBuf};

use anyhow::{Context as _, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{args::ClientArgs, data_dir};

/// A client.
pub(crate) async fn connect(args: &ClientArgs) -> anyhow::Result<Client> {
    client(config(args).await?)
}

/// A client that has been configured.
pub(crate) fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).context("cannot make a client of the kubeconfig")
}

/// What the kubeconfig says.
pub(crate) async fn config(args: &ClientArgs) -> anyhow::Result<Config> {
    let path = kubeconfig_path(args)?;
    let kubeconfig = Kubeconfig::read_from(&path)
        .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("cannot use the kubeconfig {}", path.display()))
}

/// The file to use: the flag, `$KUBECONFIG`, a hub on this host, then the user's own.
fn kubeconfig_path(args: &ClientArgs) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(first) = env::var_os("KUBECONFIG").and_then(|all| env::split_paths(&all).next()) {
        return Ok(first);
    }
    let hub = data_dir::default_path().map(|dir| dir.join(data_dir::ADMIN_KUBECONFIG));
    let own = env::home_dir().map(|home| home.join(".kube/config"));
    for candidate in hub.into_iter().chain(own) {
        if candidate.exists() {
            return Ok(candidate);
        }
    }
    bail!(
        "no kubeconfig found: start a hub on this host (muster hub), or name a file with \
         --kubeconfig or $KUBECONFIG"
    )
}
