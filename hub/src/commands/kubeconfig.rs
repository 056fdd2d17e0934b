//! `muster kubeconfig create`: a kubeconfig for a person, with a certificate that ends soon.
//!
//! The key is made here and stays here; the hub signs a certificate for it if whoever asks might
//! as well impersonate that user and those groups.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use http::Request;
use jiff::SignedDuration;
use kube::Client;
use muster_apiserver::{CERTIFICATES_PATH, CertificateRequest, IssuedCertificate, Kubeconfig};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    args::{ClientArgs, CreateKubeconfigArgs, KubeconfigArgs, KubeconfigCommand},
    client,
};

const NOT_FOUND: u16 = 404;

pub(crate) async fn run(args: KubeconfigArgs, client: &ClientArgs) -> anyhow::Result<()> {
    match args.command {
        KubeconfigCommand::Create(args) => create(args, client).await,
    }
}

async fn create(args: CreateKubeconfigArgs, client: &ClientArgs) -> anyhow::Result<()> {
    let CreateKubeconfigArgs { user, groups, expires, server, output } = args;
    let life: SignedDuration =
        expires.parse().with_context(|| format!("--expires {expires:?} is not a duration"))?;
    let config = client::config(client).await?;
    let asked = config.cluster_url.to_string();
    let server = server.unwrap_or_else(|| asked.trim_end_matches('/').to_owned());
    let key = KeyPair::generate().context("cannot make a key")?;
    let request = CertificateRequest {
        user: user.clone(),
        groups,
        signing_request: signing_request(&key)?,
        expiration_seconds: Some(life.as_secs()),
    };
    let issued = issue(&client::client(config)?, &request).await?;
    let kubeconfig = Kubeconfig {
        server: &server,
        authority: &issued.authority,
        user: &user,
        certificate: &issued.certificate,
        key: &key.serialize_pem(),
    };
    match output {
        Some(path) => {
            write_private(&path, &kubeconfig.render())
                .with_context(|| format!("cannot write {}", path.display()))?;
            let until = issued.expiration_timestamp;
            eprintln!("{}: user {user} until {until}", path.display());
        }
        None => std::io::stdout().write_all(kubeconfig.render().as_bytes())?,
    }
    Ok(())
}

/// Proves that we have the key; whom it is for is said beside it.
fn signing_request(key: &KeyPair) -> anyhow::Result<String> {
    let request = CertificateParams::default().serialize_request(key)?;
    Ok(request.pem()?)
}

async fn issue(client: &Client, request: &CertificateRequest) -> anyhow::Result<IssuedCertificate> {
    let request = Request::post(CERTIFICATES_PATH).body(serde_json::to_vec(request)?)?;
    match client.request(request).await {
        Ok(issued) => Ok(issued),
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => bail!(
            "this API signs no certificates: it is a cluster's own, whose administrators make \
             kubeconfigs in their own way"
        ),
        Err(error) => Err(error).context("the hub did not sign the certificate"),
    }
}

/// Writes a file that only its owner may read: whole, or not at all.
fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
