//! The servers that are measured, each started as a process of its own and killed when dropped.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_apiserver::{ApiServer, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

use crate::client::{Access, Ask};

/// The argument by which this program is the embedded API's process.
pub(crate) const SERVE: &str = "--serve";

/// A server that is not ready after so long never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// While starting it is asked so often, so that what is measured is known to that.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// A server that can be started, again and again, on a directory.
pub(crate) trait Server: Sized {
    const NAME: &'static str;

    /// Starts it; returns how long it took until it said that it is ready.
    async fn start(dir: &Path) -> Result<(Self, Duration)>;

    fn access(&self) -> &Access;

    /// Its processes.
    fn pids(&self) -> Vec<u32>;

    /// Resident memory of its processes together, in bytes.
    fn memory(&self) -> Result<u64> {
        self.pids().into_iter().map(resident).sum()
    }
}

fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("no VmRSS in /proc")?.parse::<u64>()? * 1024)
}

/// A process, killed when dropped.
struct Process(Child);

impl Process {
    /// Starts it, what it prints to a file in `dir`.
    fn start(command: &mut Command, dir: &Path, name: &str) -> Result<Process> {
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Process(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The embedded API with its controllers.
pub(crate) struct Embedded {
    process: Process,
    access: Access,
}

impl Server for Embedded {
    const NAME: &'static str = "embedded";

    async fn start(dir: &Path) -> Result<(Embedded, Duration)> {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start(command.arg(SERVE).arg(dir), dir, Embedded::NAME)?;
        let log = dir.join(format!("{}.log", Embedded::NAME));
        let access = eventually(|| {
            let said = fs::read_to_string(&log)?;
            let line = said.strip_suffix('\n').context("it has not said where it listens")?;
            of_kubeconfig(&dir.join("admin.kubeconfig"), line)
        })
        .await?;
        ready(&access).await?;
        Ok((Embedded { process, access }, begun.elapsed()))
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.0.id()]
    }
}

/// The embedded API's process: serves until it is killed, and prints where.
pub(crate) fn serve(dir: &Path) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let api = ApiServer::open(Config::new(dir)).await?;
        api.write_admin_kubeconfig(&dir.join("admin.kubeconfig"), address)?;
        println!("{address}");
        api.serve(listener, CancellationToken::new()).await;
        Ok(())
    })
}

/// A whole hub, of which the embedded API is a part.
pub(crate) struct Hub {
    process: Process,
    access: Access,
}

impl Hub {
    const PROGRAM: &'static str = "MUSTER_HUB";

    pub(crate) fn is_given() -> bool {
        std::env::var_os(Hub::PROGRAM).is_some()
    }
}

impl Server for Hub {
    const NAME: &'static str = "muster hub";

    async fn start(dir: &Path) -> Result<(Hub, Duration)> {
        let [api, agents] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        let data = dir.join("hub");
        let begun = Instant::now();
        let mut command = Command::new(program(Hub::PROGRAM)?);
        command.args(["hub", "--print-json", "--executor", "process", "--data-dir"]).arg(&data);
        command.args(["--api-listen", &api, "--agents-listen", &agents]);
        let process = Process::start(&mut command, dir, "hub")?;
        let log = dir.join("hub.log");
        let access = eventually(|| {
            let said = fs::read_to_string(&log)?;
            let line = said.lines().find(|line| line.starts_with("{\"")).context("not ready")?;
            let told: serde_json::Value = serde_json::from_str(line)?;
            of_kubeconfig(told["kubeconfig"].as_str().context("no kubeconfig")?.as_ref(), &api)
        })
        .await?;
        ready(&access).await?;
        Ok((Hub { process, access }, begun.elapsed()))
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.0.id()]
    }
}

/// A kube-apiserver and its etcd.
pub(crate) struct Real {
    apiserver: Process,
    etcd: Process,
    access: Access,
}

impl Real {
    const PROGRAMS: [&'static str; 2] = ["MUSTER_ETCD", "MUSTER_KUBE_APISERVER"];

    pub(crate) fn is_given() -> bool {
        Real::PROGRAMS.iter().all(|name| std::env::var_os(name).is_some())
    }
}

impl Server for Real {
    const NAME: &'static str = "kube-apiserver";

    /// Ready after its etcd is: that one's start does not count.
    async fn start(dir: &Path) -> Result<(Real, Duration)> {
        let [client_port, peer_port, api_port] = [free_port()?, free_port()?, free_port()?];
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let etcd = start_etcd(dir, &etcd_url, peer_port)?;
        let store = SocketAddr::from(([127, 0, 0, 1], client_port));
        eventually(|| Ok(std::net::TcpStream::connect(store)?)).await?;
        let keys = Keys::make(dir)?;
        let access = keys.access(SocketAddr::from(([127, 0, 0, 1], api_port)))?;
        let path = |name: &str| dir.join(name).display().to_string();
        let mut command = Command::new(program(Real::PROGRAMS[1])?);
        command.args([
            &format!("--etcd-servers={etcd_url}"),
            &format!("--secure-port={api_port}"),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            &format!("--tls-cert-file={}", path("serving.crt")),
            &format!("--tls-private-key-file={}", path("serving.key")),
            &format!("--client-ca-file={}", path("ca.crt")),
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", path("serving.pub")),
            &format!("--service-account-signing-key-file={}", path("serving.key")),
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        ]);
        let begun = Instant::now();
        let apiserver = Process::start(&mut command, dir, Real::NAME)?;
        let said = || fs::read_to_string(dir.join("kube-apiserver.log")).unwrap_or_default();
        ready(&access).await.with_context(said)?;
        Ok((Real { apiserver, etcd, access }, begun.elapsed()))
    }

    fn access(&self) -> &Access {
        &self.access
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.apiserver.0.id(), self.etcd.0.id()]
    }
}

fn start_etcd(dir: &Path, url: &str, peer_port: u16) -> Result<Process> {
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(program(Real::PROGRAMS[0])?);
    command.arg("--data-dir").arg(dir.join("etcd"));
    command.args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    command.arg(format!("--initial-cluster=default={peer_url}"));
    Process::start(&mut command, dir, "etcd")
}

/// A certificate authority with a serving and an administrator's certificate, in files.
struct Keys {
    ca: String,
    admin: (String, String),
}

impl Keys {
    /// Made once for a directory, so that a server that is started again knows its client.
    fn make(dir: &Path) -> Result<Keys> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "bench-ca");
        let ca = params.self_signed(&key)?.pem();
        let issuer = Issuer::from_ca_cert_pem(&ca, key)?;
        let mut serving = CertificateParams::new(Vec::new())?;
        serving.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let serving_key = KeyPair::generate()?;
        let mut admin = CertificateParams::new(Vec::new())?;
        admin.distinguished_name.push(DnType::CommonName, "bench");
        admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let admin_key = KeyPair::generate()?;
        fs::write(dir.join("ca.crt"), &ca)?;
        fs::write(dir.join("serving.crt"), serving.signed_by(&serving_key, &issuer)?.pem())?;
        fs::write(dir.join("serving.key"), serving_key.serialize_pem())?;
        fs::write(dir.join("serving.pub"), serving_key.public_key_pem())?;
        let admin = admin.signed_by(&admin_key, &issuer)?.pem();
        Ok(Keys { ca, admin: (admin, admin_key.serialize_pem()) })
    }

    fn access(&self, address: SocketAddr) -> Result<Access> {
        let (certificate, key) = &self.admin;
        Access::new(address, self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes())
    }
}

fn of_kubeconfig(path: &Path, address: &str) -> Result<Access> {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    let pem = |pointer: &str| -> Result<Vec<u8>> {
        let text = config.pointer(pointer).and_then(serde_json::Value::as_str);
        Ok(STANDARD.decode(text.with_context(|| format!("the kubeconfig has no {pointer}"))?)?)
    };
    Access::new(
        address.parse()?,
        &pem("/clusters/0/cluster/certificate-authority-data")?,
        &pem("/users/0/user/client-certificate-data")?,
        &pem("/users/0/user/client-key-data")?,
    )
}

async fn ready(access: &Access) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let ask = Ask::get("/readyz");
    loop {
        let asked = async { access.connect().await?.ask(&ask).await }.await;
        match asked {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context("not ready")),
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

async fn eventually<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

fn program(variable: &str) -> Result<PathBuf> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        bail!("{variable} is not set");
    };
    Ok(path)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
