//! The platform's options as they are now: one value, shared by all controllers.

use std::sync::Arc;

use muster_plan::options::Options;
use tokio::sync::watch;

/// Who reads the options. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// What holds where nothing is configured.
    base: Arc<Options>,
    now: Arc<watch::Sender<Arc<Options>>>,
}

impl Chosen {
    /// Begins with these.
    pub(crate) fn new(options: Options) -> Self {
        let base = Arc::new(options);
        Self { now: Arc::new(watch::Sender::new(base.clone())), base }
    }

    /// What holds where nothing is configured.
    pub(crate) fn base(&self) -> &Options {
        &self.base
    }

    /// What holds now.
    pub(crate) fn now(&self) -> Arc<Options> {
        self.now.borrow().clone()
    }

    /// From now on these hold; says whether that changes anything.
    pub(crate) fn set(&self, options: Options) -> bool {
        self.now.send_if_modified(|held| {
            let changed = **held != options;
            if changed {
                *held = Arc::new(options);
            }
            changed
        })
    }

    /// Tells each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Options>> {
        self.now.subscribe()
    }
}
