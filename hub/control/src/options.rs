//! The platform's options as they are now: one value, shared by all controllers.

use std::sync::Arc;

use muster_plan::options::Options;
use tokio::sync::watch;

/// Who reads the options. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Chosen(Arc<watch::Sender<Arc<Options>>>);

impl Chosen {
    /// Begins with these.
    pub(crate) fn new(options: Options) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(options))))
    }

    /// What holds now.
    pub(crate) fn now(&self) -> Arc<Options> {
        self.0.borrow().clone()
    }

    /// Tells each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Options>> {
        self.0.subscribe()
    }
}
