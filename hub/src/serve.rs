//! `muster hub`: every part of the hub, built and joined.
//!
//! Phases: lock the data directory, bind both doors, open the API, install our kinds, build the
//! parts, announce, serve until asked to end.

mod announce;
mod install;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use kube::Client;
use muster_apiserver::{ApiServer, Config, UserInfo};
use muster_daemon::{OnError, Shutdown, Tasks, log};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    args::HubArgs,
    data_dir::{ADMIN_KUBECONFIG, DataDir},
};

/// How long parts may take to end: an operator's patience, and systemd's is 90 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs the hub until SIGINT or SIGTERM.
pub(crate) async fn run(args: HubArgs) -> anyhow::Result<()> {
    log::init(log::LogFormat::Text, "warn,muster=info")?;
    let tasks = Tasks::new(CancellationToken::new());
    let _shutdown = Shutdown::on_signals(&tasks)?;
    let data = DataDir::open(args.data_dir.clone())?;
    let api_listener = bind("--api-listen", args.api_listen).await?;
    let api_address = api_listener.local_addr()?;

    let mut config = Config::new(data.path().join("api"));
    config.names.push(api_address.ip().to_string());
    let api = ApiServer::open(config).await?;
    let kubeconfig = data.path().join(ADMIN_KUBECONFIG);
    api.write_admin_kubeconfig(&kubeconfig, api_address)?;
    install::kinds(&client(&api, UserInfo::admin())).await?;

    let serving = api.clone();
    let stop = tasks.shutdown();
    tasks.spawn("api", OnError::Shutdown, async move {
        serving.serve(api_listener, stop).await;
        Ok(())
    });
    announce::ready(
        &announce::Ready { api: api_address, kubeconfig, data_dir: data.path() },
        &args,
    )?;
    tasks.join(DRAIN_LIMIT).await?;
    Ok(())
}

/// A client within the process, as this user.
fn client(api: &ApiServer, user: UserInfo) -> Client {
    Client::new(api.service(user), "default")
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another with {flag}, or port 0 for a free one")
    })
}
