//! The server that is attacked, in a process of its own, and someone else who uses it meanwhile.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use muster_apiserver::{
    ApiServer, CERTIFICATES_PATH, CertificateRequest, Config, IssuedCertificate, Patience,
};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::raw::{Door, get};

/// Asks this program to be the server.
pub(crate) const FLAG: &str = "--serve";

/// What is waited for may take so long on a slow machine; nothing here is about speed.
pub(crate) const LONG: Duration = Duration::from_secs(240);

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The child: serves until it is killed.
pub(crate) fn serve(dir: &Path) {
    raise_file_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let seconds = Duration::from_secs;
        // As the default, only shorter: a test should not wait for minutes.
        let patience = Patience {
            handshake: seconds(5),
            head: seconds(3),
            stranger: seconds(4),
            idle: seconds(6),
            take: seconds(5),
            write: seconds(5),
            look: Duration::from_millis(500),
            ..Patience::default()
        };
        let api = ApiServer::open(Config { patience, ..Config::new(dir) }).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = dir.join("admin.kubeconfig");
        api.write_admin_kubeconfig(&kubeconfig, listener.local_addr().unwrap()).unwrap();
        std::fs::write(dir.join("ready"), "").unwrap();
        api.serve(listener, CancellationToken::new()).await;
    });
}

/// Each connection is a file on both sides.
pub(crate) fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

pub(crate) struct Victim {
    child: Child,
    /// As its administrator, and as the attacker: someone who may do everything but without limit.
    pub(crate) admin: Door,
    pub(crate) eve: Door,
    bystander: tokio::task::JoinHandle<Duration>,
    served: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    _dir: tempfile::TempDir,
}

impl Victim {
    pub(crate) async fn start() -> Victim {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([FLAG, dir.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let ready = dir.path().join("ready");
        until("the server is ready", || ready.exists()).await;
        let admin = std::fs::read_to_string(dir.path().join("admin.kubeconfig")).unwrap();
        let admin = Door::of(&admin);
        let binding = json!({
            "metadata": {"name": "all"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "User", "name": "eve"}],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        assert_eq!(admin.post(bindings, binding.to_string()).await.0, 201);
        let eve = certified(&admin, "eve").await;
        let (served, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let bystander = tokio::spawn(use_it(admin.clone(), served.clone(), over.clone()));
        Victim { child, admin, eve, bystander, served, over, _dir: dir }
    }

    /// Waits until the other client has been served some more times.
    pub(crate) async fn others_are_served(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let more = || self.served.load(Ordering::Relaxed) >= before + 3;
        until("another client is served", || more() || self.bystander.is_finished()).await;
        assert!(!self.bystander.is_finished(), "another client was refused");
    }

    /// Files that the server has open: each connection is one.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Ends it: the most memory that it has had, in MiB, and the longest wait of the other client.
    pub(crate) async fn end(mut self) -> (u64, Duration) {
        self.others_are_served().await;
        self.over.store(true, Ordering::Relaxed);
        let waited = (&mut self.bystander).await.expect("another client was refused");
        assert!(self.child.try_wait().unwrap().is_none(), "the server has ended");
        let mib = peak_mib(self.child.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (mib, waited)
    }

    pub(crate) async fn define_widgets(&self, spec: Value) -> (u16, String) {
        let definition = json!({
            "metadata": {"name": "widgets.lab.example.com"},
            "spec": {
                "group": "lab.example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "properties": {"spec": spec},
                    }},
                }],
            },
        });
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.eve.post(path, definition.to_string()).await
    }
}

impl Drop for Victim {
    /// Also when an attack has succeeded.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Someone else: reads and writes, on a connection that is kept and on a new one each time. The
/// answer is the longest that he has waited.
async fn use_it(door: Door, served: Arc<AtomicU64>, over: Arc<AtomicBool>) -> Duration {
    let mut kept = door.http1().await;
    let mut longest = Duration::ZERO;
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if kept.ready().await.is_err() {
            // A connection that is not used for a while is closed; any client makes another.
            kept = door.http1().await;
        }
        let answer = kept.send_request(get(MAPS)).await.unwrap();
        let code = answer.status().as_u16();
        let body = crate::raw::text(answer).await;
        assert_eq!(code, 200, "{body}");
        count += 1;
        let map = json!({"metadata": {"name": format!("bystander-{count}")}});
        let (code, body) = door.post(MAPS, map.to_string()).await;
        assert_eq!(code, 201, "{body}");
        served.fetch_add(1, Ordering::Relaxed);
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    longest
}

async fn certified(by: &Door, user: &str) -> Door {
    let key = KeyPair::generate().unwrap();
    let request = CertificateRequest {
        user: user.to_owned(),
        groups: Vec::new(),
        signing_request: CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap(),
        expiration_seconds: None,
    };
    let (code, body) = by.post(CERTIFICATES_PATH, serde_json::to_vec(&request).unwrap()).await;
    assert_eq!(code, 201, "{body}");
    let issued: IssuedCertificate = serde_json::from_str(&body).unwrap();
    Door { identity: Some((issued.certificate, key.serialize_pem())), ..by.clone() }
}

fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
