//! A Kubernetes API in one process: kinds, objects, watches and access rules over an embedded
//! database, for `kubectl` by socket and for `kube::Client` without one.
//!
//! It knows no kind but Kubernetes' own; everything else comes as CustomResourceDefinitions.
//! One code path serves all kinds ([`verbs`]); what a built-in kind demands beyond its schema is
//! in [`rules`]. Reads come from memory, writes are on disk when they are answered ([`store`]).
//!
//! # Left out on purpose
//!
//! The API is for platforms that have no Kubernetes, not a Kubernetes: a client can tell by what
//! follows, and by nothing else.
//!
//! - **Nothing runs here.** Jobs and pods are records that a runner of the embedding program fills
//!   in; CronJobs are records that nothing follows; nodes, services, deployments, certificate
//!   signing requests and API services are plain data, and who makes one of the last three is
//!   warned. There is no scheduler, no kubelet and no network; the other kinds of workloads are not
//!   served. Of what a pod or a Job says, the schema is checked, and those rules beyond it that a
//!   Job of a pipeline can break; the rest of Kubernetes' hand-written checks is not there.
//! - **No `exec`, `attach`, `port-forward`** or proxying.
//! - **No aggregated API servers, no webhooks** for admission or conversion, no admission policies
//!   in CEL. Admission is in process ([`Admit`]); versions of a kind convert by `None`.
//! - **No protobuf or CBOR in answers**: bodies in protobuf are read for built-in kinds, answers are
//!   JSON or YAML. Only the document of OpenAPI v2 is packed for those who take nothing else, which
//!   is how kubectl and helm say that a kind is not known.
//! - **No priority and fairness**: what clients hold is bounded, and no user has more than a share
//!   of it. No resource quotas or limit ranges.
//! - **No audit policy**: one level, metadata, in a log of JSON lines.
//! - **No storage versions to migrate**: an object is stored as it was written, and served in the
//!   version asked for.
//! - **One writer.** A backup is a copy of what is stored; high availability is the same controllers
//!   on a Kubernetes cluster's own API.
//! - **No alpha or beta versions** of the built-in kinds.

mod admission;
mod audit;
mod authn;
mod backup;
mod body;
mod certify;
mod compress;
mod controllers;
pub(crate) mod discovery;
pub(crate) mod field;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod health;
pub(crate) mod json;
mod logs;
mod names;
pub(crate) mod openapi;
pub(crate) mod patch;
mod pki;
pub(crate) mod proto;
mod rbac;
mod registry;
mod request;
mod respond;
mod reviews;
mod routes;
mod rules;
pub(crate) mod schema;
pub(crate) mod selector;
mod sending;
mod serve;
mod server;
mod service;
mod shares;
pub(crate) mod ssa;
mod start;
mod status;
mod storage;
mod store;
pub(crate) mod table;
mod tokens;
mod user;
mod verbs;

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use admission::{AdmissionRequest, Admit, HeldTo, Named, Operation};
pub use audit::AuditConfig;
pub use backup::{BackupError, BackupPlan, BackupSummary, check, restore};
pub use body::{Body, BoxError};
pub use certify::{CertificateRequest, IssuedCertificate, PATH as CERTIFICATES_PATH};
pub use logs::{LogOptions, LogTarget, PodLogs};
pub use routes::Mounted;
pub use serve::Patience;
pub use service::ApiService;
pub use start::{Config, Kubeconfig, KubeconfigError, OpenError, TokenRequestError};
pub use status::Status;
pub use storage::Storage;
pub use store::{EncryptionKey, KeyFileError};
pub use user::{POD_NAME, POD_UID, UserInfo};

use serve::Peer;
use server::Inner;
use service::Caller;

/// A running API server; clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Inner>,
    /// Ends the server's controllers when the last handle goes.
    _running: Arc<start::Running>,
}

impl ApiServer {
    /// Opens the data directory, or makes it (certificate authority, signing key, database,
    /// default namespaces and roles), and starts the server's own controllers.
    pub async fn open(config: Config) -> Result<ApiServer, OpenError> {
        let (server, running) = start::open(config).await?;
        Ok(ApiServer { server, _running: Arc::new(running) })
    }

    /// The API for a client within the process, always as `user`:
    /// `kube::Client::new(api.service(user), "default")`.
    pub fn service(&self, user: UserInfo) -> ApiService {
        ApiService::new(self.server.clone(), Caller::Known(Arc::new(user)))
    }

    /// The API for callers within the process who must show who they are, as on a connection
    /// without a client certificate: by each request's bearer token.
    pub fn door(&self) -> ApiService {
        ApiService::new(self.server.clone(), Caller::Connection(Peer::new(None, None)))
    }

    /// Has `rules` asked before writes are committed.
    pub fn admit(&self, rules: Arc<dyn Admit>) {
        self.server.add_admission(rules);
    }

    /// Serves all paths that begin with `prefix` by `handler`, for authenticated users.
    pub fn mount(&self, prefix: &str, handler: Arc<dyn Mounted>) {
        self.server.add_mount(prefix, handler);
    }

    /// Hands backups out, at the plan's path, to users whom RBAC allows it; only the first call
    /// counts.
    pub fn hand_out_backups(&self, plan: BackupPlan) {
        self.server.backups.open(plan);
    }

    /// Says where logs of pods come from; only the first call counts.
    pub fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        if self.server.pod_logs.set(logs).is_err() {
            tracing::warn!("pod logs were set twice: the first source stays");
        }
    }

    /// Serves the API over TLS until `shutdown`; may be called for several listeners at once.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) {
        serve::serve(self.server.clone(), listener, shutdown).await;
    }

    /// The certificate of the authority that signs the serving certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        self.server.pki.ca_pem()
    }

    /// Writes a kubeconfig (0600) with which the server at `addr` may be fully administered.
    pub fn write_admin_kubeconfig(
        &self,
        path: &Path,
        addr: SocketAddr,
    ) -> Result<(), KubeconfigError> {
        start::write_admin_kubeconfig(&self.server, path, addr)
    }

    /// A token for a ServiceAccount, bound to it and, if given, to a pod of the same namespace;
    /// it lives for `life_seconds` (between 10 minutes and 48 hours).
    pub fn issue_service_account_token(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<&str>,
        life_seconds: i64,
    ) -> Result<String, TokenRequestError> {
        start::issue_token(&self.server, namespace, account, pod, life_seconds)
    }

    /// Ends watches, connections and the server's controllers, and closes the database and the
    /// audit log when what was accepted before is written. Later writes are refused.
    pub async fn close(&self) {
        self.server.shutdown.cancel();
        self.server.store.close().await;
        if let Some(audit) = &self.server.audit {
            audit.close();
        }
    }
}
