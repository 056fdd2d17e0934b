//! `muster hub`: every part of the hub, built and joined.
//!
//! Phases: lock the data directory, bind both doors, open the API, install our kinds, build the
//! parts, announce, serve until asked to end.

mod announce;
mod bridges;
mod install;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::Client;
use muster_api::{SYSTEM_NAMESPACE, labels};
use muster_apiserver::{ApiServer, AuditConfig, Config, UserInfo};
use muster_control::{ClientFor, Control, ControlConfig, account_name, fleet::Fleet};
use muster_daemon::{Clock, HeldDir, OnError, Shutdown, Tasks, log};
use muster_gateway::{Gateway, GatewayConfig, PULSE, Ports};
use muster_plan::options::Options;
use muster_runner::{ApiAccess, Executor, ExecutorKind, Runner, RunnerConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ExecutorArg, HubArgs},
    data_dir::{self, ADMIN_KUBECONFIG},
};

/// How long parts may take to end: an operator's patience, and systemd's is 90 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The audit log within the data directory, and what stands for none.
const AUDIT_LOG: &str = "audit.log";
const AUDIT_OFF: &str = "off";

/// Runs the hub until SIGINT or SIGTERM.
pub(crate) async fn run(args: HubArgs) -> anyhow::Result<()> {
    log::init(log::LogFormat::Text, "warn,muster=info")?;
    raise_file_limit();
    let tasks = Tasks::new(CancellationToken::new());
    let _shutdown = Shutdown::on_signals(&tasks)?;
    let data = data_dir::open(args.data_dir.clone())?;
    let api_listener = bind("--api-listen", args.api_listen).await?;
    let api_address = api_listener.local_addr()?;
    let api = open_api(&data, &args, api_address).await?;
    let admin = client(&api, UserInfo::admin());
    install::everything(&admin).await?;

    let control = Control::build(ControlConfig {
        client_for: client_for(&api),
        stores_dir: data.path().join("stores"),
        clock: Clock::default(),
        options: options(&args),
    });
    bridges::rules(&api, &control);
    let gateway = open_door(&data, &args, control.fleet()).await?;
    install::door(&admin, &gateway).await?;
    api.hand_out_backups(data_dir::backup_plan(data.path()));
    let (runner, executor) = build_runner(&data, &args, (&api, api_address), &tasks).await?;
    api.set_pod_logs(Arc::new(bridges::Logs(runner.logs())));

    let (door, kubeconfig) = (gateway.address(), data.path().join(ADMIN_KUBECONFIG));
    api.write_admin_kubeconfig(&kubeconfig, api_address)?;
    let stop = || tasks.shutdown();
    let (serving, until) = (api.clone(), stop());
    tasks.spawn("api", OnError::Shutdown, async move {
        serving.serve(api_listener, until).await;
        Ok(())
    });
    let until = stop();
    tasks.spawn("control", OnError::Shutdown, async move {
        control.run(until).await;
        Ok(())
    });
    let until = stop();
    tasks.spawn("gateway", OnError::Shutdown, async move { Ok(gateway.run(until).await?) });
    let until = stop();
    tasks.spawn("runner", OnError::Shutdown, async move { Ok(runner.run(until).await?) });

    let ready = announce::Ready {
        api: api_address,
        agents: door,
        kubeconfig,
        data_dir: data.path(),
        executor,
    };
    announce::ready(&ready, args.print_json)?;
    let ended = tasks.join(DRAIN_LIMIT).await;
    api.close().await;
    Ok(ended?)
}

/// What holds where the platform's configuration says nothing.
fn options(args: &HubArgs) -> Options {
    let mut options = Options::default();
    if !args.platform_labels.is_empty() {
        options.platform = args.platform_labels.iter().cloned().collect();
    }
    options
}

async fn open_api(
    data: &HeldDir,
    args: &HubArgs,
    address: SocketAddr,
) -> anyhow::Result<ApiServer> {
    let mut config = Config::new(data.path().join(data_dir::API));
    let log = args.audit_log.clone().unwrap_or_else(|| data.path().join(AUDIT_LOG));
    config.audit = (log.as_os_str() != AUDIT_OFF)
        .then_some(AuditConfig { path: log, own_clients: args.audit_own });
    config.storage = args.storage.read()?;
    config.names.push(address.ip().to_string());
    Ok(ApiServer::open(config).await?)
}

async fn open_door(data: &HeldDir, args: &HubArgs, fleet: &Fleet) -> anyhow::Result<Gateway> {
    let config = GatewayConfig {
        data_dir: data.path().to_owned(),
        listen: args.agents_listen,
        advertise: args.agents_advertise.iter().cloned().collect(),
        pulse: PULSE,
    };
    let ports = Ports {
        assignments: fleet.assignments(),
        reports: fleet.reports(),
        enrolments: fleet.enrolments(),
        presence: fleet.presence(),
    };
    Ok(Gateway::build(config, ports).await?)
}

/// The runner, and what to say of its executor.
async fn build_runner(
    data: &HeldDir,
    args: &HubArgs,
    (api, address): (&ApiServer, SocketAddr),
    tasks: &Tasks,
) -> anyhow::Result<(Runner, String)> {
    let own_exe = std::env::current_exe().context("cannot find this program's own file")?;
    let door = Client::new(api.door(), "default");
    let access = ApiAccess { address, door, ca_pem: api.ca_pem().to_owned() };
    let serve = bridges::serve_in_pods(api.clone(), tasks.clone());
    let mut config = RunnerConfig::new(data.path().to_owned(), own_exe, access, serve);
    config.share_label = Some(labels::PROMISE_NAME.to_owned());
    config.pipeline_network = args.pipeline_network;
    let executor = match args.executor {
        Some(chosen) => Executor::probe(chosen.into(), &config).await?,
        // The hub is of use without pipelines; each of theirs is refused with this error's text.
        None => {
            let detected = Executor::detect(&config).await;
            detected.unwrap_or_else(|error| Executor::none(&error))
        }
    };
    let told = match executor.kind() {
        Some(ExecutorKind::Podman) => "podman",
        Some(ExecutorKind::Docker) => "docker",
        Some(ExecutorKind::Process) => "sandboxed processes on this host; images are not used",
        None => "none: install podman, or start the hub with --executor process",
    };
    let runner = client(api, controller("runner"));
    Ok((Runner::new(runner, executor, config), told.to_owned()))
}

/// As many open files as may be: each client's connection is one, and the usual limit of 1,024 is
/// for programs that cannot count further.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::info!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

/// A client within the process, as this user.
fn client(api: &ApiServer, user: UserInfo) -> Client {
    Client::new(api.service(user), "default")
}

/// A client for each controller, as a ServiceAccount of the system namespace.
fn client_for(api: &ApiServer) -> ClientFor {
    let api = api.clone();
    Arc::new(move |name| client(&api, controller(name)))
}

fn controller(name: &str) -> UserInfo {
    UserInfo::service_account(SYSTEM_NAMESPACE, &account_name(name))
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another with {flag}, or port 0 for a free one")
    })
}

impl From<ExecutorArg> for ExecutorKind {
    fn from(arg: ExecutorArg) -> Self {
        match arg {
            ExecutorArg::Podman => Self::Podman,
            ExecutorArg::Docker => Self::Docker,
            ExecutorArg::Process => Self::Process,
        }
    }
}
