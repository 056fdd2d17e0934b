//! The client commands: thin over the API, so that a host without kubectl can be used at once.

pub(crate) mod agents;
pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod cluster;
pub(crate) mod delete;
pub(crate) mod destinations;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod pipeline;
pub(crate) mod placements;
pub(crate) mod restore;

mod kinds;
mod manifests;
mod table;
