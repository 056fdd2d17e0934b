//! What a pipeline that comes later is told of children: a file for each, within a limit.

use std::collections::BTreeMap;

use muster_core::yaml::to_yaml;
use serde_json::{Value, json};

use super::{Child, is_own, unoffered};
use crate::{promise::RequestApi, workflow::Subject};

/// Most bytes of all files together, as JSON: they are one answer, and what a pod reads of an answer
/// is bounded, too.
pub const FILES_LEN_MAX: usize = 8 << 20;

/// The files, by their paths below `/kratix/input`.
#[derive(Debug, Default)]
pub struct Files {
    texts: BTreeMap<String, String>,
    len: usize,
}

impl Files {
    /// Adds a child as it is; not what is not the parent's, nor a request of what is offered. `Err`:
    /// it is too much.
    pub fn add(
        &mut self,
        (child, live): (&Child, &Value),
        parent: &Subject,
        offers: &[(String, RequestApi)],
    ) -> Result<(), String> {
        let api = offers.iter().find(|(promise, _)| *promise == child.promise).map(|(_, api)| api);
        if !is_own(live, parent, &child.uid) || unoffered(child, api).is_some() {
            return Ok(());
        }
        let mut live = live.clone();
        if let Some(metadata) = live["metadata"].as_object_mut() {
            // As `kubectl get -o yaml` shows it: who set which field helps no pipeline.
            metadata.remove("managedFields");
        }
        let (path, text) = (child.path(parent), to_yaml(&live));
        self.len += json!({ &path: &text }).to_string().len();
        if self.len > FILES_LEN_MAX {
            return Err(format!(
                "the requests that earlier pipelines put out are more than {FILES_LEN_MAX} bytes \
                 with {}: have them write less into their status",
                child.title()
            ));
        }
        self.texts.insert(path, text);
        Ok(())
    }

    /// All of them.
    pub fn into_texts(self) -> BTreeMap<String, String> {
        self.texts
    }
}
