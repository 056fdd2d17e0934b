//! The agent's hands: make a destination hold files, look how they do, remove them.
//!
//! [`Appliers`] is all that the agent sees. Behind it, [`split`] says whose each file is, and three
//! appliers carry it out: kubernetes (server-side apply), terraform (or tofu), and shell (`Script`
//! documents). The local [`Policy`] decides which of them exist.

mod applier;
mod disk;
mod engine;
mod inventory;
mod kubernetes;
mod options;
mod policy;
mod process;
pub mod script;
mod shell;
pub mod split;
mod terraform;

pub use engine::{Appliers, ContentStore, OpenError, Options};
pub use kubernetes::KubernetesError;
pub use policy::{
    APPLIERS, Enabled, KubernetesPolicy, Namespaces, Policy, PolicyError, ShellPolicy,
    TerraformPolicy,
};
