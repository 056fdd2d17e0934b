//! What the runner must be told: where its files are, how pipelines reach the API, how much at once.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

/// Serves the Kubernetes API on a listener that is bound inside a pod's network namespace, until
/// the token is cancelled. The hub's composition connects it to its API server.
pub type ServeApi = Arc<dyn Fn(std::net::TcpListener, CancellationToken) + Send + Sync>;

/// Where a pod finds the API inside its own network namespace.
pub(crate) const POD_API_PORT: u16 = 6443;

/// A pod is mostly waiting (an image, the API, a child), so two for each core keep the cores busy;
/// more only makes every one of them slower.
pub(crate) const PODS_PER_CORE: usize = 2;

/// How long a pod may run if its Job names no `activeDeadlineSeconds`: long enough for a slow
/// Terraform plan, short enough that a hanging script does not hold a slot for a day.
pub(crate) const POD_DEADLINE: Duration = Duration::from_secs(3600);

/// The first wait before a failed pod or container is tried again; it doubles each time, up to
/// [`RESTART_BACKOFF_MAX`] (the Job controller's and the kubelet's own figures).
pub(crate) const RESTART_BACKOFF: Duration = Duration::from_secs(10);

/// The longest wait before another try.
pub(crate) const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// How pods reach the API.
#[derive(Clone)]
pub struct ApiAccess {
    /// The address of the hub's API listener, reachable from this host.
    pub address: SocketAddr,
    /// The API within this process, for the hub's own containers. It knows nobody by itself: each
    /// request must carry a pod's token.
    pub door: kube::Client,
    /// The certificate authority of that listener, PEM.
    pub ca_pem: String,
}

/// The runner's settings. [`RunnerConfig::new`] fills in the defaults.
#[derive(Clone)]
pub struct RunnerConfig {
    /// The hub's data directory; the runner keeps to `pods/`, `logs/` and `runner/` in it.
    pub data_dir: PathBuf,
    /// The hub's executable: run again as the helper of the sandbox.
    pub own_exe: PathBuf,
    /// The API as seen from this host.
    pub api: ApiAccess,
    /// Serves the API inside a pod's network namespace.
    pub serve_api: ServeApi,
    /// Gives pods the network of the host instead of one of their own with nothing but the API.
    pub pipeline_network: bool,
    /// The reserved image name of the hub's own containers.
    pub adapter_image: String,
    /// How many pods run at once; the other Jobs wait, each in the order of its share.
    pub concurrent_pods: usize,
    /// The label by which Jobs share the places equally; Jobs without it do so by namespace.
    pub share_label: Option<String>,
    /// The first wait before another try; see [`RESTART_BACKOFF`].
    pub restart_backoff: Duration,
    /// The longest a pod may run without a deadline of its own.
    pub pod_deadline: Duration,
}

impl RunnerConfig {
    /// The settings for one hub, with every default filled in.
    pub fn new(data_dir: PathBuf, own_exe: PathBuf, api: ApiAccess, serve_api: ServeApi) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir,
            own_exe,
            api,
            serve_api,
            pipeline_network: false,
            adapter_image: adapter_image(),
            concurrent_pods: cores * PODS_PER_CORE,
            share_label: None,
            restart_backoff: RESTART_BACKOFF,
            pod_deadline: POD_DEADLINE,
        }
    }
}

/// The image name that stands for the hub's own executable. Never pulled, never a user's.
pub fn adapter_image() -> String {
    format!("muster.dev/hub:{}", env!("CARGO_PKG_VERSION"))
}

impl fmt::Debug for RunnerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerConfig")
            .field("data_dir", &self.data_dir)
            .field("own_exe", &self.own_exe)
            .field("api", &self.api.address)
            .field("pipeline_network", &self.pipeline_network)
            .field("concurrent_pods", &self.concurrent_pods)
            .finish_non_exhaustive()
    }
}
