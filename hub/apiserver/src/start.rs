//! Start: what a server needs before it can answer, and what it hands out afterwards.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Audit, AuditConfig, AuditError},
    controllers,
    pki::{self, Pki, PkiError},
    rbac, schema,
    serve::Patience,
    server::Inner,
    service,
    status::Status,
    storage::Storage,
    store::{DiskError, Key, Sealing, Settings, Store},
    tokens::{Ask, BoundTo, Named, TokenError, Tokens},
    user::MASTERS,
    verbs::{self, Part},
};

/// The database, within the data directory.
pub(crate) const DATABASE: &str = "api.redb";

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its state is; made with mode 0700 if it is missing.
    pub data_dir: PathBuf,
    /// Names and addresses, besides the loopback ones, under which clients reach it.
    pub names: Vec<String>,
    /// Where it is logged who did what; `None`: nowhere.
    pub audit: Option<AuditConfig>,
    /// How long clients on sockets are waited for.
    pub patience: Patience,
    /// How much is kept, and how.
    pub storage: Storage,
}

impl Config {
    /// A server in that directory, reached by loopback alone.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            names: Vec::new(),
            storage: Storage::default(),
            audit: None,
            patience: Patience::default(),
        }
    }
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the API server's data in {dir}: {cause}")]
pub struct OpenError {
    dir: PathBuf,
    cause: OpenCause,
}

#[derive(Debug, thiserror::Error)]
enum OpenCause {
    #[error("cannot make the directory: {0}")]
    Directory(#[from] io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("cannot make {what}: {status}")]
    Default { what: String, status: Box<Status> },
}

/// The kubeconfig cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the kubeconfig {path}: {cause}")]
pub struct KubeconfigError {
    path: PathBuf,
    cause: PkiError,
}

/// The token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenRequestError {
    #[error("{what} {name:?} does not exist in namespace {namespace:?}")]
    Missing { what: &'static str, namespace: String, name: String },
    #[error("cannot sign the token: {0}")]
    Sign(String),
}

/// Ends the server's controllers when dropped.
pub(crate) struct Running(CancellationToken);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(crate) async fn open(config: Config) -> Result<(Arc<Inner>, Running), OpenError> {
    let dir = config.data_dir.clone();
    open_in(config).await.map_err(|cause| OpenError { dir, cause })
}

async fn open_in(config: Config) -> Result<(Arc<Inner>, Running), OpenCause> {
    let Config { data_dir, names, storage, audit, patience } = config;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data_dir)?;
    // Read while keys are made, which waits for entropy; the registry needs them right after. It
    // waits itself if they are not read yet.
    drop(tokio::task::spawn_blocking(schema::builtin::read));
    let pki = Pki::open(&data_dir.join("pki"), &names)?;
    let tokens = Tokens::open(&data_dir.join("pki").join("service-accounts.key"))?;
    let sealing = Sealing::new(storage.keys.clone(), storage.decrypt);
    let settings = Settings { quota_bytes: storage.quota_bytes, sealing };
    let store = Store::open(&data_dir.join(DATABASE), settings)?;
    let audit = audit.map(|audit| Audit::open(&audit)).transpose()?;
    let server = Arc::new(Inner::new(store, pki, tokens, audit, patience));
    let running = Running(server.shutdown.clone());
    make_defaults(&server).await?;
    controllers::start(&server, &storage);
    Ok((server, running))
}

/// Makes what every server has and this one lacks.
async fn make_defaults(server: &Arc<Inner>) -> Result<(), OpenCause> {
    let namespace = |name| {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        });
        ("", "namespaces", object)
    };
    let roles = rbac::defaults::objects().into_iter();
    let all = NAMESPACES
        .into_iter()
        .map(namespace)
        .chain(roles.map(|(plural, object)| (rbac::GROUP, plural, object)));
    // All at once: they share the disk's flushes.
    let made = all.map(|(group, plural, object)| async move {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        make(server, group, plural, object).await.map_err(|status| OpenCause::Default {
            what: format!("{plural} {name:?}"),
            status: Box::new(status),
        })
    });
    futures::future::try_join_all(made).await?;
    let own = make(server, "", "services", own_service()).await;
    own.map_err(|status| OpenCause::Default {
        what: "the service of the API itself".to_owned(),
        status: Box::new(status),
    })?;
    controllers::accounts::complete(server).await.map_err(|status| OpenCause::Default {
        what: "the ServiceAccounts of namespaces".to_owned(),
        status: Box::new(status),
    })
}

async fn make(server: &Arc<Inner>, group: &str, plural: &str, object: Value) -> Result<(), Status> {
    let registry = server.registry();
    let Some(resource) = registry.find(group, "v1", plural) else {
        return Err(Status::internal(format!("{plural} are not served")));
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let key = Key { kind: resource.store.clone(), namespace: namespace.clone(), name };
    if let Some(existing) = server.store.get(&key) {
        let (name, uid) = (&key.name, &existing.meta.uid);
        if group != rbac::GROUP || !rbac::defaults::complete(&mut existing.value(), &object) {
            return Ok(());
        }
        let complete = |value: &mut Value| {
            rbac::defaults::complete(value, &object);
        };
        let edit =
            async |call: &verbs::Call<'_>| verbs::edit(call, Part::Main, uid, complete).await;
        return service::internal(server, resource, &namespace, name, edit).await;
    }
    let make = async |call: &verbs::Call<'_>| verbs::make(call, object).await;
    service::internal(server, resource, &namespace, "", make).await
}

/// By this name clients within a cluster find the API; here it is a record only.
fn own_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {"type": "ClusterIP", "ports": [{
            "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443,
        }]},
    })
}

/// What a kubeconfig says: one cluster, one user, one context.
#[derive(Debug, Clone)]
pub struct Kubeconfig<'a> {
    /// The address, with its scheme.
    pub server: &'a str,
    /// The certificate of the authority that signs the server's, in PEM.
    pub authority: &'a str,
    /// The user's name.
    pub user: &'a str,
    /// His certificate, in PEM.
    pub certificate: &'a str,
    /// Its key, in PEM: a secret.
    pub key: &'a str,
}

impl Kubeconfig<'_> {
    /// The file's content: JSON, which is YAML, and every reader of kubeconfigs takes it.
    pub fn render(&self) -> String {
        let Kubeconfig { server, authority, user, certificate, key } = self;
        let encode = |pem: &str| STANDARD.encode(pem);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "muster", "cluster": {
                "server": server, "certificate-authority-data": encode(authority),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": encode(certificate), "client-key-data": encode(key),
            }}],
            "contexts": [{"name": "muster", "context": {"cluster": "muster", "user": user}}],
            "current-context": "muster",
        });
        format!("{config:#}\n")
    }
}

pub(crate) fn write_admin_kubeconfig(
    server: &Inner,
    path: &Path,
    addr: SocketAddr,
) -> Result<(), KubeconfigError> {
    let failed = |cause| KubeconfigError { path: path.to_owned(), cause };
    let user = "muster-admin";
    let client = server.pki.issue_admin(user, &[MASTERS.to_owned()]).map_err(failed)?;
    let config = Kubeconfig {
        server: &format!("https://{addr}"),
        authority: server.pki.ca_pem(),
        user,
        certificate: &client.certificate,
        key: &client.key,
    };
    pki::write_private(path, config.render().as_bytes()).map_err(failed)
}

pub(crate) fn issue_token(
    server: &Inner,
    namespace: &str,
    account: &str,
    pod: Option<&str>,
    life_seconds: i64,
) -> Result<String, TokenRequestError> {
    let find = |kind: &str, what: &'static str, name: &str| {
        let key = Key { kind: kind.into(), namespace: namespace.to_owned(), name: name.to_owned() };
        let found = server.store.get(&key);
        found.map(|object| Named { name: name.to_owned(), uid: object.meta.uid.clone() }).ok_or(
            TokenRequestError::Missing {
                what,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        )
    };
    let ask = Ask {
        namespace: namespace.to_owned(),
        account: find("serviceaccounts", "ServiceAccount", account)?,
        bound: pod.map(|pod| find("pods", "pod", pod).map(BoundTo::Pod)).transpose()?,
        audiences: Vec::new(),
        life_seconds,
    };
    let issued = server.tokens.issue(ask);
    issued.map(|(token, _)| token).map_err(|error| TokenRequestError::Sign(error.to_string()))
}
