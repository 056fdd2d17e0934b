//! The server's shared parts, and what ties them together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admit, Compiled},
    audit::Audit,
    backup,
    logs::PodLogs,
    pki::Pki,
    rbac::Authorizer,
    registry::{DEFINITIONS, Registry},
    routes::Mounted,
    serve::Patience,
    service::Limits,
    store::{Object, Store},
    tokens::Tokens,
};

/// Everything that answering a request needs.
pub(crate) struct Inner {
    pub store: Store,
    pub authorizer: Authorizer,
    pub pki: Pki,
    pub tokens: Tokens,
    pub limits: Limits,
    pub audit: Option<Audit>,
    pub patience: Patience,
    pub backups: backup::Door,
    pub pod_logs: OnceLock<Arc<dyn PodLogs>>,
    /// Ends watches and the server's own controllers.
    pub shutdown: CancellationToken,
    registry: ArcSwap<Registry>,
    /// Held while the registry is made anew, so that an older set of kinds never replaces a newer.
    rebuilding: Mutex<()>,
    admission: ArcSwap<Vec<Arc<dyn Admit>>>,
    /// Schemas other than the definitions'.
    pub compiled: Compiled,
    mounts: ArcSwap<BTreeMap<String, Arc<dyn Mounted>>>,
}

impl Inner {
    pub(crate) fn new(
        store: Store,
        pki: Pki,
        tokens: Tokens,
        audit: Option<Audit>,
        patience: Patience,
    ) -> Inner {
        let server = Inner {
            store,
            authorizer: Authorizer::default(),
            pki,
            tokens,
            limits: Limits::default(),
            audit,
            patience,
            backups: backup::Door::default(),
            pod_logs: OnceLock::new(),
            shutdown: CancellationToken::new(),
            registry: ArcSwap::from_pointee(Registry::builtin()),
            rebuilding: Mutex::default(),
            admission: ArcSwap::default(),
            compiled: Compiled::default(),
            mounts: ArcSwap::default(),
        };
        server.rebuild_registry();
        server
    }

    /// The kinds served now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Follows a committed change before its author is answered: who has made a definition can
    /// use its kind at once.
    pub(crate) fn after_commit(&self, object: &Object) {
        if &*object.key.kind == DEFINITIONS {
            self.rebuild_registry();
        }
    }

    fn rebuild_registry(&self) {
        let _guard = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let definitions: Vec<Arc<Object>> =
            self.store.read().list(DEFINITIONS, None, None).cloned().collect();
        self.registry.store(Arc::new(self.registry.load().with_definitions(&definitions)));
    }

    pub(crate) fn add_admission(&self, rules: Arc<dyn Admit>) {
        self.admission.rcu(|all| all.iter().cloned().chain([rules.clone()]).collect::<Vec<_>>());
    }

    /// The rules that say to which schema objects of a definition with these annotations are held.
    pub(crate) fn rules_on_schemas(
        &self,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Arc<dyn Admit>> {
        let all = self.admission.load();
        all.iter().find(|rules| rules.governs(annotations)).cloned()
    }

    /// The admission rules that want to be asked about a kind.
    pub(crate) fn admission(&self, group: &str, resource: &str) -> Vec<Arc<dyn Admit>> {
        let all = self.admission.load();
        all.iter().filter(|rules| rules.wants(group, resource)).cloned().collect()
    }

    pub(crate) fn add_mount(&self, prefix: &str, handler: Arc<dyn Mounted>) {
        self.mounts.rcu(|all| {
            let mut all = (**all).clone();
            all.insert(prefix.to_owned(), handler.clone());
            all
        });
    }

    /// The mounted handler of the longest prefix of a path.
    pub(crate) fn mounted(&self, path: &str) -> Option<Arc<dyn Mounted>> {
        let mounts = self.mounts.load();
        let of_path = mounts.iter().rev().find(|(prefix, _)| path.starts_with(prefix.as_str()));
        of_path.map(|(_, handler)| handler.clone())
    }
}
