//! A real kube-apiserver with its etcd, on free ports of this host, shared by the tests of a process.
//!
//! `MUSTER_KUBE_APISERVER` and `MUSTER_ETCD` name the programs (tests/real/parts.sh gets them); in CI
//! their absence is an error.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};

const TOKEN: &str = "test-admin-token";

pub(crate) struct Cluster {
    pub(crate) kubeconfig: PathBuf,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// The cluster; `None` where its programs are not named.
    pub(crate) async fn get() -> Option<&'static Self> {
        static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
        let start = || CLUSTER.get_or_init(start).as_ref();
        let cluster = tokio::task::spawn_blocking(start).await.unwrap()?;
        cluster.ready().await;
        Some(cluster)
    }

    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap())
            .unwrap()
    }

    async fn ready(&self) {
        let client = self.client().await;
        for _ in 0..1200 {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("kube-apiserver did not become ready within a minute");
    }
}

fn start() -> Option<Cluster> {
    let program = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(apiserver), Some(etcd)) = (program("MUSTER_KUBE_APISERVER"), program("MUSTER_ETCD"))
    else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs a real API: set MUSTER_KUBE_APISERVER and MUSTER_ETCD"
        );
        eprintln!("skipped: MUSTER_KUBE_APISERVER and MUSTER_ETCD are not set");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let [client_port, peer_port, api_port] = [(); 3].map(|()| free_port());
    let key = dir.path().join("sa.key");
    let public_key = dir.path().join("sa.pub");
    let pair = rcgen::KeyPair::generate().unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    fs::write(&public_key, pair.public_key_pem()).unwrap();
    let tokens = dir.path().join("tokens.csv");
    fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (etcd_url, peer_url) =
        (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut store = Command::new(etcd);
    store.args(["--data-dir", &path("etcd"), "--listen-client-urls", &etcd_url]);
    store.args(["--advertise-client-urls", &etcd_url, "--listen-peer-urls", &peer_url]);
    store.args(["--initial-advertise-peer-urls", &peer_url, "--unsafe-no-fsync"]);
    store.args(["--initial-cluster", &format!("default={peer_url}")]);
    let mut api = Command::new(apiserver);
    api.args([
        &format!("--etcd-servers={etcd_url}"),
        &format!("--secure-port={api_port}"),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        &format!("--cert-dir={}", path("certs")),
        "--authorization-mode=RBAC",
        &format!("--token-auth-file={}", tokens.display()),
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-account-key-file={}", public_key.display()),
        &format!("--service-account-signing-key-file={}", key.display()),
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]);
    keep(store, dir.path());
    keep(api, dir.path());
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, kubeconfig_text(api_port)).unwrap();
    Some(Cluster { kubeconfig, _dir: dir })
}

/// Runs a program until this process ends: its parent is a thread that never does.
fn keep(mut command: Command, dir: &Path) {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    #[allow(unsafe_code, reason = "a child that must not outlive the test")]
    // SAFETY: one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            let kill = Some(rustix::process::Signal::KILL);
            Ok(rustix::process::set_parent_process_death_signal(kill)?)
        });
    }
    let (started, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let mut child = command.spawn().unwrap();
        started.send(()).unwrap();
        child.wait().unwrap();
        std::thread::park();
    });
    wait.recv().unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn kubeconfig_text(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: test, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    )
}
