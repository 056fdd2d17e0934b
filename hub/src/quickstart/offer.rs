//! Which samples can run on this host, and what is missing for the others?

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::fleet::AgentPlan;

/// One sample: its files, its agent, and what to try with it.
pub(super) struct Offer {
    /// The Promise.
    pub(super) promise: PathBuf,
    request: PathBuf,
    /// The kind of its requests, as `get` takes it.
    pub(super) kind: &'static str,
    /// Where its requests run.
    pub(super) agent: AgentPlan,
    /// Why it cannot run here, and what to install.
    pub(super) missing: Option<String>,
    /// Commands for the reader.
    pub(super) try_these: &'static [&'static str],
}

/// The port in the sample's request.
const SERVICE_PORT: u16 = 18080;

/// Every sample, in the order in which it is shown.
pub(super) fn all(samples: &Path) -> anyhow::Result<Vec<Offer>> {
    let file = |path: &str| {
        let path = samples.join(path);
        fs::canonicalize(&path).with_context(|| {
            format!(
                "there is no sample {}: run from the repository, or name --samples",
                path.display()
            )
        })
    };
    Ok(vec![
        Offer {
            promise: file("datadog-stack/promise.yaml")?,
            request: file("datadog-stack/request.yaml")?,
            kind: "datadogstacks.platform.srekubecraft.io",
            agent: AgentPlan { name: "cluster", platform: "kubernetes", applier: "kubernetes" },
            missing: None,
            try_these: &[
                "muster explain datadogstack monitoring",
                "muster get helmreleases -A -o yaml",
            ],
        },
        Offer {
            promise: file("vm-service/promise.yaml")?,
            request: file("vm-service/request.yaml")?,
            kind: "webservices.samples.muster.dev",
            agent: AgentPlan { name: "vm", platform: "vm", applier: "shell" },
            missing: lacks("vm-service", &["perl"], "apt-get install perl"),
            try_these: &[
                "muster get webservices -w            # then: pkill -f service.pl",
                "muster delete webservice hello",
            ],
        },
        Offer {
            promise: file("infrastructure/promise.yaml")?,
            request: file("infrastructure/request.yaml")?,
            kind: "networks.samples.muster.dev",
            agent: AgentPlan { name: "infra", platform: "terraform", applier: "terraform" },
            missing: lacks(
                "infrastructure",
                &["terraform", "tofu"],
                "install Terraform (developer.hashicorp.com/terraform/install) or OpenTofu \
                 (opentofu.org/docs/intro/install)",
            ),
            try_these: &["muster get network backbone -o yaml     # status.outputs"],
        },
    ])
}

impl Offer {
    /// The request's file; one on a free port where the sample's is taken.
    pub(super) fn request(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let text = fs::read_to_string(&self.request)?;
        let asked = format!("port: {SERVICE_PORT}");
        if !text.contains(&asked) || TcpListener::bind(("127.0.0.1", SERVICE_PORT)).is_ok() {
            return Ok(self.request.clone());
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        println!("port {SERVICE_PORT} is taken on this host: the web service gets {port}");
        let path = directory.join("request.yaml");
        fs::write(&path, text.replace(&asked, &format!("port: {port}")))?;
        Ok(path)
    }
}

fn lacks(sample: &str, one_of: &[&str], cure: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| one_of.iter().any(|p| dir.join(p).is_file()));
    let wanted = one_of.join(" or ");
    (!found).then(|| format!("sample {sample}: {wanted} is not installed here; {cure}"))
}
